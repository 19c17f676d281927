package pull_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream/fault"
)

// Content that one repository, or one upstream, has brought into the cache is not served through another.
func TestManifestIsAskedForWhereItIsNotKnownToBelong(t *testing.T) {
	for _, tt := range []struct {
		name  string
		other string // repository as the client writes it
		call  string // that its upstream gets
	}{
		{"other repository", "acme/other", "GET acme/other@"},
		{"other upstream", "ghcr.io/acme/app", "GET acme/app@"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				im := w.hub.push(t, app, "1", "a")
				w.get(ask(app, "1"))
				w.get(ask(app, im.children[0].Digest.String()))
				w.hub.asked()
				asked := w.hub
				if tt.name == "other upstream" {
					asked = w.ghcr
				}
				for _, m := range []*oci.Manifest{im.index, im.children[0], im.children[1]} {
					e, ok := errors.AsType[*fault.Error](w.fails(ask(tt.other, m.Digest.String())))
					if !ok || e.Status != 404 {
						t.Errorf("got %v", e)
					}
					asked.wants(t, tt.call+m.Digest.String())
				}
				time.Sleep(time.Minute)
				asked.push(t, strings.TrimPrefix(tt.other, "ghcr.io/"), "1", "a")
				w.fresh(w.get(ask(tt.other, im.index.Digest.String())), im.index)
				asked.wants(t, tt.call+im.index.Digest.String())
				w.get(ask(tt.other, im.index.Digest.String()))
				asked.wants(t)
			})
		})
	}
}

func TestWritesComeInTheOrderBytesReferencesTag(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		d := im.index.Digest.String()
		if diff := cmp.Diff([]string{"bytes " + d, "references " + d, "tag 1 " + d}, w.books.journal.lines); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
	})
}

// crash ends everything at the n-th write: it and those after it never happen.
func (w *world) crash(n int) {
	synctest.Wait() // nothing else writes
	var mu sync.Mutex
	count := func() error {
		mu.Lock()
		defer mu.Unlock()
		if n--; n < 0 {
			return errors.New("crashed")
		}
		return nil
	}
	w.shelf.fault, w.books.fail = count, func(string) error { return count() }
}

func TestCrashBetweenWritesLeavesNoTagThatCantBeServed(t *testing.T) {
	for n := range 4 {
		t.Run(fmt.Sprintf("after %d writes", n), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				im := w.hub.push(t, app, "1", "a")
				w.crash(n)
				w.fresh(w.get(ask(app, "1")), im.index) // the client is served in any case
				w.crash(1000)
				w.tables[0].(*statetest.Table).SetFail(func() error { return errors.New("crashed") }) // the batch is lost
				w.restart()
				w.tables[0].(*statetest.Table).SetFail(nil)
				w.hub.behave(status(503), nil)
				known, err := w.books.Tag(oci.Ref{Repo: oci.Repo{Host: hub, Name: app}, Tag: "1"})
				if (err == nil) != (n == 3) {
					t.Fatalf("tag: %v, %v", known, err)
				}
				c, err := w.Manifest(t.Context(), ask(app, "1"))
				if n == 3 {
					if err != nil || c.Digest != im.index.Digest {
						t.Fatalf("recorded, but can't be served: %v", err)
					}
					return
				}
				if err == nil {
					t.Fatalf("served %s, which was never recorded", c.Digest)
				}
				w.hub.behave(nil, nil)
				time.Sleep(time.Minute)
				w.fresh(w.get(ask(app, "1")), im.index)
			})
		})
	}
}

func TestFullDiskServesFromMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.shelf.fault = func() error { return errors.New("no space left on device") }
		w.fresh(w.get(ask(app, "1")), im.index)
		w.hub.asked()
		w.fresh(w.get(ask(app, "1")), im.index)
		w.fresh(w.get(ask(app, im.index.Digest.String())), im.index)
		w.hub.wants(t)
		time.Sleep(time.Hour)
		w.fresh(w.get(ask(app, "1")), im.index)
		ref := oci.Ref{Repo: oci.Repo{Host: hub, Name: app}, Tag: "1"}
		if got, err := w.books.Tag(ref); err != nil || !got.IsReported() {
			t.Errorf("the record of a tag without bytes on disk: %v, %v", got, err)
		}
	})
}

