package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/internal/authority"
	"github.com/registrymirror/mirror/internal/testlog"
)

// pki is an authority, with the certificate of a mirror on loopback and that of a node, as mirror setup tls writes them.
type pki struct {
	ca, cert, key []byte // of the authority; of the node
	server        tls.Certificate
}

func newPKI(t *testing.T) pki {
	t.Helper()
	a, ca, err := authority.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mirror, err := a.Mirror([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	node, err := a.Node("worker-1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(mirror.Cert, mirror.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pki{ca.Cert, node.Cert, node.Key, pair}
}

// knowing is a mirror that knows a token and a certificate, over TLS. It takes connections without one where auth lets it.
func knowing(t *testing.T, p pki, auth tls.ClientAuthType) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(answering(func(http.ResponseWriter, *http.Request) {}))
	ready := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/identity" {
			ready.ServeHTTP(w, r)
			return
		}
		var answer struct {
			Identity string `json:"identity"`
			Refused  string `json:"refused,omitempty"`
		}
		switch {
		case r.Header.Get("Authorization") == "Bearer right":
			answer.Identity = "ci"
		case len(r.TLS.PeerCertificates) > 0:
			answer.Identity = "node:" + strings.TrimPrefix(r.TLS.PeerCertificates[0].Subject.CommonName, "system:node:")
		case r.Header.Get("Authorization") == "Bearer unused":
		default:
			answer.Refused = "login by token: refused"
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{p.server}, ClientAuth: auth}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// The agent shows what the node's files have, and knows a login that does not count from a mirror that does not say.
func TestLogin(t *testing.T) {
	t.Parallel()
	p, dir := newPKI(t), t.TempDir()
	for name, b := range map[string][]byte{"ca": p.ca, "cert": p.cert, "key": p.key, "other": p.ca} {
		put(t, dir, name, string(b))
	}
	s := knowing(t, p, tls.RequestClientCert)
	old := httptest.NewServer(answering(nil))
	t.Cleanup(old.Close)
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, tt := range []struct {
		name    string
		q       Question
		refused string // part of the reason; empty: it is not refused
		unknown bool   // another error
	}{
		{"a token", Question{Authorization: "Bearer right"}, "", false},
		{"a wrong token", Question{Authorization: "Bearer wrong"}, "login by token: refused", false},
		{"a certificate", Question{ClientCert: at("cert"), ClientKey: at("key")}, "", false},
		{"a certificate that is not there", Question{ClientCert: at("absent"), ClientKey: at("key")}, "absent: no such file", false},
		{"a key of another", Question{ClientCert: at("other"), ClientKey: at("key")}, "not a pair in PEM", false},
		{"a pipe", Question{ClientCert: at("cert"), ClientKey: dir}, "it is a folder", false},
		{"an earlier mirror", Question{Mirror: old.URL, Authorization: "Bearer wrong"}, "", true},
		{"no mirror", Question{Mirror: "http://127.0.0.1:1", Authorization: "Bearer wrong"}, "", true},
	} {
		if tt.q.Mirror == "" {
			tt.q.Mirror, tt.q.CA = s.URL, at("ca")
		}
		err := tt.q.Login(t.Context())
		refusal, ok := errors.AsType[*LoginError](err)
		if ok != (tt.refused != "") || ok && !strings.Contains(refusal.Reason, tt.refused) || !ok && (err != nil) != tt.unknown {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.q.Mirror == s.URL {
			if err := tt.q.Ready(t.Context()); err != nil {
				t.Errorf("%s: ready: %v", tt.name, err)
			}
		}
	}
}

// The doctor shows the certificate and the token of the node's files, and finds those that do not count.
func TestAskAllShowsTheLogin(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	open, strict := knowing(t, p, tls.RequestClientCert), knowing(t, p, tls.RequireAnyClientCert)
	const pair = "ca = \"ca.crt\"\nclient = [[\"client.cert\", \"client.key\"]]\n"
	header := func(s *httptest.Server, value string) string {
		return "ca = \"ca.crt\"\n[host.\"" + s.URL + "\".header]\nAuthorization = \"" + value + "\"\n"
	}
	for _, tt := range []struct {
		name, url, more, want, identity string
	}{
		{"a certificate that the mirror demands", strict.URL, pair, "", "node:worker-1"},
		{"a certificate", open.URL, pair, "", "node:worker-1"},
		{"no login", open.URL, "ca = \"ca.crt\"", "", ""},
		{"a token", open.URL, header(open, "Bearer right"), "", "ci"},
		{"a wrong token", open.URL, header(open, "Bearer wrong"), "broken login-refused", ""},
		{"a token that is of no use", open.URL, header(open, "Bearer unused"), "note login-unused", ""},
		{"without the certificate that the mirror demands", strict.URL, "ca = \"ca.crt\"", "broken mirror-unreachable", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := asking(tt.url, tt.more)
			for name, b := range map[string][]byte{"ca.crt": p.ca, "client.cert": p.cert, "client.key": p.key} {
				root["etc/containerd/certs.d/ghcr.io/"+name] = &fstest.MapFile{Data: b}
			}
			r := Check(root)
			if len(r.Findings) > 0 {
				t.Fatalf("the files: %+v", r.Findings)
			}
			answers := r.AskAll(t.Context(), root)
			if got := strings.Join(rules(r), "; "); got != tt.want || answers[0].Identity != tt.identity {
				t.Errorf("%q, identity %q: %+v", got, answers[0].Identity, r.Findings)
			}
			for _, f := range r.Findings {
				if strings.Contains(f.Cause+f.Remedy, "Bearer ") {
					t.Errorf("a secret: %+v", f)
				}
			}
		})
	}
	plain := httptest.NewServer(answering(nil))
	t.Cleanup(plain.Close)
	root := asking(plain.URL, "[host.\""+plain.URL+"\".header]\nAuthorization = \"Bearer x\"")
	r := Check(root)
	r.AskAll(t.Context(), root)
	if got := strings.Join(rules(r), "; "); got != "note login-unknown" {
		t.Errorf("a mirror of an earlier version: %q", got)
	}
}

// A node whose login is refused stays configured, and is not reported as well: state, metric and a call, once each time it changes.
func TestAgentOfANodeWhoseLoginIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var answer atomic.Pointer[error] // nil: the login counts
		n := tend(t, dir, func(o *AgentOptions) {
			o.Login = func(context.Context) error {
				if e := answer.Load(); e != nil {
					return *e
				}
				return nil
			}
		})
		answers := func(err error) { answer.Store(&err) }
		metric := func(want string) {
			t.Helper()
			w := httptest.NewRecorder()
			n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
			b, err := io.ReadAll(w.Body)
			if err != nil || !strings.Contains(string(b), "\nmirror_node_login_refused "+want+"\n") || !strings.Contains(string(b), "\nmirror_node_configured 1\n") {
				t.Errorf("want %s: %v\n%s", want, err, b)
			}
		}
		n.up.Store(true)
		time.Sleep(time.Minute)
		metric("0")
		answers(&LoginError{"it has expired"})
		time.Sleep(40 * time.Second) // once, or twice
		if n.State() != Configured {
			t.Errorf("after 40 s: %s", n.State())
		}
		time.Sleep(80 * time.Second)
		metric("1")
		answers(errors.New("timeout"))
		time.Sleep(time.Minute)
		metric("1")
		if err := os.RemoveAll(filepath.Join(dir, "ghcr.io")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !n.configured() {
			t.Error("the files are not kept")
		}
		answer.Store(nil)
		time.Sleep(time.Minute)
		metric("0")
		if err := n.stop(); err != nil {
			t.Error(err)
		}
		if got := strings.Join([]string{string(n.states[0]), string(n.states[1]), string(n.states[2])}, ", "); len(n.states) != 3 ||
			got != "configured, login refused, configured" {
			t.Errorf("states: %v", n.states)
		}
	})
}

