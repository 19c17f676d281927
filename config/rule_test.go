package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/config"
)

// ruled is a configuration with docker.io, of which something is said, beside other upstreams, and a rule.
func ruled(of, rule string) string {
	return "upstreams:\n  docker.io: {" + of + "}\n  ghcr.io: {}\n  a.azurecr.io: {access: rules}\nrules:\n  - " + rule + "\n"
}

func TestRules(t *testing.T) {
	t.Parallel()
	c := parse(t, ruled("access: rules, credentials: [{name: hub, helper: docker-credential-a}]",
		"{who: [anonymous], pull: [docker.io/acme/**, 'docker.io/library/nginx']}\n  - {who: ['*'], pull: ['*.azurecr.io/**']}"))
	if diff := cmp.Diff([]config.Rule{
		{Who: []string{"anonymous"}, Pull: []string{"docker.io/acme/**", "docker.io/library/nginx"}},
		{Who: []string{"*"}, Pull: []string{"*.azurecr.io/**"}},
	}, c.Rules); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{"docker.io": "rules", "ghcr.io": "public", "a.azurecr.io": "rules"} {
		if u, _ := c.Upstreams.Get(name); u.Access != want {
			t.Errorf("%s has access: %s, want %s", name, u.Access, want)
		}
	}
}

