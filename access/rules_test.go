package access_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/oci"
)

func TestAllow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, glob, host, repo string
		want                   bool
	}{
		{"itself", "docker.io/acme/app", "docker.io", "acme/app", true},
		{"another repository", "docker.io/acme/app", "docker.io", "acme/app2", false},
		{"one below it", "docker.io/acme/app", "docker.io", "acme/app/x", false},
		{"one above it", "docker.io/acme/app", "docker.io", "acme", false},
		{"another upstream", "docker.io/acme/app", "ghcr.io", "acme/app", false},
		{"an upstream that ends like it", "docker.io/acme/app", "evildocker.io", "acme/app", false},
		{"an upstream below it", "docker.io/acme/app", "docker.io.evil.example", "acme/app", false},
		{"one segment", "docker.io/acme/*", "docker.io", "acme/app", true},
		{"one segment is not two", "docker.io/acme/*", "docker.io", "acme/app/x", false},
		{"part of a segment", "docker.io/acme/app-*", "docker.io", "acme/app-1", true},
		{"any segments", "docker.io/acme/**", "docker.io", "acme/app/x", true},
		{"any is none, too", "docker.io/acme/**", "docker.io", "acme", true},
		{"any in the middle", "docker.io/**/app", "docker.io", "a/b/app", true},
		{"a prefix is not a segment", "docker.io/acme/**", "docker.io", "acme-evil/app", false},
		{"everything of one", "docker.io/**", "docker.io", "library/nginx", true},
		{"everything", "**", "registry.corp:5000", "a", true},
		{"every upstream", "*/acme/**", "ghcr.io", "acme/app", true},
		{"every upstream, another repository", "*/acme/**", "ghcr.io", "other/app", false},
		{"a label", "*.azurecr.io/**", "a.azurecr.io", "app", true},
		{"one label is not two", "*.azurecr.io/**", "a.b.azurecr.io", "app", false},
		{"nor none", "*.azurecr.io/**", "azurecr.io", "app", false},
		{"part of a label", "eu-*.pkg.dev/**", "eu-docker.pkg.dev", "p/r/app", true},
		{"a label is not an upstream", "*.io/**", "a.azurecr.io", "app", false},
		{"any labels", "**.amazonaws.com/**", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "app", true},
		{"any labels, by themselves", "**/acme/app", "docker.io", "acme/app", true},
		{"a port", "registry.corp:5000/**", "registry.corp:5000", "app", true},
		{"another port", "registry.corp:5000/**", "registry.corp:5001", "app", false},
		{"no repository", "docker.io", "docker.io", "acme/app", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := access.NewRules(access.Rule{Who: []string{"*"}, Pull: []string{"quay.io/other", tt.glob}})
			if got := r.Allow("", oci.Repo{Host: tt.host, Name: tt.repo}); got != tt.want {
				t.Errorf("%s for %s/%s: %v", tt.glob, tt.host, tt.repo, got)
			}
		})
	}
}

func TestNoRulesAllowNothing(t *testing.T) {
	t.Parallel()
	nginx := oci.Repo{Host: "docker.io", Name: "library/nginx"}
	for name, r := range map[string]*access.Rules{"nil": nil, "zero": {}, "none": access.NewRules()} {
		if r.Allow("", nginx) || r.Allow("alice", nginx) || r.Name(nginx) || r.Anonymous() {
			t.Error(name)
		}
	}
}

// A rule is for the clients that it names, of the kind that it names, and for no others.
func TestWho(t *testing.T) {
	t.Parallel()
	app := oci.Repo{Host: "docker.io", Name: "acme/app"}
	for _, tt := range []struct {
		rule string
		yes  []client.Identity
		no   []client.Identity
	}{
		{"*", []client.Identity{"", "alice", "node:a", "sa:a/b"}, nil},
		{"anonymous", []client.Identity{"", "alice", "node:a", "sa:a/b"}, nil},
		{"alice", []client.Identity{"alice"}, []client.Identity{"", "Alice", "alice2", "node:alice", "sa:alice/alice"}},
		{"ci-*", []client.Identity{"ci-", "ci-a", "ci-a.b"}, []client.Identity{"", "ci", "node:ci-a", "sa:ci-a/b"}},
		{"node:*", []client.Identity{"node:a", "node:a.b.example"}, []client.Identity{"", "a", "sa:a/b", "node"}},
		{"node:a", []client.Identity{"node:a"}, []client.Identity{"node:b", "node:a.b", "a", "sa:node/a"}},
		{"node:*.a.example", []client.Identity{"node:n.a.example"}, []client.Identity{"node:a.example", "node:m.n.a.example"}},
		{"node:w-*", []client.Identity{"node:w-1"}, []client.Identity{"node:w-1.example", "w-1"}},
		{"sa:builds/kaniko", []client.Identity{"sa:builds/kaniko"}, []client.Identity{"", "sa:builds/other", "sa:other/kaniko", "builds"}},
		{"sa:builds/*", []client.Identity{"sa:builds/kaniko"}, []client.Identity{"sa:builds-2/kaniko", "node:builds"}},
		{"sa:*/default", []client.Identity{"sa:a/default"}, []client.Identity{"sa:a/b"}},
		{"sa:*/*", []client.Identity{"sa:a/b"}, []client.Identity{"", "a", "node:a"}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			r := access.NewRules(access.Rule{Who: []string{"zoe", tt.rule}, Pull: []string{"docker.io/acme/*"}},
				access.Rule{Who: []string{"zoe"}, Pull: []string{"docker.io/other/*"}})
			for _, who := range tt.yes {
				if !r.Allow(who, app) {
					t.Errorf("%q is refused", who)
				}
				if r.Allow(who, oci.Repo{Host: "docker.io", Name: "other/app"}) {
					t.Errorf("%q gets what is for another", who)
				}
			}
			for _, who := range tt.no {
				if r.Allow(who, app) {
					t.Errorf("%q is let in", who)
				}
			}
			if !r.Name(app) || r.Name(oci.Repo{Host: "ghcr.io", Name: "acme/app"}) || r.Anonymous() != (len(tt.no) == 0) {
				t.Errorf("Name %v, Anonymous %v", r.Name(app), r.Anonymous())
			}
		})
	}
}

