package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/config"
)

func TestWebhooks(t *testing.T) {
	t.Parallel()
	c := parse(t, "upstreams: {docker.io: {}, 'registry.corp:5000': {aliases: [corp]}}\nwebhooks:\n"+
		"  hub: {type: dockerhub, secretFile: hub.secret}\n  Registry.1: {type: distribution, secretFile: /run/secret, upstream: Corp}\n")
	want := config.Webhooks{
		{Name: "hub", Type: "dockerhub", SecretFile: "hub.secret"},
		{Name: "Registry.1", Type: "distribution", SecretFile: "/run/secret", Upstream: "registry.corp:5000"},
	}
	for i, w := range c.Webhooks {
		c.Webhooks[i].SecretFile = strings.TrimPrefix(filepath.ToSlash(w.SecretFile), "./")
	}
	if diff := cmp.Diff(want, c.Webhooks); diff != "" {
		t.Error(diff)
	}
	// Its file is watched, and read again.
	found := false
	for _, n := range c.Named() {
		found = found || n.Path == "webhooks.hub.secretFile"
	}
	if !found || len(c.Files()) != 2 {
		t.Errorf("files: %q", c.Files())
	}
	// Without a list of upstreams the well-known ones are there.
	if c := parse(t, "webhooks: {hub: {type: dockerhub, secretFile: s, upstream: index.docker.io}}"); c.Webhooks[0].Upstream != "docker.io" {
		t.Errorf("%+v", c.Webhooks)
	}
}

func TestWebhooksWithMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ of, want string }{
		{"hub: {secretFile: s}", `webhooks.hub.type: is missing (say which registry calls, as in type: dockerhub)`},
		{"hub: {type: dockerhub}", `webhooks.hub.secretFile: is missing: everyone could call the webhook (name a file`},
		{"hub: {type: docker, secretFile: s}", `webhooks.hub.type: "docker" is not one of dockerhub, github`},
		{"hub: {type: docker, secretFile: s}", `(write dockerhub)`},
		{"x: {type: ecr, secretFile: s}", `(write generic: it takes {"image": "HOST/REPOSITORY:TAG"})`},
		{"a/b: {type: quay, secretFile: s}", `"a/b" is not a name (write letters`},
		{"x: {type: quay, secretFile: s, upstream: qay.io}", `webhooks.x.upstream: "qay.io" is not among the upstreams (add it`},
		{"x: {type: quay, secretFile: s, secret: s3cret}", `webhooks.x.secret: unknown key (a secret does not go here`},
	} {
		if got := strings.Join(problems(t, "webhooks: {"+tt.of+"}"), "\n"); !strings.Contains(got, tt.want) || strings.Contains(got, "s3cret") {
			t.Errorf("%s\n  says %s\n  want %s", tt.of, got, tt.want)
		}
	}
}