func TestBrokenCatalogServesUncached(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.books.fail = func(string) error { return errors.New("input/output error") }
		w.fresh(w.get(ask(app, "1")), im.index)
		w.fresh(w.get(ask(app, im.index.Digest.String())), im.index)
		w.pull(t, app, "1", im)
	})
}

func TestWarmManifestTouchesNoDisk(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		w.restart()
		w.get(ask(app, im.index.Digest.String()))
		before := w.shelf.count()
		if before == 0 {
			t.Fatal("after a restart the manifest came from nowhere")
		}
		for range 10 {
			w.get(ask(app, "1"))
			w.get(ask(app, im.index.Digest.String()))
		}
		if got := w.shelf.count(); got != before {
			t.Errorf("%d reads of the cache for a manifest in memory", got-before)
		}
	})
}

func TestDamagedCopyIsFetchedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		w.restart()
		w.shelf.set(im.index.Digest, append(slices.Clone(im.index.Bytes), ' '))
		w.hub.asked()
		w.fresh(w.get(ask(app, "1")), im.index)
		w.hub.wants(t, "GET acme/app@"+im.index.Digest.String())
	})
}

func TestWrongBytesFromTheUpstream(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.hub.push(t, app, "1", "a"), w.hub.push(t, app, "2", "b")
		d := a.index.Digest.String()
		w.hub.manifests[app+"@"+d] = b.index
		e, ok := errors.AsType[*fault.ContentError](w.fails(ask(app, d)))
		if !ok || e.Kind != fault.ContentDigest {
			t.Fatalf("got %v", e)
		}
		if _, ok := w.shelf.Stat(a.index.Digest); ok {
			t.Error("wrong bytes were cached")
		}
		w.hub.asked()
		// Once may be an accident; content that is wrong again is left alone for a minute.
		for _, memory := range []time.Duration{2 * time.Second, time.Minute} {
			time.Sleep(memory - 1)
			_ = w.fails(ask(app, d))
			w.hub.wants(t)
			time.Sleep(time.Nanosecond)
			_ = w.fails(ask(app, d))
			w.hub.wants(t, "GET acme/app@"+d)
		}
		time.Sleep(time.Minute)
		w.hub.mu.Lock()
		w.hub.manifests[app+"@"+d] = a.index
		w.hub.mu.Unlock()
		w.fresh(w.get(ask(app, d)), a.index)
	})
}

func TestLayerIsNotReadIntoMemoryAsAManifest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.pull(t, app, "1", im)
		layer := im.children[0].Children[1].Digest
		w.shelf.set(layer, make([]byte, oci.MaxManifestSize+1))
		before := w.shelf.count()
		w.hub.asked()
		_ = w.fails(ask(app, layer.String()))
		w.hub.wants(t, "GET acme/app@"+layer.String())
		if w.shelf.count() != before {
			t.Error("a layer was read into memory")
		}
	})
}

func TestServedManifestLeasesItsChildren(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		m := im.children[0]
		want := func(keeps ...keep) {
			t.Helper()
			if diff := cmp.Diff(keeps, w.shelf.kept(), cmp.AllowUnexported(keep{})); diff != "" {
				t.Errorf("leases (-want +got):\n%s", diff)
			}
		}
		lease := func() keep { // itself, config and layer
			return keep{holder: m.Digest.String(), until: time.Now().Add(15 * time.Minute), digests: 3}
		}
		w.get(head(ask(app, "1")))
		want()
		for range 100 {
			w.get(ask(app, m.Digest.String()))
		}
		want(lease())
		time.Sleep(time.Minute)
		w.get(ask(app, m.Digest.String()))
		want(lease())

		// A client that still fetches layers keeps the next ones cached.
		layer := m.Children[1]
		for range 70 {
			time.Sleep(time.Minute)
			w.blob(t, askBlob(app, layer.Digest), im.blobs[layer.Digest])
		}
		if got := len(w.shelf.kept()); got != 59 {
			t.Errorf("renewed %d times, want each minute for an hour", got)
		}
		time.Sleep(15 * time.Minute)
		w.blob(t, askBlob(app, layer.Digest), im.blobs[layer.Digest])
		w.get(head(ask(app, m.Digest.String()))) // no client fetches anything yet
		want()
	})
}

