package pull_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

func TestColdTagWaitsNoLongerThanAClient(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.behave(nil, takes(40*time.Second))
		var err error
		if took := since(func() { err = w.fails(ask(app, "1")) }); took != 25*time.Second {
			t.Errorf("waited %s, want 25 s", took)
		}
		if e, ok := errors.AsType[*pull.TimeoutError](err); !ok || e.Waited != 25*time.Second || e.Ref.Tag != "1" {
			t.Errorf("got %v", err)
		}
		// The follow-up gets the same answer, at once.
		if took := since(func() {
			if again := w.fails(head(ask(app, "1"))); !same(again, err) {
				t.Errorf("got %v, then %v", err, again)
			}
		}); took != 0 {
			t.Errorf("the follow-up took %s", took)
		}
		// The HEAD goes on, and a later client finds its result.
		time.Sleep(15*time.Second + 1)
		w.fresh(w.get(head(ask(app, "1"))), im.index)
		w.hub.wants(t, "HEAD acme/app:1")
	})
}

func TestLeavingClientTakesNothingWithIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.behave(nil, takes(time.Second))
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second/2, leave)
		if _, err := w.Manifest(ctx, ask(app, "1")); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Second)
		w.fresh(w.get(head(ask(app, "1"))), im.index)
		w.hub.wants(t, "HEAD acme/app:1")
	})
}

// pull takes an image the way clients do: HEAD of the tag, GET of everything by digest.
func (w *world) pull(t *testing.T, repo, tag string, im image) {
	t.Helper()
	c, err := w.Manifest(t.Context(), head(ask(repo, tag)))
	if err != nil {
		t.Errorf("head: %v", err)
		return
	}
	if c.Digest != im.index.Digest {
		t.Errorf("head: got %s, want %s", c.Digest, im.index.Digest)
	}
	for _, m := range append([]*oci.Manifest{im.index}, im.children...) {
		c, err := w.Manifest(t.Context(), ask(repo, m.Digest.String()))
		if err != nil || string(c.Bytes) != string(m.Bytes) || c.MediaType != m.MediaType {
			t.Errorf("manifest %s: %v", m.Digest, err)
			return
		}
		if oci.IsIndex(m.MediaType) {
			continue
		}
		for _, layer := range m.Children {
			w.blob(t, askBlob(repo, layer.Digest), im.blobs[layer.Digest])
		}
	}
}

func TestHerdOnAColdImage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.behave(nil, takes(100*time.Millisecond))
		var herd sync.WaitGroup
		for i := range 200 {
			herd.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond) // some come while a trip runs, some just after it
				w.get(head(ask(app, "1")))
				w.get(ask(app, im.index.Digest.String()))
				for _, m := range im.children {
					w.get(ask(app, m.Digest.String()))
				}
			})
		}
		herd.Wait()
		w.hub.wants(t, "HEAD acme/app:1", "GET acme/app@"+im.index.Digest.String(),
			"GET acme/app@"+im.children[0].Digest.String(), "GET acme/app@"+im.children[1].Digest.String())
	})
}

func TestOneOfAHerdHasAMissTheOthersJoin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.behave(nil, takes(time.Second))
		results := make(chan pull.Status, 10)
		for range cap(results) {
			go func() { results <- w.get(ask(app, im.index.Digest.String())).Status }()
		}
		count := make(map[pull.Status]int)
		for range cap(results) {
			count[<-results]++
		}
		if count[pull.Status{Outcome: cache.Miss}] != 1 ||
			count[pull.Status{Outcome: cache.Joined, Collapsed: true}] != 9 {
			t.Errorf("outcomes: %v", count)
		}
	})
}