// A login that is replaced is in the files after the next answer of the mirror. One that can't be read leaves the last one in use, and is
// reported once; where the mirror refuses the last one, that is the state.
func TestAgentOfANodeWhoseLoginIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var login atomic.Pointer[string] // nil: it can't be read
		var refused atomic.Bool
		logged := &testlog.Log{}
		n := tend(t, dir, func(o *AgentOptions) {
			o.Log = slog.New(slog.NewTextHandler(logged, nil))
			o.Renew = func() ([]File, error) {
				s := login.Load()
				if s == nil {
					return nil, errors.New("permission denied")
				}
				with := options()
				with.Authorization = *s
				out, err := Containerd(with, dir)
				return out.Files, err
			}
			o.Login = func(context.Context) error {
				if refused.Load() {
					return &LoginError{"it has expired"}
				}
				return nil
			}
		})
		use := func(value string) { login.Store(&value) }
		inFile := func(want string) {
			t.Helper()
			if got := tree(t, dir)["ghcr.io/hosts.toml"]; !strings.Contains(got, `"`+want+`"`) {
				t.Errorf("no %s in\n%s", want, got)
			}
		}
		use("Bearer first")
		n.up.Store(true)
		time.Sleep(time.Minute)
		inFile("Bearer first")
		use("Bearer second")
		time.Sleep(time.Minute)
		inFile("Bearer second")
		unreadable := func(why string) {
			t.Helper()
			time.Sleep(time.Minute)
			inFile("Bearer second")
			if n.State() != Unreadable || !n.inPlace() {
				t.Errorf("%s: %s", why, n.State())
			}
		}
		login.Store(nil)
		unreadable("it can't be read")
		use("token")
		unreadable("it has no scheme")
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		if !strings.Contains(w.Body.String(), "\nmirror_node_login_unreadable 1\n") {
			t.Errorf("metrics:\n%s", w.Body)
		}
		refused.Store(true)
		time.Sleep(2 * time.Minute)
		refused.Store(false)
		use("Bearer third")
		time.Sleep(time.Minute)
		inFile("Bearer third")
		if got := strings.Count(logged.Take(), "cannot read the login of this node"); got != 1 {
			t.Errorf("it is logged %d times", got)
		}
		if err := n.stop(); err != nil {
			t.Error(err)
		}
		if want := []State{Configured, Unreadable, Refused, Configured}; !slices.Equal(n.states, want) {
			t.Errorf("states %v, not %v", n.states, want)
		}
	})
}