// The cache does not see manifests that are served from memory; it must not take them for unused, nor lose them.
func TestManifestInMemoryIsTendedInTheCache(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		w.shelf.touched = nil
		for range 3 {
			time.Sleep(time.Minute)
			for range 10 {
				w.get(head(ask(app, im.index.Digest.String())))
			}
		}
		if n := len(w.shelf.touched); n != 3 {
			t.Errorf("touched %d times in 3 minutes", n)
		}
		w.shelf.evict(im.index.Digest)
		time.Sleep(time.Minute)
		w.get(head(ask(app, im.index.Digest.String())))
		synctest.Wait()
		if n, ok := w.shelf.Stat(im.index.Digest); !ok || n != int64(len(im.index.Bytes)) {
			t.Error("it was not put back")
		}
	})
}

func TestUnknownUpstream(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := ask("quay.io/acme/app", "1")
		e, ok := errors.AsType[*route.UnknownError](w.fails(a))
		if !ok || e.Key != "quay.io" {
			t.Errorf("got %v", e)
		}
		if _, err := w.Route(a.Request); !errors.As(err, &e) {
			t.Errorf("route: %v", err)
		}
		ref, err := w.Route(ask("nginx", "1").Request)
		if want := (oci.Ref{Repo: oci.Repo{Host: hub, Name: "library/nginx"}, Tag: "1"}); ref != want || err != nil {
			t.Errorf("route: %v, %v; want %v", ref, err, want)
		}
		if err := fails(t, pull.New(pull.Options{Cache: w.shelf, Catalog: w.books}), ask(app, "1")); err == nil {
			t.Error("a puller without a setup answered")
		}
	})
}

func fails(t *testing.T, p *pull.Puller, a pull.Ask) error {
	t.Helper()
	_, err := p.Manifest(t.Context(), a)
	return err
}

func TestMediaTypeOfADocumentWithoutOne(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		raw := []byte(strings.Replace(string(im.children[0].Bytes), `"mediaType":"`+oci.MediaTypeOCIManifest+`",`, "", 1))
		for repo, as := range map[string]string{app: oci.MediaTypeOCIManifest, "acme/other": oci.MediaTypeDockerManifest} {
			m, err := oci.ParseManifest(as, raw)
			if err != nil || m.MediaType != as {
				t.Fatalf("parse: %v, %v", m, err)
			}
			w.hub.manifests[repo+"@"+m.Digest.String()] = m
			w.hub.tags[repo+":bare"] = m.Digest
		}
		for range 2 { // out of the upstream's mouth, then out of the cache
			for repo, as := range map[string]string{app: oci.MediaTypeOCIManifest, "acme/other": oci.MediaTypeDockerManifest} {
				if c := w.get(ask(repo, "bare")); c.MediaType != as {
					t.Errorf("%s: got %s, want %s", repo, c.MediaType, as)
				}
			}
			w.restart()
		}
	})
}

func TestManifestKnownByABlobsHeadOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		junk := []byte(`{"hello":"world"}`)
		d := descriptor("", junk).Digest
		w.hub.blobs[app+"@"+d.String()] = junk
		w.blob(t, askBlob(app, d), junk)
		w.hub.asked()
		_ = w.fails(ask(app, d.String()))
		w.hub.wants(t, "GET acme/app@"+d.String())
	})
}

func TestHitOutcome(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, im.index.Digest.String()))
		if s := w.get(ask(app, im.index.Digest.String())).Status; s != (pull.Status{Outcome: cache.Hit}) {
			t.Errorf("status %+v", s)
		}
	})
}
