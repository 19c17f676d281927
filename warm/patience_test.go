package warm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/warm"
)

// Each image fails with its own last error, when warm.patience is over for it: of another job's image it has neither the error nor
// the time. An image that was never asked for says so.
func TestEachImageFailsWithItsOwnError(t *testing.T) {
	for _, what := range []string{"TREE", "BLOB"} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, warm.Options{Patience: 20 * time.Second, Limits: warm.Limits{Parallel: 2}}, func(t *testing.T, w *world) {
				asked := make(map[string]bool)
				w.fails(func(request string) error {
					kind, name, _ := strings.Cut(request, " ")
					if kind != what {
						return nil
					}
					name = strings.TrimPrefix(name, "docker.io/")
					w.mu.Lock()
					asked[name] = true
					w.mu.Unlock()
					return diagnose.New(diagnose.UpstreamError, "docker.io answers 500 for "+name, "wait for docker.io, or ask for "+name)
				})
				submit := func(team string) string {
					var images []string
					for i := range 5 {
						images = append(images, fmt.Sprintf("acme/%s%d:1", team, i))
						w.push(images[i], amd64, blob{images[i], mib})
					}
					return w.submit(images...).ID
				}
				first := submit("a")
				time.Sleep(12 * time.Second)
				second := submit("b")
				for _, id := range []string{first, second} {
					j := w.finished(id)
					if took := j.FinishedAt.Sub(j.CreatedAt); took < 20*time.Second || took > 25*time.Second {
						t.Errorf("the job took %s, want 20s", took)
					}
					for _, m := range j.Images {
						name := strings.TrimPrefix(m.Image, "docker.io/")
						want := "docker.io answers 500 for " + name
						if !asked[name] {
							want = "docker.io has failed for other images for 20s, so it was not asked for this one"
						}
						f := m.Failure
						if f == nil || f.Reason != diagnose.UpstreamError || f.Summary != want || !strings.Contains(f.Remedy, name) {
							t.Errorf("%s: %+v; want %q", m.Image, f, want)
						}
					}
				}
			})
		})
	}
}

// The patience begins anew when something of the image has come.
func TestPatienceBeginsAnew(t *testing.T) {
	inBubble(t, warm.Options{Patience: time.Minute}, func(t *testing.T, w *world) {
		w.push("acme/a:1", amd64, blob{"a", mib}, blob{"b", mib}, blob{"c", mib})
		tries := make(map[string]int)
		w.fails(func(request string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if tries[request]++; tries[request] <= 3 && !strings.HasPrefix(request, "TREE") {
				return diagnose.New(diagnose.UpstreamError, "it answers 500", "wait")
			}
			return nil
		})
		j := w.finished(w.submit("acme/a:1").ID)
		if took := j.FinishedAt.Sub(j.CreatedAt); j.State != warm.Done || took < time.Minute {
			t.Errorf("%s after %s", j.State, took)
		}
	})
}
