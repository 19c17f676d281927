package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/config"
)

// hub puts lines below an upstream.
func hub(lines string) string {
	return "upstreams:\n  docker.io:\n    " + strings.ReplaceAll(lines, "\n", "\n    ")
}

// What is true of the mirror as it is may be said.
func TestWhatIsTrueTodayIsAccepted(t *testing.T) {
	t.Parallel()
	c := parse(t, `
clients: {}
webhooks: {}
kubernetes: {events: false, feed: false}
warm: {schedules: []}
upstreams:
  docker.io:
    access: public
`)
	want := config.Default()
	want.Cache.Dir = "mirror-data"
	want.Upstreams = want.Upstreams[:1]
	want.Webhooks = config.Webhooks{}
	want.Warm.Schedules = []config.Schedule{}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

// A mistake in a value says more than that its setting isn't built.
func TestMistakesComeBeforeNotAvailable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		hub("access: pubic"):        `(did you mean "public"?)`,
		hub("tags: {deleted: kep}"): `(did you mean "keep"?)`,
		"tls: {http2: off}":         `(write false)`,
		hub("tags: {minAge: 1d}"):   `(a day is 24h: write 24h)`,
	} {
		if got := problems(t, text); len(got) != 1 || !strings.HasSuffix(got[0], want) {
			t.Errorf("%s\n%q", text, got)
		}
	}
}
