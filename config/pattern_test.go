package config_test

import (
	"strings"
	"testing"

	"github.com/registrymirror/mirror/config"
)

func TestPatterns(t *testing.T) {
	t.Parallel()
	c := parse(t, `
defaultUpstream: ""
upstreams:
  "*.azurecr.io": {credentials: [{name: azure, acr: {}}]}
  "*-docker.pkg.dev": {}
  "*.dkr.ecr.*.amazonaws.com": {access: rules, credentials: [{name: aws, ecr: {}}]}
  special.azurecr.io: {access: rules}
rules:
  - {who: [anonymous], pull: ["123456789012.dkr.ecr.eu-west-1.amazonaws.com/base/**"]}
  - {who: [anonymous], pull: ["*.dkr.ecr.*.amazonaws.com/base/**", "special.azurecr.io/**"]}
`)
	for _, tt := range []struct {
		pattern, host string
		want          bool
	}{
		{"*.azurecr.io", "acme.azurecr.io", true},
		{"*.azurecr.io", "azurecr.io", false},
		{"*.azurecr.io", "a.b.azurecr.io", false},
		{"*.azurecr.io", "acme.azurecr.io.evil.example", false},
		{"*.azurecr.io", "acme.azurecr.cn", false},
		{"*.azurecr.io", "acme.azurecr.io:443", false},
		{"*.azurecr.io", "acme_.azurecr.io", false},
		{"*-docker.pkg.dev", "europe-west1-docker.pkg.dev", true},
		{"*-docker.pkg.dev", "europe-python.pkg.dev", false},
		{"*.dkr.ecr.*.amazonaws.com", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", true},
		{"*.dkr.ecr.*.amazonaws.com", "evil.dkr.ecr.eu-west-1.amazonaws.com", false},
		{"*.dkr.ecr.*.amazonaws.com", "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn", false},
		{"*.dkr.ecr.*.amazonaws.com", "bucket.s3.eu-west-1.amazonaws.com", false},
		{"*.*.ecr.eu-west-1.amazonaws.com", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", true},
		{"*.*.amazonaws.com", "bucket.s3.amazonaws.com", false},
	} {
		if got := (config.Upstream{Name: tt.pattern}).Fits(tt.host); got != tt.want {
			t.Errorf("%s for %s: %v", tt.pattern, tt.host, got)
		}
	}
	for _, u := range c.Upstreams {
		if u.IsPattern() != (len(u.Endpoints) == 0) {
			t.Errorf("%s has the endpoints %v", u.Name, u.Endpoints)
		}
	}
	at := c.Upstreams[0].At("acme.azurecr.io")
	if host, ok := at.CloudHost("acr"); at.Name != "acme.azurecr.io" || len(at.Endpoints) != 1 ||
		at.Endpoints[0].URL != "https://acme.azurecr.io" || !ok || host != at.Name || !at.Itself(at.Endpoints[0]) {
		t.Errorf("%+v, %q", at, host)
	}
}

func TestPatternsWithMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, upstreams, want string }{
		{"another domain", `{"*.example.com": {}}`, `2:13: upstreams.*.example.com: "*.example.com" does not end in a domain of Amazon's, Google's or Azure's`},
		{"a domain that ends like one", `{"*.evilazurecr.io": {}}`, "does not end in a domain of"},
		{"the domain itself", `{"*.io": {}}`, "does not end in a domain of"},
		{"no domain", `{"acme.azurecr.*": {}}`, "does not end in a domain of"},
		{"part of the domain", `{"acme.azure*.io": {}}`, "does not end in a domain of"},
		{"any labels", `{"**.azurecr.io": {}}`, `"**.azurecr.io" is not a pattern of hosts`},
		{"a port", `{"*.azurecr.io:443": {}}`, "is not a pattern of hosts"},
		{"everything", `{"*": {}}`, "is not a pattern of hosts"},
		{"endpoints", `{"*.azurecr.io": {endpoints: [https://a.azurecr.io]}}`, "2:30: upstreams.*.azurecr.io.endpoints: a pattern has none"},
		{"no endpoints", `{"*.azurecr.io": {endpoints: []}}`, "a pattern has none"},
		{"aliases", `{"*.azurecr.io": {aliases: [azure]}}`, "aliases: a pattern has none"},
		{
			"a password", `{"*.azurecr.io": {credentials: [{name: a, username: u, passwordFile: f}]}}`,
			"credentials[0].passwordFile: the same login would go to every host that fits the pattern (use acr, which",
		},
		{"a helper", `{"*.azurecr.io": {credentials: [{name: a, helper: docker-credential-a}]}}`, "the same login would go to every host"},
		{"a plugin", `{"*.azurecr.io": {credentials: [{name: a, plugin: {command: p}}]}}`, "the same login would go to every host"},
		{"a docker config", `{"*.azurecr.io": {credentials: [{name: a, dockerConfig: f}]}}`, "the same login would go to every host"},
		{"the wrong cloud", `{"*.azurecr.io": {credentials: [{name: a, ecr: {}}]}}`, `is not a registry of Amazon's`},
		{"ECR for the public", `{"*.dkr.ecr.eu-west-1.amazonaws.com": {credentials: [{name: a, ecr: {}}]}}`, "a registry without public images"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := problems(t, "defaultUpstream: ''\nupstreams: "+tt.upstreams+"\n")
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("problems:\n%s\nwant one with\n%s", strings.Join(got, "\n"), tt.want)
			}
		})
	}
	got := problems(t, `{defaultUpstream: "*.azurecr.io", upstreams: {"*.azurecr.io": {}}}`)
	if len(got) != 1 || !strings.Contains(got[0], "is many registries (name one of them)") {
		t.Errorf("%q", got)
	}
}
