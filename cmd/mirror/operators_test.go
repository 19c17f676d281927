package main

import (
	"crypto/tls"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/identity"
)

// Commands show an operator's token or certificate, as mirror token new and mirror setup tls make them, and say which right is missing.
func TestCommandsOfOperators(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := commandLine(t, "setup", "tls", "--dir", dir, "--host", "127.0.0.1", "--operator", "alice", "--operator", "bob"); code != 0 {
		t.Fatal(errs)
	}
	file := filepath.Join(dir, "operators.yaml")
	token, _, err := runToken(t, "bob", "--file", file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	keys := admin.Keys{Rights: access.NewOperators(access.OperatorRule{Who: []string{"*"}, May: access.Read}, access.OperatorRule{Who: []string{"alice"}, May: access.Operate})}
	if keys.Tokens, err = identity.ParseTokens(file, text); err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if keys.Certificates, err = identity.ParseOperatorCertificates(authority, nil); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(admin.New(admin.Options{
		Keys:      func() admin.Keys { return keys },
		Upstreams: func() []admin.Upstream { return []admin.Upstream{{Name: "docker.io"}} },
		Reset:     func(name string) []string { return []string{name} },
	}))
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	t.Setenv("MIRROR_ADMIN", s.URL)
	t.Setenv("MIRROR_ADMIN_CA", textFile(t, "server.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))))
	of := func(name string) []string {
		return []string{"--admin-cert", filepath.Join(dir, "operators", name+".crt"), "--admin-key", filepath.Join(dir, "operators", name+".key")}
	}
	tokenFile := []string{"--admin-token-file", textFile(t, "bob.token", token)}
	for _, tt := range []struct {
		name  string
		flags []string
		code  int    // of upstreams
		reset string // in the error of upstreams reset; empty: it is done
	}{
		{"alice's certificate", of("alice"), 0, ""},
		{"bob's certificate", of("bob"), 0, "bob has no right to operate"},
		{"bob's token", tokenFile, 0, "add a rule with may: operate to admin.operators.rights"},
		{"nothing", nil, exitFailed, "--admin-token-file"},
		{"a certificate without its key", of("alice")[:2], exitUsage, "--admin-cert and --admin-key belong together"},
		{"a key of another", append(of("alice")[:2:2], of("bob")[2:]...), exitFailed, "belong together"},
	} {
		if code, _, errs := commandLine(t, append([]string{"upstreams"}, tt.flags...)...); code != tt.code {
			t.Errorf("%s: upstreams: %d %s", tt.name, code, errs)
		}
		code, _, errs := commandLine(t, append([]string{"upstreams", "reset", "docker.io"}, tt.flags...)...)
		if (code == 0) != (tt.reset == "") || !strings.Contains(errs, tt.reset) {
			t.Errorf("%s: upstreams reset: %d %s", tt.name, code, errs)
		}
	}
	t.Setenv("MIRROR_ADMIN_CERT", of("alice")[1])
	t.Setenv("MIRROR_ADMIN_KEY", of("alice")[3])
	if code, _, errs := commandLine(t, "upstreams", "reset", "docker.io"); code != 0 {
		t.Errorf("by variables: %d %s", code, errs)
	}
}
