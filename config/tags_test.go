package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/config"
)

// hub puts lines below an upstream.
func hub(lines string) string {
	return "upstreams:\n  docker.io:\n    " + strings.ReplaceAll(lines, "\n", "\n    ")
}

// What a pattern does not set is as the upstream has it, and zero is a value.
func TestPatternsInherit(t *testing.T) {
	t.Parallel()
	tags := config.Tags{
		MaxAge: time.Minute, StaleIfError: time.Hour, Wait: time.Second, MinAge: 24 * time.Hour, MinAgeUnknown: "hold", Deleted: "drop",
		ServeStaleFirst: true,
	}
	for _, tt := range []struct {
		name, pattern string
		change        func(*config.Tags)
	}{
		{"maxAge", "maxAge: 0s", func(t *config.Tags) { t.MaxAge = 0 }},
		{"staleIfError", "staleIfError: 0s", func(t *config.Tags) { t.StaleIfError = 0 }},
		{"wait", "wait: 25s", func(t *config.Tags) { t.Wait = 25 * time.Second }},
		{"minAge", "minAge: 0s", func(t *config.Tags) { t.MinAge = 0 }},
		{"minAgeUnknown", "minAgeUnknown: serve", func(t *config.Tags) { t.MinAgeUnknown = "serve" }},
		{"deleted", "deleted: keep", func(t *config.Tags) { t.Deleted = "keep" }},
		{"serveStaleFirst", "serveStaleFirst: false", func(t *config.Tags) { t.ServeStaleFirst = false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := parse(t, hub(`tags: {maxAge: 1m, staleIfError: 1h, wait: 1s, minAge: 24h, minAgeUnknown: hold, deleted: drop, serveStaleFirst: true,
  patterns: [{match: "acme/app:*", `+tt.pattern+`}]}`))
			got := c.Upstreams[0].Tags
			want := tags
			tt.change(&want)
			if diff := cmp.Diff(want, func() config.Tags {
				p := got.For(got.Patterns[0])
				p.Patterns = nil
				return p
			}()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTagsWithMistakes(t *testing.T) {
	t.Parallel()
	const digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	pattern := func(match string) string { return hub("tags: {patterns: [{match: '" + match + "', maxAge: 0s}]}") }
	pin := func(name, digest string) string { return hub("pins: {'" + name + "': '" + digest + "'}") }
	for _, tt := range []struct{ name, text, want string }{
		{"a pattern's wait", hub("tags: {patterns: [{match: 'a/b:c', wait: 26s}]}"), "tags.patterns[0].wait: 26s is too long: clients give up (write at most 25s)"},
		{"no match", hub("tags: {patterns: [{maxAge: 0s}]}"), "tags.patterns[0]: matches no tags: it has no match (add match, as in match: library/nginx:latest)"},
		{"no tag", pattern("acme/app"), `tags.patterns[0].match: "acme/app" names no tag (write acme/app:* for all of its tags)`},
		{"a digest", pattern("acme/app@sha256:aa"), "names a digest, and no policy holds for these"},
		{"a scheme", pattern("https://acme/app:1"), "has a scheme (write REPOSITORY:TAG"},
		{"the registry", pattern("docker.io/acme/app:1"), "begins with the registry (write the repository without it: acme/app:1)"},
		{"an alias", pattern("index.docker.io/acme/app:1"), "begins with the registry (write the repository without it: acme/app:1)"},
		{"capitals", pattern("Acme/app:1"), `"Acme/app" is not a glob of repositories (as in acme/** or library/nginx, in lower case)`},
		{"a tag that is none", pattern("acme/app:a b"), `"a b" is not a glob of tags (as in latest, v1.* or *)`},
		{"one part on Docker Hub", pattern("nginx:latest"), `"nginx" is not a repository of docker.io: they have at least two parts there (write library/nginx)`},
		{"twice", hub("tags: {patterns: [{match: 'a/b:c', maxAge: 0s}, {match: 'a/b:c', maxAge: 1s}]}"), "tags.patterns[1].match: another pattern matches the same"},
		{"nothing", hub("tags: {patterns: [{match: 'a/b:c'}]}"), "tags.patterns[0]: changes nothing (add a setting of tags, as in maxAge: 0s"},
		{"a word", hub("tags: {patterns: [{match: 'a/b:c', deleted: kep}]}"), `(did you mean "keep"?)`},
		{"no word", hub("tags: {patterns: [{match: 'a/b:c', deleted: ''}]}"), `tags.patterns[0].deleted: "" is not one of keep, drop`},
		{"a null", hub("tags: {patterns: [{match: 'a/b:c', maxAge: }]}"), "tags.patterns[0].maxAge: has no value"},
		{"a yes", hub("tags: {patterns: [{match: 'a/b:c', serveStaleFirst: yes}]}"), "(write true)"},
		{"minAgeUnknown", hub("tags: {minAgeUnknown: refuse}"), "tags.minAgeUnknown: \"refuse\" is not one of serve, hold"},
		{"an expression", hub("tags: {immutable: ['^v(']}"), "tags.immutable[0]: \"^v(\" is not a regular expression of tags"},
		{"an empty expression", hub("tags: {immutable: ['']}"), "tags.immutable[0]: \"\" is not a regular expression of tags"},
		{"a pin's digest", pin("acme/app:1", "sha256:aa"), `pins.acme/app:1: "sha256:aa" is not a digest (write all of it, sha256: and 64 hexadecimal digits; crane digest docker.io/acme/app:1 prints the present one)`},
		{"a pin's glob", pin("acme/*:1", digest), "is a glob, and a pin is for one tag"},
		{"a pin's registry", pin("docker.io/acme/app:1", digest), "begins with the registry (write the repository without it: acme/app:1)"},
		{"a pin without a tag", pin("acme/app", digest), `"acme/app" names no tag (write acme/app:TAG)`},
		{"a pin of no repository", pin("Acme/app:1", digest), `"Acme/app:1" is not a tag of a repository`},
		{"a pin on Docker Hub", pin("nginx:1", digest), "they have at least two parts there (write library/nginx)"},
		{"a pattern of hosts", "upstreams: {'*.azurecr.io': {pins: {a/b:c: '" + digest + "'}}}", "pins: a pattern has none: a pin is for one registry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := problems(t, tt.text); len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("problems: %q, want one with %s", got, tt.want)
			}
		})
	}
}

// Globs and pins that are right, on a registry that puts library/ before short names and on one that does not.
func TestTagsWithoutMistakes(t *testing.T) {
	t.Parallel()
	const pin = ": sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	for _, match := range []string{"**:latest", "library/nginx:*", "acme/**:v1.*", "**/app:1", "a*/b-*:*-rc"} {
		parse(t, hub("tags: {patterns: [{match: '"+match+"', maxAge: 0s}]}"))
	}
	parse(t, "upstreams: {ghcr.io: {tags: {patterns: [{match: 'app:1', maxAge: 0s}]}, pins: {app:1"+pin+", a/b:V_1.0"+pin+"}}}")
}
