package app_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/origin"
)

// known is a mirror of an origin with a rule for some clients, which log in by a password or a token.
func known(t *testing.T, dir string, o *origin.Origin, who, more string) *config.Config {
	t.Helper()
	write(t, filepath.Join(dir, "pass"), secret)
	return parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], access: rules, credentials: [{name: hub, username: bot, passwordFile: pass}]%s}\n"+
		"clients: {htpasswd: users, tokens: tokens.yaml}\nrules: [{who: [%s], pull: [%q]}]\n", nameOf(o), o.URL(), more, who, nameOf(o)+"/private/*"))
}

// users writes a file of users whose password is their name with a 1.
func users(t *testing.T, dir string, names ...string) {
	t.Helper()
	var b strings.Builder
	for _, name := range names {
		hash, err := bcrypt.GenerateFromPassword([]byte(name+"1"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s:%s\n", name, hash)
	}
	write(t, filepath.Join(dir, "users"), b.String())
}

// tokenOf writes a file with a new token of a name.
func tokenOf(t *testing.T, dir, name string) string {
	t.Helper()
	token, hash := identity.NewToken()
	write(t, filepath.Join(dir, "tokens.yaml"), "tokens:\n"+identity.TokenEntry{Name: name, SHA256: hash}.Line())
	return token
}

func basic(user, password string) string {
	r := &http.Request{Header: make(http.Header)}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// Each client pulls what a rule names it for, on each route alike, and nothing else; no registry is asked for a client without a right.
// What one client has brought into the cache is not for the others.
func TestClients(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := limited(t)
	users(t, dir, "alice", "bob")
	token := tokenOf(t, dir, "ci")
	a, log := start(t, known(t, dir, o, "alice, ci", ""))
	r := &running{App: a}
	own, ns := nameOf(o)+"/private/app/manifests/1", "private/app/manifests/1?ns="+nameOf(o)
	if got := r.asks(t, "GET", own, "Authorization", basic("alice", "alice1")); !strings.HasPrefix(got.status, "200 ") {
		t.Fatalf("alice: %+v", got)
	}
	blob := ""
	for _, q := range o.Requests() {
		if q.Kind == origin.KindManifest && strings.Contains(q.Ref, ":") {
			blob = "manifests/" + q.Ref
		}
	}
	o.ClearRequests()
	for _, tt := range []struct {
		name, login, own, ns string // the status by the mirror's own name, and with ns
	}{
		{"alice", basic("alice", "alice1"), "200", "200"},
		{"a token", "Bearer " + token, "200", "200"},
		{"a token as password", basic("ci", token), "200", "200"},
		{"bob, without a rule", basic("bob", "bob1"), "403", "403"},
		{"anonymous", "", "401", "403"},
		{"a wrong password", basic("alice", "wrong"), "401", "403"},
		{"an unknown user", basic("carol", "carol1"), "401", "403"},
		{"the registry's own login", basic("bot", secret), "401", "403"},
	} {
		for _, path := range []string{own, strings.Replace(own, "manifests/1", blob, 1), strings.Replace(own, "manifests/1", "tags/list", 1)} {
			for _, method := range []string{"GET", "HEAD"} {
				if path == own {
					if got := r.asks(t, method, ns, "Authorization", tt.login); !strings.HasPrefix(got.status, tt.ns+" ") || got.challenge != "" {
						t.Errorf("%s: %s with ns: %+v, want %s", tt.name, method, got, tt.ns)
					}
				}
				got := r.asks(t, method, path, "Authorization", tt.login)
				if !strings.HasPrefix(got.status, tt.own+" ") || (got.challenge != "") != (tt.own == "401") {
					t.Errorf("%s: %s %s: %+v, want %s", tt.name, method, path, got, tt.own)
				}
			}
		}
	}
	for _, q := range o.Requests() {
		if q.Kind == origin.KindManifest && q.Method == "GET" {
			t.Errorf("the registry was asked for content that is cached, or forbidden: %s", q.Ref)
		}
	}
	if got := r.asks(t, "GET", own, "Authorization", basic("bob", "bob1")); !strings.Contains(got.status, "no rule that lets user bob pull") {
		t.Errorf("bob is not named: %s", got.status)
	}
	// Each is told what it can do itself.
	for _, tt := range []struct{ name, path, login, want string }{
		{"anonymous", own, "", "; log in to the mirror: docker login"},
		{"a node", ns, "", "; give the node a login to the mirror"},
		{"a node with a wrong login", ns, "Bearer x", "; correct the certificate or the Authorization header"},
		{"a user", own, basic("bob", "bob1"), "; add a rule for bob to the mirror"},
		{"a wrong token", own, "Bearer x", "; log in to the mirror with a token of its clients.tokens"},
	} {
		if got := r.asks(t, "GET", tt.path, "Authorization", tt.login); !strings.Contains(got.body, tt.want) {
			t.Errorf("%s: %s", tt.name, got.body)
		}
	}
	list := failures(t, r, "declined=true")
	if len(list.Failures) == 0 || !strings.Contains(fmt.Sprint(list.Failures), "user:bob") {
		t.Errorf("the record does not name bob: %+v", list.Failures)
	}
	lines := log.Take()
	for _, s := range []string{"alice1", "bob1", token, "wrong", secret} {
		if strings.Contains(lines, s) {
			t.Errorf("%s shows in the log", s)
		}
	}
}

// GET /v2/ checks a login; without one it asks for it, as a refusal only where an anonymous client may read nothing.
func TestPing(t *testing.T) {
	t.Parallel()
	for who, want := range map[string]string{"alice": "401", "alice, anonymous": "200"} {
		dir := t.TempDir()
		o := limited(t)
		users(t, dir, "alice")
		tokenOf(t, dir, "ci")
		r := run(t, known(t, dir, o, who, ""))
		const challenge = `Basic realm="mirror"`
		if got := r.asks(t, "GET", ""); !strings.HasPrefix(got.status, want+" ") || got.challenge != challenge {
			t.Errorf("%s: without a login: %+v, want %s", who, got, want)
		}
		if got := r.asks(t, "GET", "", "Authorization", basic("", "")); !strings.HasPrefix(got.status, want+" ") {
			t.Errorf("%s: with an empty login, as Podman sends it: %+v", who, got)
		}
		if got := r.asks(t, "GET", "", "Authorization", basic("alice", "alice1")); !strings.HasPrefix(got.status, "200 ") || got.challenge != "" {
			t.Errorf("%s: with a login: %+v", who, got)
		}
		got := r.asks(t, "GET", "", "Authorization", basic("alice", "x"))
		if !strings.HasPrefix(got.status, "401 ") || got.challenge != challenge || got.reason != "login-refused" {
			t.Errorf("%s: with a wrong login: %+v", who, got)
		}
	}
}

// A token that is removed, and a user that is added, count with the reload; a file with a mistake leaves the old one in use.
func TestClientsReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := limited(t)
	users(t, dir, "alice")
	token := tokenOf(t, dir, "ci")
	c := known(t, dir, o, "'*'", "")
	c.Rules[0].Who = []string{"alice", "ci", "bob"}
	r := run(t, c)
	path := nameOf(o) + "/private/app/manifests/1"
	check := func(login, want string) {
		t.Helper()
		if got := r.asks(t, "GET", path, "Authorization", login); !strings.HasPrefix(got.status, want+" ") {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	check("Bearer "+token, "200")
	check(basic("bob", "bob1"), "401")
	write(t, filepath.Join(dir, "users"), "alice:$apr1$x$y\n")
	if err := r.Reload(c); err == nil || !strings.Contains(err.Error(), "the hash is MD5") {
		t.Errorf("a file with a mistake: %v", err)
	}
	check(basic("alice", "alice1"), "200")
	users(t, dir, "alice", "bob")
	next := tokenOf(t, dir, "ci")
	if err := r.Reload(c); err != nil {
		t.Fatal(err)
	}
	check("Bearer "+token, "401")
	check("Bearer "+next, "200")
	check(basic("bob", "bob1"), "200")
}

// What an upstream is never asked for is refused before anything is looked up, for each client, and what is cached of it, too.
func TestBlocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := limited(t)
	users(t, dir, "alice")
	tokenOf(t, dir, "ci")
	r := run(t, known(t, dir, o, "alice", ""))
	if got := r.asks(t, "GET", nameOf(o)+"/private/app/manifests/1", "Authorization", basic("alice", "alice1")); !strings.HasPrefix(got.status, "200 ") {
		t.Fatal(got)
	}
	o.ClearRequests()
	for name, more := range map[string]string{"deny": ", aliases: [home.test], deny: ['private/**']", "only": ", aliases: [home.test], only: ['public/**']"} {
		if err := r.Reload(known(t, dir, o, "alice", more)); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"private/app/manifests/1", "private/app/tags/list", "private/none/manifests/1"} {
			for _, at := range []string{
				nameOf(o) + "/" + path, path + "?ns=" + nameOf(o), "home.test/" + path,
				// The name below its own registry, as a mirror's address with a path leads to it, or as an attacker writes it.
				"home.test/home.test/" + path, "home.test/home.test/home.test/" + path, "home.test/home.test/" + path + "?ns=" + nameOf(o),
				nameOf(o) + "/home.test/" + path,
			} {
				got := r.asks(t, "GET", at, "Authorization", basic("alice", "alice1"))
				if !strings.HasPrefix(got.status, "403 ") || got.reason != "blocked-by-policy" || !strings.Contains(got.body, "upstreams."+nameOf(o)+"."+name) {
					t.Errorf("%s: %s: %+v", name, at, got)
				}
			}
		}
	}
	if n := len(o.Requests()); n != 0 {
		t.Errorf("%d requests to the registry", n)
	}
}
