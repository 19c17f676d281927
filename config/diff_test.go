package config_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/config"
)

func TestChanged(t *testing.T) {
	t.Parallel()
	base := "log: {level: info}\nupstreams:\n  ghcr.io: {}\n  quay.io: {}\n"
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", base + "# a comment\n", nil},
		{"values", "log: {level: debug}\ndrain: 2m\nupstreams:\n  ghcr.io: {}\n  quay.io: {}\n", []string{"drain", "log.level"}},
		{"an upstream", "upstreams:\n  ghcr.io: {tags: {maxAge: 5m}}\n  quay.io: {}\n", []string{"upstreams.ghcr.io"}},
		{"one more, one less", "upstreams:\n  ghcr.io: {}\n  docker.io: {}\n", []string{"defaultUpstream", "upstreams.docker.io", "upstreams.quay.io"}},
		{"lists", base + "platforms: [linux/arm64]\ntrustedProxies: [10.0.0.0/8]\n", []string{"trustedProxies", "platforms"}},
	} {
		removed := slices.DeleteFunc(slices.Clone(tt.want), func(path string) bool { return path != "upstreams.quay.io" })
		if got := config.Removed(parse(t, base), parse(t, tt.text)); !slices.Equal(got, removed) {
			t.Errorf("%s: removed %v, want %v", tt.name, got, removed)
		}
		if diff := cmp.Diff(tt.want, config.Changed(parse(t, base), parse(t, tt.text))); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestSettingOf(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"listen": "MIRROR_LISTEN", "cache-dir": "MIRROR_CACHE_DIR", "cache.dir": "MIRROR_CACHE_DIR", "cacheDir": "MIRROR_CACHE_DIR",
		"size": "MIRROR_CACHE_SIZE", "log-level": "MIRROR_LOG_LEVEL", "level": "MIRROR_LOG_LEVEL", "min_free": "MIRROR_CACHE_MIN_FREE",
		"token-file": "", "verbose": "MIRROR_LOG_LEVEL", "port": "MIRROR_LISTEN", "nonsense": "", "": "", "upstreams": "", "cache": "",
	} {
		if path, got, ok := config.SettingOf(word); got != want || ok != (want != "") {
			t.Errorf("%q is %s, %q, %v", word, path, got, ok)
		}
	}
}
