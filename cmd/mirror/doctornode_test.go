package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

func TestDoctorNode(t *testing.T) {
	t.Parallel()
	const sum = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Content-Digest", sum)
		switch r.URL.Path {
		case "/readyz":
			_, _ = w.Write([]byte("ready"))
		case "/identity":
			_, _ = w.Write([]byte(`{"identity":"node:node-7"}`))
		}
	}))
	t.Cleanup(s.Close)
	recorded := oci.Ref{Repo: oci.Repo{Host: "ghcr.io", Name: "acme/app"}, Tag: "1"}
	record := httptest.NewServer(admin.New(admin.Options{Loopback: true, Pulls: func(_ context.Context, active bool) ([]journal.Pull, error) {
		if active {
			return nil, nil
		}
		return []journal.Pull{{Ref: recorded, Client: "node-7"}, {Ref: oci.Ref{Repo: oci.Repo{Host: "ghcr.io", Name: "acme/other"}, Tag: "1"}, Client: "node-8"}}, nil
	}}))
	t.Cleanup(record.Close)

	root := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := commandLine(t, "doctor", "node", "--root", root)
	if code != exitFailed || errs != "" || !strings.HasPrefix(out, "BROKEN  no-mirror\n  no file") {
		t.Errorf("an empty node: %d\n%s%s", code, out, errs)
	}
	config := "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"
	put("etc/containerd/config.toml", config)
	put("etc/containerd/certs.d/ghcr.io/hosts.toml", "server = \"https://ghcr.io\"\n[host.\""+s.URL+"\"]\n[host.\""+s.URL+"\".header]\nMirror-Node = \"node-7\"\n"+
		"Authorization = \"Bearer s3cret\"\n")
	code, out, errs = commandLine(t, "doctor", "node", "--root", root, "--image", "ghcr.io/acme/app:1", "--admin", record.URL)
	if code != exitOK || errs != "" || !strings.Contains(out, s.URL+"  yes  ") || !strings.Contains(out, "containerd  ghcr.io\n\nghcr.io/acme/app:1: 200 OK, "+sum) ||
		!strings.HasSuffix(out, "and the mirror has recorded it\nThis node pulls through the mirror.\n") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	code, out, _ = commandLine(t, "doctor", "node", "--root", root, "--image", "ghcr.io/acme/other:1", "--admin", record.URL, "-o", "json")
	var r nodeReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitFailed || r.OK || r.Image.Recorded == nil || *r.Image.Recorded ||
		r.Findings[0].Rule != "not-recorded" || strings.Contains(out, "s3cret") {
		t.Errorf("another node's pull: %d %v\n%s", code, err, out)
	}

	put("etc/containerd/config.toml", config+"[plugins.\"io.containerd.cri.v1.images\".registry.mirrors.\"docker.io\"]\nendpoint = []\n")
	code, out, _ = commandLine(t, "doctor", "node", "--root", root)
	if code != exitFailed || !strings.Contains(out, "\nBROKEN  mirrors-and-config-path  /etc/containerd/config.toml:4\n  mirrors is set") ||
		!strings.HasSuffix(out, "This node does not pull all images through the mirror.\n") {
		t.Errorf("%d\n%s", code, out)
	}
	for _, args := range [][]string{{"--image", "A B"}, {"x"}} {
		if code, _, errs := commandLine(t, append([]string{"doctor", "node", "--root", root}, args...)...); code != exitUsage {
			t.Errorf("%q: %d %s", args, code, errs)
		}
	}
	if code, _, _ := commandLine(t, "doctor", "node", "--root", root, "--image", "ghcr.io/acme/app:1", "--admin", "127.0.0.1:1"); code != exitUnreachable {
		t.Errorf("no mirror at --admin: %d", code)
	}
	if code, _, _ := commandLine(t, "doctor", "node", "--root", filepath.Join(root, "not", "there")); code != exitFailed {
		t.Errorf("no root: %d", code)
	}
	text := nodeText(&r, true)
	if !strings.Contains(text, "\x1b[31mBROKEN\x1b[0m  not-recorded\n") {
		t.Errorf("in colour: %q", text)
	}
}
