package pull_test

import (
	"testing"
	"time"

	"github.com/registrymirror/mirror/catalog"
)

// BenchmarkWarm is the path that a rollout takes thousands of times: content in memory, a tag that is young enough.
func BenchmarkWarm(b *testing.B) {
	w := newWorld(b)
	defer func() { w.stop() }()
	w.use(w.hub, catalog.Policy{MaxAge: time.Hour, Wait: time.Second, StaleIfError: time.Hour})
	im := w.hub.push(b, app, "1", "a")
	w.get(ask(app, "1"))
	for name, a := range map[string]struct{ ref string }{
		"digest": {im.index.Digest.String()}, "tag": {"1"},
	} {
		b.Run(name, func(b *testing.B) {
			a := ask(app, a.ref)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := w.Manifest(b.Context(), a); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// The warm path is look-ups: it allocates the answer, and keys; for a tag those of its record and of the client's.
func TestWarmPathIsCheap(t *testing.T) {
	w := newWorld(t)
	defer func() { w.stop() }()
	im := w.hub.push(t, app, "1", "a")
	for ref, most := range map[string]float64{im.index.Digest.String(): 4, "1": 6} {
		a := ask(app, ref)
		w.get(a)
		if n := testing.AllocsPerRun(100, func() { w.get(a) }); n > most {
			t.Errorf("%s%s: %v allocations", a.Request.Tag, a.Request.Digest, n)
		}
	}
}