// A client that looked before a trip ended, and comes to ask after it, must not make a second one.
func TestStragglerMakesNoSecondTrip(t *testing.T) {
	straggle := func(w *world, late, early func()) {
		var once sync.Once
		w.books.look = func(string) {
			first := false
			once.Do(func() { first = true })
			if first {
				time.Sleep(time.Second)
			}
		}
		var both sync.WaitGroup
		both.Go(late)
		both.Go(func() {
			time.Sleep(time.Millisecond)
			early()
		})
		both.Wait()
	}
	t.Run("tag", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			im := w.hub.push(t, app, "1", "a")
			pull := func() { w.fresh(w.get(head(ask(app, "1"))), im.index) }
			straggle(w, pull, pull)
			w.hub.wants(t, "HEAD acme/app:1")
		})
	})
	t.Run("manifest", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			im := w.hub.push(t, app, "1", "a")
			pull := func() { w.fresh(w.get(ask(app, im.index.Digest.String())), im.index) }
			straggle(w, pull, pull)
			w.hub.wants(t, "GET acme/app@"+im.index.Digest.String())
		})
	})
	t.Run("blob", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			im := w.hub.push(t, app, "1", "a")
			d := im.children[0].Children[1].Digest
			pull := func() { w.headBlob(t, askBlob(app, d), len(im.blobs[d])) }
			straggle(w, pull, pull)
			w.hub.wants(t, "STAT acme/app@"+d.String())
		})
	})
	t.Run("failure", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			w.hub.behave(status(403), nil)
			pull := func() { _ = w.fails(ask(app, "1")) }
			straggle(w, pull, pull)
			w.hub.wants(t, "HEAD acme/app:1")
		})
	})
}

func TestAnswerAfterATimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		always := policy
		always.MaxAge = 0
		w.use(w.hub, always)
		d := im.children[0].Children[1].Digest
		w.hub.behave(nil, takes(26*time.Second))
		go func() {
			if _, err := w.Blob(t.Context(), head(askBlob(app, d))); !isTimeout(err) {
				t.Errorf("blob: got %v", err)
			}
		}()
		if err := w.fails(head(ask(app, "1"))); !isTimeout(err) {
			t.Errorf("got %v", err)
		}
		time.Sleep(1500 * time.Millisecond) // the answers have come, and count at once
		w.hub.behave(nil, nil)
		w.fresh(w.get(head(ask(app, "1"))), im.index)
		w.headBlob(t, askBlob(app, d), len(im.blobs[d]))
	})
}

func TestLeavingClientIsNotAnsweredStale(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		time.Sleep(time.Hour)
		w.hub.behave(nil, takes(2*time.Second))
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		if c, err := w.Manifest(ctx, ask(app, "1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, %v", c, err)
		}
	})
}

// A tag that is recorded between the moment a client comes and its look-up is younger than the client. It needs no check.
func TestRecordYoungerThanItsReader(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.behave(nil, takes(time.Second))
		var slow atomic.Bool // the next look-up
		w.books.begin = func(string) {
			if slow.CompareAndSwap(true, false) {
				time.Sleep(time.Second)
			}
		}
		var both sync.WaitGroup
		both.Go(func() { w.get(ask(app, "1")) }) // told at 1 s, recorded at 2 s
		both.Go(func() {
			time.Sleep(1500 * time.Millisecond)
			slow.Store(true)
			if c := w.get(ask(app, "1")); c.Status.Age < 0 {
				t.Errorf("it is %v old", c.Status.Age)
			}
		})
		both.Wait()
		w.hub.wants(t, "HEAD acme/app:1", "GET acme/app@"+im.index.Digest.String())
	})
}

// A client that gets a manifest comes for its parts at once. They are known by name then, so no upstream is asked for their
// size first: the download shows that the repository has them.
func TestPartsAreKnownBeforeTheirManifestIsServed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, im.index.Digest.String()))
		w.hub.asked()
		w.books.fail = func(op string) error {
			if op == "learn" {
				time.Sleep(time.Second) // the disk is slow
			}
			return nil
		}
		child := im.children[0]
		var herd sync.WaitGroup
		for i := range 4 {
			herd.Go(func() {
				time.Sleep(time.Duration(i) * 300 * time.Millisecond)
				w.get(ask(app, child.Digest.String()))
				for _, layer := range child.Children {
					w.blob(t, askBlob(app, layer.Digest), im.blobs[layer.Digest])
				}
			})
		}
		herd.Wait()
		var others []string
		for _, call := range w.hub.asked() {
			if !strings.HasPrefix(call, "BLOB ") { // the shelf does not join downloads
				others = append(others, call)
			}
		}
		if diff := cmp.Diff([]string{"GET acme/app@" + child.Digest.String()}, others); diff != "" {
			t.Error(diff)
		}
	})
}
