package app_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/docker"
	"github.com/registrymirror/mirror/oci"
)

// TestHostPatterns tables the meaning of a pattern of hosts in each place that has them, and so where the places differ. A
// host that fits an entry of a docker config gets our login: an entry must never fit more than here.
func TestHostPatterns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, host string
		entry, rule   bool
	}{
		{"docker.io", "docker.io", true, true},
		{"docker.io", "evildocker.io", false, false},
		{"docker.io", "docker.io.evil.example", false, false},
		{"*.corp", "a.corp", true, true},
		{"*.corp", "corp", false, false},
		{"*.corp", "a.b.corp", false, false},
		{"eu-*.pkg.dev", "eu-docker.pkg.dev", true, true},
		{"a*b*c.corp", "a1b2c.corp", true, true},
		{"a*b*c.corp", "ab.corp", false, false},
		{"10.0.0.*", "10.0.0.5", true, true},
		{"*", "localhost", true, true},
		// In a rule * alone is every upstream; for a login it is one label, as for kubelets.
		{"*", "docker.io", false, true},
		{"*", "registry.corp:5000", false, true},
		// ** is for rules alone. In an entry it is a *.
		{"**", "docker.io", false, true},
		{"**", "localhost", true, true},
		{"**.corp", "a.corp", true, true},
		{"**.corp", "a.b.corp", false, true},
		{"**.corp", "corp", false, true},
		{"**.x.**", "x.y.z", false, true},
		// A port: the same one for a login; for a rule it is a part of the last label.
		{"registry.corp:5000", "registry.corp:5000", true, true},
		{"registry.corp:5000", "registry.corp:5001", false, false},
		{"registry.corp:5000", "registry.corp", false, false},
		{"registry.corp", "registry.corp:5000", false, false},
		{"*.corp", "registry.corp:5000", false, false},
		{"*.corp:5000", "registry.corp:5000", true, true},
		{"registry.*", "registry.corp:5000", false, true},
		{"registry.corp:*", "registry.corp:5000", false, true},
		// Entries are read in lower case; a rule with capitals is refused when the configuration is read.
		{"Docker.IO", "docker.io", true, false},
	} {
		file := filepath.Join(t.TempDir(), "config.json")
		write(t, file, fmt.Sprintf(`{"auths": {%q: {"auth": "Ym90OnB3"}}}`, tt.pattern))
		login, _ := docker.NewConfig(docker.Options{Name: "hub", Path: file, Host: tt.host}).Credential(t.Context())
		if got := !login.IsAnonymous(); got != tt.entry {
			t.Errorf("the entry %s for %s: %v", tt.pattern, tt.host, got)
		}
		if got := forAll(tt.pattern+"/app").Allow("", oci.Repo{Host: tt.host, Name: "app"}); got != tt.rule {
			t.Errorf("the rule %s/app for %s: %v", tt.pattern, tt.host, got)
		}
	}
}

// TestRepositoryPatterns does the same for repositories.
func TestRepositoryPatterns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, repository     string
		entry, credential, rule bool
	}{
		{"acme/app", "acme/app", true, true, true},
		{"acme/app", "acme/app2", false, false, false},
		// An entry is for all below it.
		{"acme/app", "acme/app/x", true, false, false},
		{"acme", "acme/app", true, false, false},
		// It has no globs.
		{"acme/*", "acme/app", false, true, true},
		{"acme/**", "acme/team/app", false, true, true},
		{"acme/**", "acme", false, true, true},
		{"acme/**", "acmeevil/app", false, false, false},
		{"**", "acme/app", false, true, true},
		{"**", "", false, true, true},
		{"*", "acme", false, true, true},
		{"*", "acme/app", false, false, false},
		// A request of no repository is for no segment, so * does not fit it.
		{"*", "", false, false, false},
	} {
		file := filepath.Join(t.TempDir(), "config.json")
		write(t, file, fmt.Sprintf(`{"auths": {"ghcr.io/%s": {"auth": "Ym90OnB3"}}}`, tt.pattern))
		login, _ := auth.For(docker.NewConfig(docker.Options{Name: "hub", Path: file, Host: "ghcr.io"}), tt.repository).
			Credential(t.Context())
		if got := !login.IsAnonymous(); got != tt.entry {
			t.Errorf("the entry %s for %q: %v", tt.pattern, tt.repository, got)
		}
		pool := auth.Pool{{Source: auth.Credential{Name: "hub", Username: "bot"}, Repositories: []string{tt.pattern}}}
		if got := len(pool.All(tt.repository)) > 0; got != tt.credential {
			t.Errorf("the credential's %s for %q: %v", tt.pattern, tt.repository, got)
		}
		rules := forAll("ghcr.io/" + tt.pattern)
		if got := rules.Allow("", oci.Repo{Host: "ghcr.io", Name: tt.repository}); got != tt.rule {
			t.Errorf("the rule %s for %q: %v", tt.pattern, tt.repository, got)
		}
	}
}

// forAll are rules by which every client may read what a glob names.
func forAll(glob string) *access.Rules {
	return access.NewRules(access.Rule{Who: []string{"*"}, Pull: []string{glob}})
}