// Each mistake in a rule, and a login that no rule is for, is told with its line and column and what to write.
func TestRulesWithMistakes(t *testing.T) {
	t.Parallel()
	const hub = "access: rules"
	for _, tt := range []struct{ name, of, rule, want string }{
		{"no client", hub, "{pull: ['**']}", "6:5: rules[0].who: the rule names no client (add who: [anonymous])"},
		{"nothing", hub, "{who: [anonymous]}", "6:5: rules[0].pull: a rule names no repositories (add pull,"},
		{"a user", hub, "{who: [alice], pull: ['**']}", `6:12: rules[0].who[0]: no client can identify itself as "alice" (set clients.htpasswd or clients.tokens, or write anonymous`},
		{"a node", hub, "{who: [anonymous, 'node:*'], pull: ['**']}", `rules[0].who[1]: no client can identify itself as "node:*" (set clients.ca,`},
		{"a service account", hub, "{who: ['sa:a/b'], pull: ['**']}", `rules[0].who[0]: no client can identify itself as "sa:a/b" (set clients.kubernetes,`},
		{"a node by certificate", hub, "{who: ['node:*'], pull: ['**']}\ntls: {cert: a, key: b}\nclients: {ca: c}", ""},
		{"certificates without TLS", hub, "{who: ['node:*'], pull: ['**']}\nclients: {ca: c}", "clients.ca: clients show certificates over TLS alone (set tls.cert and tls.key)"},
		{"a list without an authority", hub, "{who: ['*'], pull: ['**']}\nclients: {crl: c}", "clients.crl: it has no effect without clients.ca"},
		{"a service account with a token", hub, "{who: ['sa:builds/*'], pull: ['**']}\nclients: {kubernetes: {audience: mirror}}", ""},
		{"keys in a file", hub, "{who: ['sa:*/*'], pull: ['**']}\nclients: {kubernetes: {audience: m, issuer: 'https://a', jwksFile: k}}", ""},
		{"keys at a URL", hub, "{who: ['sa:*/*'], pull: ['**']}\nclients: {kubernetes: {audience: m, issuer: a, jwks: 'https://a/k', ca: c}}", ""},
		{"an issuer that is not https, which is never requested", hub, "{who: ['sa:*/*'], pull: ['**']}\nclients: {kubernetes: {audience: m, issuer: 'http://a', jwksFile: k}}", ""},
		{"no audience", hub, "{who: ['*'], pull: ['**']}\nclients: {kubernetes: {issuer: a, jwks: 'https://a/k'}}", "clients.kubernetes.audience: tokens of any audience"},
		{"keys without an issuer", hub, "{who: ['*'], pull: ['**']}\nclients: {kubernetes: {audience: m, jwksFile: k}}", "clients.kubernetes.issuer: keys need the issuer"},
		{"an issuer without keys", hub, "{who: ['*'], pull: ['**']}\nclients: {kubernetes: {audience: m, issuer: a}}", "there are no keys to check its tokens by"},
		{"keys in both", hub, "{who: ['*'], pull: ['**']}\nclients: {kubernetes: {audience: m, issuer: a, jwks: 'https://a', jwksFile: k}}", ""},
		{"keys over plain HTTP", hub, "{who: ['*'], pull: ['**']}\nclients: {kubernetes: {audience: m, issuer: a, jwks: 'http://a'}}", "is not an https:// URL"},
		{"an authority of nothing", hub, "{who: ['*'], pull: ['**']}\nclients: {kubernetes: {audience: m, ca: c}}", "clients.kubernetes.ca: it has no effect without jwks"},
		{"a user with a password", hub, "{who: [alice], pull: ['**']}\nclients: {htpasswd: c}", ""},
		{"not a service account", hub, "{who: ['sa:a'], pull: ['**']}", `rules[0].who[0]: "sa:a" is not a client (write sa:NAMESPACE/NAME,`},
		{"not a node", hub, "{who: ['node:A'], pull: ['**']}", `rules[0].who[0]: "node:A" is not a client (write node:NAME,`},
		{"another kind", hub, "{who: ['user:alice'], pull: ['**']}", `rules[0].who[0]: "user:alice" is not a client (write the name of a user,`},
		{"unknown key", hub, "{who: [anonymous], pul: ['**']}", `rules[0].pul: unknown key (did you mean "pull"?)`},
		{"no repository", hub, "{who: [anonymous], pull: [docker.io]}", `6:31: rules[0].pull[0]: "docker.io" names no repository (write docker.io/**`},
		{"a scheme", hub, "{who: [anonymous], pull: ['https://docker.io/a']}", "has a scheme (write UPSTREAM/REPOSITORY"},
		{"capitals", hub, "{who: [anonymous], pull: [Docker.io/**]}", "does not begin with an upstream"},
		{"a tag", hub, "{who: [anonymous], pull: ['docker.io/acme/app:v1']}", `"acme/app:v1" is not a glob of repositories`},
		{"an alias", hub, "{who: [anonymous], pull: ['index.docker.io/acme/*']}", `"index.docker.io" is another name of docker.io (write docker.io`},
		{"an unknown upstream", hub, "{who: [anonymous], pull: ['quay.example/**']}", `no upstream is called "quay.example" (add it under upstreams`},
		{"a mistyped upstream", hub, "{who: [anonymous], pull: ['dcoker.io/**']}", `(did you mean "docker.io"?)`},
		{"a public upstream", hub, "{who: [anonymous], pull: ['ghcr.io/**']}", "rules do not apply to ghcr.io, whose access is public (set access: rules there"},
		{"a glob of public ones", hub, "{who: [anonymous], pull: ['ghcr.*/**']}", "rules do not apply to ghcr.io"},
		{"one part on Docker Hub", hub, "{who: [anonymous], pull: [docker.io/nginx]}", `"nginx" is not a repository of docker.io: they have at least two parts there (write docker.io/library/nginx)`},
		{
			"a credential without a rule", "access: rules, credentials: [{name: hub, helper: docker-credential-a}]",
			"{who: [anonymous], pull: ['a.azurecr.io/**']}",
			"2:30: upstreams.docker.io.credentials: these credentials are never used: no rule covers docker.io (add one to rules, " +
				`as in {who: [anonymous], pull: ["docker.io/**"]})`,
		},
		{"everything", hub, "{who: [anonymous], pull: ['**']}", ""},
		{"every upstream", hub, "{who: [anonymous], pull: ['*/acme/**']}", ""},
		{"all of Docker Hub", hub, "{who: [anonymous], pull: ['docker.io/**']}", ""},
		{"labels", hub, "{who: [anonymous], pull: ['**.azurecr.io/app', '*.azurecr.*/app']}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := ruled(tt.of, tt.rule)
			if tt.want == "" {
				parse(t, text)
				return
			}
			got := problems(t, text)
			if len(got) != 1 || !strings.Contains(got[0], tt.want) || !strings.HasPrefix(got[0], "config.yaml:") {
				t.Errorf("problems:\n%s\nwant one with\n%s", strings.Join(got, "\n"), tt.want)
			}
		})
	}
}

