package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
)

// Docker Hub with a limit of 100: five hundred pulls of fifty tags, some of which change, ask for each manifest once, and
// none is refused. When the limit is used up, cached content is served, other content is refused with the way out, and Docker
// Hub gets no further request for a manifest; it never had to refuse one.
func TestDockerHubsLimit(t *testing.T) {
	t.Parallel()
	const limit, tags, rounds = 100, 50, 10
	hub := origin.Options{
		Auth:  origin.Auth{Kind: "bearer", Username: "bot", Password: "s3cret", Anonymous: true},
		Limit: origin.Limit{Manifests: limit, Window: 6 * time.Hour},
	}
	for name, tt := range map[string]struct {
		login auth.Source
		whose string
	}{
		"anonymous": {nil, "anonymous pulls from the mirror's address, and"},
		"an account, public images": {
			// A new repository has to send a manifest without the account first.
			auth.Credential{Name: "hub", Username: "bot", Password: auth.NewSecret("s3cret")}, "anonymous pulls from the mirror's address, and",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, wired{hub: hub, credential: tt.login, adapt: func(o *upstream.Options) { o.Public = true }})
			repo := func(i int) string { return fmt.Sprintf("library/app%d", i%7) }
			push := func(i, version int) {
				w.hub.AddImage(repo(i), fmt.Sprint("v", i), origin.Image{Layers: []int64{int64(1000*version + i + 1)}})
			}
			pull := func(i int, header string) {
				t.Helper()
				res, body := w.do(t, "GET", fmt.Sprintf("/v2/%s/manifests/v%d", repo(i), i))
				if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Warning"), header) || header == "" && res.Header.Get("Warning") != "" {
					t.Fatalf("v%d: %s, Warning %q\n%s", i, res.Status, res.Header.Get("Warning"), body)
				}
			}
			refused := func() int {
				n := 0
				for _, r := range w.hub.Requests() {
					if r.Status == http.StatusTooManyRequests {
						n++
					}
				}
				return n
			}
			for i := range tags {
				push(i, 0)
			}
			changed := tags
			for round := range rounds {
				for i := range tags {
					if round > 0 && i%10 == round%10 && changed < limit-5 {
						push(i, round)
						changed++
					}
					pull(i, "")
				}
			}
			if got := w.hub.Spent(); got != changed || refused() != 0 {
				t.Fatalf("%d pulls: %d manifests were asked for, %d were refused; want %d for as many digests", rounds*tags, got, refused(),
					changed)
			}
			t.Logf("%d pulls of %d tags: %d manifests by GET for %d digests, %d by HEAD", rounds*tags, tags, w.hub.Spent(), changed,
				w.hub.Count(origin.KindManifest, "HEAD"))
			for i := range limit - changed {
				push(i, 99)
				pull(i, "")
			}
			for i := range 2 * tags { // tags change, and the limit of the address is used up besides
				if i < tags {
					push(i, 100)
				}
				if tt.login == nil {
					pull(i%tags, `299 - "stale copy of docker.io/`+repo(i%tags))
				}
			}
			if tt.login != nil {
				// The anonymous limit is used next: as many again.
				for i := range tags {
					pull(i, "")
				}
				for i := range tags {
					push(i, 101)
					pull(i, "")
				}
				for i := range tags {
					push(i, 102)
					pull(i, `299 - "stale copy of docker.io/`+repo(i))
				}
			}
			w.hub.AddImage("library/new", "1", origin.Image{})
			res, body := w.do(t, "GET", "/v2/library/new/manifests/1")
			if res.StatusCode != 503 || !strings.Contains(string(body), "docker.io limits "+tt.whose) ||
				!strings.Contains(string(body), "wait up to 6h,") && !strings.Contains(string(body), "wait up to 5h59m") || res.Header.Get("Retry-After") == "" {
				t.Errorf("not cached: %s, Retry-After %q\n%s", res.Status, res.Header.Get("Retry-After"), body)
			}
			if n := refused(); n != 0 {
				t.Errorf("Docker Hub has refused %d requests: what is left was known", n)
			}
		})
	}
}
