package node

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"
)

// answering is a mirror that answers /readyz, and requests of images by another handler.
func answering(images http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ready\n")) })
	if images != nil {
		mux.HandleFunc("/v2/", images)
	}
	return mux
}

// asking is a node whose containerd asks a URL for images of ghcr.io, with more lines in the table of that host.
func asking(url, more string) fstest.MapFS {
	return nodeFiles("-- etc/containerd/config.toml --\nversion = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"" + CertsDir +
		"\"\n-- etc/containerd/certs.d/ghcr.io/hosts.toml --\nserver = \"https://ghcr.io\"\n[host.\"" + url + "\"]\n" + more + "\n")
}

func rules(r *Report) (list []string) {
	for _, f := range r.Findings {
		list = append(list, string(f.Level)+" "+f.Rule)
	}
	return list
}

func TestAskAll(t *testing.T) {
	t.Parallel()
	ours := httptest.NewServer(answering(nil))
	t.Cleanup(ours.Close)
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	secure := httptest.NewTLSServer(answering(nil))
	t.Cleanup(secure.Close)
	late := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		_, _ = w.Write([]byte("ready"))
	}))
	t.Cleanup(late.Close)
	for _, tt := range []struct {
		name, url, more, want string
		ours                  bool
	}{
		{"ours", ours.URL, "", "", true},
		{"another program", other.URL, "", "broken not-ours", false},
		{"http:// where TLS is spoken", "http" + strings.TrimPrefix(secure.URL, "https"), "", "broken tls-needed", false},
		{"nothing listens", "http://127.0.0.1:1", "", "broken mirror-unreachable", false},
		{"a certificate of its own CA", secure.URL, `ca = "ca.crt"`, "", true},
		{"an unknown CA", secure.URL, "", "broken certificate-untrusted", false},
		{"an unknown CA that is not checked", secure.URL, "skip_verify = true", "", true},
		{"a CA file without a certificate", secure.URL, `ca = "/etc/containerd/config.toml"`, "broken mirror-unreachable", false},
		{"a clock", late.URL, "", "warning clock-skew", true},
		{"the mirror, and another", ours.URL, "[host.\"" + other.URL + "\"]", "warning not-ours", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := asking(tt.url, tt.more)
			root["etc/containerd/certs.d/ghcr.io/ca.crt"] = &fstest.MapFile{
				Data: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}),
			}
			r := Check(root)
			if len(r.Findings) > 0 {
				t.Fatalf("the files: %q", rules(r))
			}
			answers := r.AskAll(t.Context(), root)
			if got := strings.Join(rules(r), "; "); got != tt.want || answers[0].Ours != tt.ours {
				t.Errorf("%q, ours %v: %+v", got, answers[0].Ours, r.Findings)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	m := Mirror{URL: "https://mirror.example:5443", File: "/etc/x", Line: 3}
	for _, tt := range []struct {
		err   error
		clock time.Duration // how far it is from ours
		rule  string
	}{
		{nil, 59 * time.Second, ""},
		{nil, 2 * time.Minute, "clock-skew"},
		{nil, -2 * time.Minute, "clock-skew"},
		{errNotReady("starting"), 0, "mirror-not-ready"},
		{fmt.Errorf("ask the mirror: %w", &net.DNSError{Name: "mirror.example", Err: "no such host"}), 0, "name-unknown"},
		{fmt.Errorf("ask the mirror: %w", x509.CertificateInvalidError{Reason: x509.Expired}), 0, "certificate-expired"},
		{context.DeadlineExceeded, 0, "mirror-unreachable"},
	} {
		f := m.explain(tt.err, time.Now().Add(tt.clock))
		if f == nil && tt.rule != "" || f != nil && (f.Rule != tt.rule || f.Cause == "" || f.Remedy == "" || f.File != m.File || f.Line != m.Line) {
			t.Errorf("%v, %s: %+v", tt.err, tt.clock, f)
		}
	}
}

// The image is asked for as containerd does.
func TestTry(t *testing.T) {
	t.Parallel()
	const sum = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	var asked atomic.Int64
	s := httptest.NewServer(answering(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Mirror-Node") != "node-7" || r.URL.Query().Get("ns") != "ghcr.io" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		switch r.Method + " " + r.URL.Path {
		case "HEAD /v2/acme/app/manifests/1", "GET /v2/acme/app/manifests/" + sum:
			w.Header().Set("Docker-Content-Digest", sum)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(s.Close)
	root := asking(s.URL, "[host.\""+s.URL+"\".header]\nMirror-Node = \"node-7\"")
	for _, tt := range []struct {
		image, status, want string
		asked               int64
	}{
		{"ghcr.io/acme/app:1", "200 OK", "", 2},
		{"ghcr.io/acme/app@" + sum, "403 Forbidden", "broken image-refused", 1},
		{"ghcr.io/acme/secret:1", "403 Forbidden", "broken image-refused", 1},
		{"quay.io/acme/app:1", "", "broken image-not-covered", 0},
	} {
		r := Check(root)
		answers := r.AskAll(t.Context(), root)
		before := asked.Load()
		tried, err := r.Try(t.Context(), root, answers, tt.image)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(rules(r), "; "); got != tt.want || asked.Load()-before != tt.asked {
			t.Errorf("%s: %q, %d requests", tt.image, got, asked.Load()-before)
		}
		if tried == nil && tt.status == "" {
			continue
		}
		if tried.Status != tt.status || tried.Node != "node-7" || tried.Mirror != s.URL || tt.want == "" && tried.Digest != sum {
			t.Errorf("%s: %+v", tt.image, tried)
		}
	}
	r := Check(root)
	if _, err := r.Try(t.Context(), root, nil, "Not An Image"); err == nil {
		t.Error("not an image")
	}
	// Podman's mirrors have the registry in the path.
	var path atomic.Value
	plain := httptest.NewServer(answering(func(w http.ResponseWriter, r *http.Request) {
		path.Store(r.URL.String())
		http.Error(w, "", http.StatusNotFound)
	}))
	t.Cleanup(plain.Close)
	root = nodeFiles("-- etc/containers/registries.conf --\n[[registry]]\nprefix = \"ghcr.io\"\nlocation = \"ghcr.io\"\n[[registry.mirror]]\nlocation = \"" +
		strings.TrimPrefix(plain.URL, "http://") + "/ghcr.io\"\ninsecure = true\n")
	r = Check(root)
	if _, err := r.Try(t.Context(), root, r.AskAll(t.Context(), root), "ghcr.io/acme/app:1"); err != nil || path.Load() != "/v2/ghcr.io/acme/app/manifests/1" {
		t.Errorf("%v %v", path.Load(), err)
	}
}

// A mirror that never answers costs seconds.
func TestAskAllIsBounded(t *testing.T) {
	t.Parallel()
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hang.Close)
	root := asking(hang.URL, "")
	r := Check(root)
	r.AskAll(t.Context(), root)
	if got := rules(r); len(got) != 1 || got[0] != "broken mirror-unreachable" {
		t.Error(got)
	}
}
