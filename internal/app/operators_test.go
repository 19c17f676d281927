package app_test

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/admin/client"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/app"
)

// operatorOf is a way to call the admin listener.
type operatorOf struct {
	t    *testing.T
	a    *app.App
	ca   []byte
	cert *tls.Certificate
}

// ask sends a request with a token, or none, and returns what a command would print of the refusal; empty: it is answered.
func (o operatorOf) ask(method, path, token, body string) string {
	o.t.Helper()
	_, port, err := net.SplitHostPort(o.a.AdminAddr().String())
	if err != nil {
		o.t.Fatal(err)
	}
	c, err := client.New(client.Options{URL: "https://127.0.0.1:" + port, CA: o.ca, Token: token, Certificate: o.cert})
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err = c.Do(o.t.Context(), method, path, nil, []byte(body)); err != nil {
		return err.Error()
	}
	return ""
}

// Operators call the real listener with their tokens and certificates. Each change is logged with their names, and files that change
// count from the next request on.
func TestOperators(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	tokens := filepath.Join(dir, "operators.yaml")
	alice, aliceHash := identity.NewToken()
	bob, bobHash := identity.NewToken()
	entries := func(list ...identity.TokenEntry) {
		text := "tokens:\n"
		for _, e := range list {
			text += e.Line()
		}
		write(t, tokens, text)
	}
	entries(identity.TokenEntry{Name: "alice", SHA256: aliceHash}, identity.TokenEntry{Name: "bob", SHA256: bobHash})
	const admin = `{listen: '0.0.0.0:0', tls: {cert: tls.crt, key: tls.key}, operators: {tokens: operators.yaml, ca: ca.crt, rights: [` +
		`{who: ["*"], may: read}, {who: [alice, carol], may: operate}]}}`
	a, log := start(t, settings(t, dir, admin, ""))
	root, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	byCertificate := func(name string, node bool) operatorOf {
		issue := ca.Operator
		if node {
			issue = ca.Node
		}
		pair, err := issue(name, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		return operatorOf{t, a, root, &cert}
	}
	plain := operatorOf{t, a, root, nil}
	for _, tt := range []struct {
		name  string
		by    operatorOf
		token string
		read  string // what refuses each; empty: it is answered
		reset string
	}{
		{"nothing", plain, "", "requires a token", "requires a token"},
		{"a wrong token", plain, "mirror_x", "is not one of", "is not one of"},
		{"alice", plain, alice, "", ""},
		{"bob may only read", plain, bob, "", "bob has no right to operate"},
		{"carol's certificate", byCertificate("carol", false), "", "", ""},
		{"dave's certificate", byCertificate("dave", false), "", "", "dave has no right to operate"},
		{"a node's certificate", byCertificate("worker-1", true), "", "is not the name of a user", "is not the name of a user"},
		{"bob's token and carol's certificate", byCertificate("carol", false), bob, "", "bob has no right to operate"},
		{"a wrong token and carol's certificate", byCertificate("carol", false), "mirror_x", "is not one of", "is not one of"},
	} {
		for path, want := range map[string]string{"failures": tt.read, "upstreams/reset": tt.reset} {
			method, body := "GET", ""
			if path != "failures" {
				method, body = "POST", `{"upstream":"ghcr.io"}`
			}
			got := tt.by.ask(method, path, tt.token, body)
			if want == "" && strings.Contains(got, "is not an upstream of this mirror, or no client has pulled") {
				got = "" // no client has
			}
			if (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s, %s: %q, want %q", tt.name, path, got, want)
			}
		}
	}
	log.Take()
	if got := plain.ask("POST", "purge", alice, `{"digest":"sha256:`+strings.Repeat("a", 64)+`"}`); got != "" {
		t.Error(got)
	}
	if got := log.Take(); !strings.Contains(got, `msg="content purged" operator=alice client=127.0.0.1:`) {
		t.Errorf("log: %s", got)
	}

	entries(identity.TokenEntry{Name: "bob", SHA256: bobHash})
	write(t, filepath.Join(dir, "ca.crt"), string(root))
	if err := a.Reload(settings(t, dir, admin, "")); err != nil {
		t.Fatal(err)
	}
	if got := plain.ask("GET", "failures", alice, ""); !strings.Contains(got, "is not one of") {
		t.Errorf("a token that was removed: %q", got)
	}
	write(t, tokens, "tokens: [{name: bob, sha256: x}]")
	if err := a.Reload(settings(t, dir, admin, "")); err == nil || !strings.Contains(err.Error(), "admin.operators.tokens: ") {
		t.Errorf("a damaged file: %v", err)
	}
	if got := plain.ask("GET", "failures", bob, ""); got != "" {
		t.Errorf("beside a damaged file: %q", got)
	}
	// Without any key the listener, which other machines reach, keeps the old ones until the restart.
	if err := a.Reload(settings(t, dir, "{listen: '127.0.0.1:0', tls: {cert: tls.crt, key: tls.key}}", "")); err != nil {
		t.Fatal(err)
	}
	if got := plain.ask("GET", "failures", "", ""); !strings.Contains(got, "requires a token") {
		t.Errorf("all keys were removed: %q", got)
	}
	if got := plain.ask("GET", "failures", bob, ""); got != "" {
		t.Errorf("all keys were removed, bob: %q", got)
	}
}