// A private ECR, which has nothing for the public, needs rules.
func TestPrivateECRNeedsRules(t *testing.T) {
	t.Parallel()
	const name = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	got := problems(t, "upstreams: {"+name+": {credentials: [{name: a, ecr: }]}}\ndefaultUpstream: ''\n")
	if len(got) != 1 || !strings.Contains(got[0], "upstreams."+name+".credentials[0].ecr: a registry without public images has no "+
		"use for it under access: public (set access: rules,") {
		t.Errorf("%q", got)
	}
	parse(t, "upstreams: {"+name+": {access: rules, credentials: [{name: a, ecr: }]}}\ndefaultUpstream: ''\n"+
		"rules: [{who: [anonymous], pull: ['"+name+"/base/**']}]\n")
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	if got := config.Default().Warnings(); len(got) > 0 {
		t.Errorf("of the defaults: %q", got)
	}
	got := parse(t, ruled("access: rules", "{who: ['*'], pull: [docker.io/acme/**]}")).Warnings()
	if len(got) != 3 || !strings.Contains(got[1], "KEP-2535") || !strings.Contains(got[0], "docker.io/acme/**") ||
		!strings.HasPrefix(got[2], "no client may pull anything of a.azurecr.io") {
		t.Errorf("%q", got)
	}
	for text, want := range map[string]int{
		"admin: {listen: ':5001', tokenFile: t}\n":                         1,
		"admin: {listen: '10.0.0.1:5001', tokenFile: t}\n":                 1,
		"admin: {listen: ':5001', tokenFile: t, tls: {cert: c, key: k}}\n": 0,
		"admin: {listen: '127.0.0.2:5001', tokenFile: t}\n":                0,
		"admin: {listen: 'localhost:5001', tokenFile: t}\n":                0,
	} {
		if got := parse(t, text).Warnings(); len(got) != want || want > 0 && !strings.Contains(got[0], "in clear; set admin.tls.cert") {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// Under access: client the mirror has no login of its own, and is told where clients can't be asked for theirs.
func TestClientLogins(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{access: client, credentials: [{name: a, username: u, passwordFile: p}]}":               "r.example.credentials: under access: client the mirror has no login",
		"{access: client, endpoints: [{url: 'https://r.example', clientCert: c, clientKey: k}]}": "r.example.endpoints[0].clientCert: a certificate is a login",
		"{access: client, clientLogins: {maxAge: 25h}}":                                          "r.example.clientLogins.maxAge: 25h is too long",
		"{access: client, clientLogins: {staleIfError: 168h}}":                                   "r.example.clientLogins.staleIfError: 168h is too long",
	} {
		if got := problems(t, "upstreams: {r.example: "+text+"}\ndefaultUpstream: ''\n"); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %q", text, got)
		}
	}
	const rule = "rules: [{who: [anonymous], pull: ['r.example/**']}]\n"
	if got := problems(t, "upstreams: {r.example: {access: client}}\ndefaultUpstream: ''\n"+rule); len(got) != 1 ||
		!strings.Contains(got[0], "rules do not apply to r.example, whose access is client") {
		t.Errorf("a rule: %q", got)
	}
	for text, want := range map[string]int{
		"listen: '127.0.0.1:5000'\n": 0,
		"tls: {cert: c, key: k}\n":   0,
		"listen: ':5000'\n":          1,
	} {
		got := parse(t, text+"upstreams: {r.example: {access: client}}\ndefaultUpstream: ''\n").Warnings()
		if len(got) != want || want > 0 && !strings.Contains(got[0], "upstreams.r.example has access: client, and listen") {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// With a client certificate under access: public each client can pull what it may read.
func TestWarnsOfCertificates(t *testing.T) {
	t.Parallel()
	const endpoint = "endpoints: [{url: 'https://m.example'}, {url: 'https://r.example', clientCert: c, clientKey: k}]"
	got := parse(t, "upstreams: {r.example: {"+endpoint+"}}\ndefaultUpstream: ''\n").Warnings()
	if len(got) != 1 || !strings.Contains(got[0], "upstreams.r.example.endpoints[1].clientCert") || !strings.Contains(got[0], "access: rules") {
		t.Errorf("%q", got)
	}
	c := parse(t, "upstreams: {r.example: {access: rules, "+endpoint+"}}\ndefaultUpstream: ''\n"+
		"rules: [{who: [anonymous], pull: ['r.example/base/**']}]\n")
	if got := c.Certificates(); len(got) > 0 {
		t.Errorf("%q", got)
	}
}

func TestMatchHost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		glob, host string
		want       bool
	}{
		{"docker.io", "docker.io", true},
		{"docker.io", "docker.iox", false},
		{"docker.io", "xdocker.io", false},
		{"*", "a.b.c:5000", true},
		{"**", "a.b.c", true},
		{"*.b", "a.b", true},
		{"*.b", "b", false},
		{"*.b", "a.a.b", false},
		{"a*c.b", "abc.b", true},
		{"a*c.b", "ac.b", true},
		{"a*c.b", "ab.c.b", false},
		{"a*b*c", "axbxc", true},
		{"a*b*c", "acb", false},
		{"*a*", "xax", true},
		{"*a", "aa", true},
		{"**.b", "a.a.b", true},
		{"**.b", "b", true},
		{"a.**", "a", true},
		{"a.**.z", "a.b.c.z", true},
		{"a.**.z", "a.b.c.y", false},
		{"localhost:*", "localhost:5000", true},
	} {
		if got := config.MatchHost(tt.glob, tt.host); got != tt.want {
			t.Errorf("%s for %s: %v", tt.glob, tt.host, got)
		}
	}
}
