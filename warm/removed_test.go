package warm_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/warm"
)

// lose takes content out of the cache. The engine is not told.
func (h *hub) lose(names ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		delete(h.here, named(name))
	}
}

// remove takes content out of the cache, as a purge does, and says so.
func (w *world) remove(names ...string) {
	w.lose(names...)
	w.Recheck()
}

// Content that is removed while a job runs is fetched again, whichever part of whichever image it is, before the job is done.
func TestPartsAreRemovedDuringTheJob(t *testing.T) {
	for name, c := range map[string]struct {
		remove []string
		quiet  bool // the engine is not told of it
		want   []string
	}{
		"a blob of an image that is done":            {[]string{"first"}, false, []string{"BLOB first"}},
		"a blob, and the engine is not told":         {[]string{"first"}, true, []string{"BLOB first"}},
		"the manifests of an image that is done":     {[]string{"docker.io/acme/a:1"}, false, []string{"TREE docker.io/acme/a:1@"}},
		"a blob of an image that is not done yet":    {[]string{"base"}, true, []string{"BLOB base"}},
		"the manifest of an image that is not done":  {[]string{"docker.io/acme/b:1"}, true, []string{"TREE docker.io/acme/b:1@"}},
		"the manifest, and the engine looks at once": {[]string{"docker.io/acme/b:1"}, false, []string{"TREE docker.io/acme/b:1@"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, warm.Options{Limits: warm.Limits{Parallel: 1}}, func(t *testing.T, w *world) {
				w.rate = mib
				w.push("acme/a:1", amd64, blob{"first", 2 * mib})
				w.push("acme/b:1", amd64, blob{"base", mib}, blob{"second", 20 * mib})
				id := w.submit("acme/a:1", "acme/b:1").ID
				for range 2000 { // until the second blob of b has begun
					synctest.Wait()
					w.mu.Lock()
					begun := count(w.asked, "BLOB second") > 0
					w.mu.Unlock()
					if begun {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				if got := w.job(id).Images[0].State; got != warm.Done {
					t.Fatalf("the first image is %s", got)
				}
				w.took()
				if c.quiet {
					w.lose(c.remove...)
				} else {
					w.remove(c.remove...)
				}
				j := w.finished(id)
				if j.State != warm.Done || j.BytesTotal != 23*mib+4*kib || j.BytesDone != j.BytesTotal {
					t.Errorf("job %+v", j)
				}
				list, err := w.Verify(t.Context(), warm.Request{Images: []string{"acme/a:1", "acme/b:1"}})
				if err != nil || !list[0].Complete || !list[1].Complete {
					t.Errorf("verify: %+v, %v", list, err)
				}
				got := w.took()
				for i, r := range got {
					if at := strings.Index(r, "@"); at > 0 {
						got[i] = r[:at+1]
					}
				}
				got = slices.DeleteFunc(got, func(r string) bool { return r == "BLOB second" }) // it is under way
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("requests after it (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// What removes content of a job again and again does not keep it busy without end.
func TestPartsAreRemovedAgainAndAgain(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.loses = "a1"
		w.push("acme/a:1", amd64, blob{"a1", mib}, blob{"a2", 5 * mib})
		j := w.finished(w.submit("acme/a:1").ID)
		f := j.Images[0].Failure
		if j.State != warm.Failed || f == nil || f.Reason != diagnose.NotCached || !strings.HasPrefix(f.Summary, "docker.io/acme/a:1 is not complete in the cache") {
			t.Errorf("job %s, failure %+v", j.State, f)
		}
		if n := count(w.took(), "BLOB a1"); n != 4 {
			t.Errorf("it was requested %d times", n)
		}
	})
}

// An image whose content is removed after the job is not complete, and nothing of it is kept; other images are. It stays so over a
// restart.
func TestPartsAreRemovedAfterTheJob(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.push("acme/a:1", amd64, blob{"base", mib}, blob{"a", mib})
		w.push("acme/b:1", amd64, blob{"base", mib}, blob{"b", mib})
		id := w.finished(w.submit("acme/a:1", "acme/b:1").ID).ID
		w.remove("docker.io/acme/a:1") // its manifest: the blobs are named by the job alone
		for range 2 {
			j := w.job(id)
			if a := j.Images[0]; a.Complete || !a.KeptUntil.IsZero() || a.BytesDone != 2*mib+kib {
				t.Errorf("the removed image %+v", a)
			}
			if b := j.Images[1]; !b.Complete || b.KeptUntil.IsZero() {
				t.Errorf("the other image %+v", b)
			}
			if w.kept("a") != 0 || w.kept("base") != 1 || w.kept("b") != 1 {
				t.Errorf("kept: a %d, base %d, b %d", w.kept("a"), w.kept("base"), w.kept("b"))
			}
			time.Sleep(2 * time.Second)
			w.restart()
			synctest.Wait()
		}
		w.lose("b") // as a check of the cache does with what is damaged
		time.Sleep(2 * time.Minute)
		if b := w.job(id).Images[1]; b.Complete || w.kept("base") != 0 {
			t.Errorf("two minutes later %+v", b)
		}
	})
}
