package access_test

import (
	"testing"

	"github.com/registrymirror/mirror/access"
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
			r := access.NewRules("quay.io/other", tt.glob)
			if got := r.Allow(oci.Repo{Host: tt.host, Name: tt.repo}); got != tt.want {
				t.Errorf("%s for %s/%s: %v", tt.glob, tt.host, tt.repo, got)
			}
		})
	}
}

func TestNoRulesAllowNothing(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*access.Rules{"nil": nil, "zero": {}, "none": access.NewRules()} {
		if r.Allow(oci.Repo{Host: "docker.io", Name: "library/nginx"}) {
			t.Error(name)
		}
	}
}