// No rule and no identity bring Allow down, and an anonymous client has only what is for all.
func FuzzWho(f *testing.F) {
	for _, s := range []string{"*", "anonymous", "alice", "node:*", "sa:a/b", ":", "node:", "sa:/", "**", "a*b"} {
		f.Add(s, s, "docker.io/acme/**")
	}
	f.Fuzz(func(t *testing.T, rule, who, pull string) {
		r := access.NewRules(access.Rule{Who: []string{rule}, Pull: []string{pull}})
		repo := oci.Repo{Host: "docker.io", Name: "acme/app"}
		got := r.Allow(client.Identity(who), repo)
		if r.Allow("", repo) && (!got || rule != "*" && rule != "anonymous") {
			t.Errorf("%q for %q: anonymous clients are let in", rule, who)
		}
		if got && !r.Name(repo) {
			t.Errorf("%q for %q is let in to what no rule names", rule, who)
		}
		if kind, _ := client.Identity(who).Kind(); got && rule != "*" && rule != "anonymous" {
			if of, _ := client.Identity(rule).Kind(); of != kind {
				t.Errorf("%q for %q: another kind", rule, who)
			}
		}
	})
}

// No pattern brings a rule, deny or only down, and they agree on it: a rule of a host lets in exactly what deny of that host blocks
// and only lets through. A pattern fits no other host than it names.
func FuzzPull(f *testing.F) {
	for _, s := range [][3]string{
		{"acme/**", "docker.io", "acme/app"},
		{"**", "ghcr.io", "a"},
		{"*-private/*", "docker.io", "acme-private/a"},
		{"", "docker.io", ""},
		{"a*b*c/**/d", "x", "abc/d"},
		{"docker.io/acme", "docker.io", "docker.io/acme"},
		{"[a-z]", "docker.io", "a"},
		{"***", "docker.io", "a/b"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, glob, host, name string) {
		if len(glob) > 100 || len(name) > 300 || host == "" || strings.ContainsAny(host, "*/") {
			t.Skip("a configuration and a route have no such host")
		}
		repo, other := oci.Repo{Host: host, Name: name}, oci.Repo{Host: host + ".example", Name: name}
		r := access.NewRules(access.Rule{Who: []string{"alice"}, Pull: []string{host + "/" + glob}})
		let := r.Allow("alice", repo)
		if denied := (&access.Names{Deny: []string{glob}}).Check(repo) != nil; denied != let {
			t.Errorf("%q for %q: a rule %v, deny %v", glob, name, let, denied)
		}
		if only := (&access.Names{Only: []string{glob}}).Check(repo) == nil; only != let {
			t.Errorf("%q for %q: a rule %v, only %v", glob, name, let, only)
		}
		if (&access.Names{Only: []string{glob}, Deny: []string{glob}}).Check(repo) == nil {
			t.Errorf("%q for %q: deny does not count before only", glob, name)
		}
		if r.Allow("alice", other) || r.Allow("bob", repo) || r.Allow("", repo) {
			t.Errorf("%q of %q lets in more than it names", glob, host)
		}
	})
}

// Deny counts before only, and neither of them bounds anything where it is empty.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		deny, only []string
		repo       string
		want       string // the setting that blocks it
	}{
		{"nothing set", nil, nil, "acme/app", ""},
		{"denied", []string{"acme-internal/**"}, nil, "acme-internal/a/b", "deny"},
		{"denied itself", []string{"acme-internal/**"}, nil, "acme-internal", "deny"},
		{"not denied", []string{"acme-internal/**"}, nil, "acme-internal-2/a", ""},
		{"one segment", []string{"acme/*"}, nil, "acme/a/b", ""},
		{"part of a segment", []string{"*-internal/**"}, nil, "acme-internal/a", "deny"},
		{"allowed", nil, []string{"library/*"}, "library/nginx", ""},
		{"not allowed", nil, []string{"library/*"}, "acme/app", "only"},
		{"both", []string{"library/secret"}, []string{"library/*"}, "library/secret", "deny"},
		{"everything", []string{"**"}, []string{"**"}, "a", "deny"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := (&access.Names{Deny: tt.deny, Only: tt.only}).Check(oci.Repo{Host: "docker.io", Name: tt.repo})
			e, ok := errors.AsType[*access.BlockedError](err)
			if ok != (tt.want != "") || ok && e.Setting != tt.want {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	var none *access.Names
	if err := none.Check(oci.Repo{Name: "a"}); err != nil {
		t.Error(err)
	}
}
