package pull_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// gated is a catalog that large manifests have to wait for.
type gated struct {
	pull.Catalog
	entered chan struct{}
	open    chan struct{}

	mu         sync.Mutex
	here, most int
}

func (g *gated) Learn(repo oci.Repo, m *oci.Manifest, s catalog.Standing) error {
	if len(m.Bytes) > 100<<10 {
		g.mu.Lock()
		g.here++
		g.most = max(g.most, g.here)
		g.mu.Unlock()
		g.entered <- struct{}{}
		<-g.open
		g.mu.Lock()
		g.here--
		g.mu.Unlock()
	}
	return g.Catalog.Learn(repo, m, s)
}

// largeDoc is a manifest of some size, with text that no client needs.
func largeDoc(i, size int) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"layers":[],"annotations":{"n":"%d","x":"%s"}}`,
		oci.MediaTypeOCIManifest, i, strings.Repeat("x", size))
}

// Of one client's flood of large manifests there are as many in work as there is memory for; another client's small ones,
// and small ones that are here, are served meanwhile. In the end every client has the right bytes.
func TestLargeManifestsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, largeManifestsAtOnce)
}

func largeManifestsAtOnce(t *testing.T) {
	const (
		flood = 40
		size  = 256 << 10 // of which each takes 2.8 MiB: four fit into the pool
		room  = 4
	)
	g := &gated{entered: make(chan struct{}, flood), open: make(chan struct{})}
	c := newChainOf(t, origin.Options{Network: new(origin.Network)}, func(c *chain) {
		c.memory = memory.New(memory.Options{Size: 32 << 20, Wait: time.Minute})
		c.learning = func(k pull.Catalog) pull.Catalog { g.Catalog = k; return g }
	})
	docs := make([]oci.Descriptor, flood)
	for i := range docs {
		docs[i] = c.hub.AddManifest(app, fmt.Sprint("large", i), oci.MediaTypeOCIManifest, largeDoc(i, size))
	}
	var wg sync.WaitGroup
	for i, d := range docs {
		wg.Go(func() {
			a := ask(app, d.Digest.String())
			a.Client = "flood"
			m, err := c.Manifest(t.Context(), a)
			if err != nil {
				t.Errorf("manifest %d: %v", i, err)
				return
			}
			defer m.Close()
			got := m.Bytes
			if m.Object != nil {
				if got, err = io.ReadAll(m.Object); err != nil {
					t.Error(err)
				}
			}
			if !bytes.Equal(got, largeDoc(i, size)) || m.Size != d.Size {
				t.Errorf("manifest %d: %d bytes", i, len(got))
			}
		})
	}
	for range room {
		<-g.entered
	}
	synctest.Wait() // as many as ever will are in work
	for i := range 20 {
		im := c.hub.AddImage("acme/victim", fmt.Sprint(i), origin.Image{Layers: []int64{int64(i + 1)}})
		a := ask("acme/victim", im.Root.Digest.String())
		a.Client = "victim"
		for range 2 {
			if m, err := c.Manifest(t.Context(), a); err != nil || string(m.Bytes) != string(im.Bytes(im.Root.Digest)) {
				t.Errorf("small manifest %d: %v", i, err)
			}
		}
	}
	g.mu.Lock()
	if g.most > room {
		t.Errorf("%d large manifests were in work at once, there is memory for %d", g.most, room)
	}
	g.mu.Unlock()
	if used := c.memory.Used(); used > 32<<20 {
		t.Errorf("%d bytes are in use", used)
	}
	close(g.open)
	wg.Wait()
	if n := c.hub.Count(origin.KindManifest); n != flood+20 {
		t.Errorf("the registry was asked for manifests %d times, want %d", n, flood+20)
	}
}

// A large manifest is sent from the cache. Where that has lost it, it is fetched again; where it had no room for it, it is
// sent from memory, which counts until the answer is closed, once for all clients that are sent the same.
func TestLargeManifestIsSentFromTheCache(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := largeDoc(1, 100<<10)
		m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, b)
		if err != nil {
			t.Fatal(err)
		}
		w.hub.manifests[app+"@"+m.Digest.String()] = m
		a := ask(app, m.Digest.String())
		sent := func(want cache.Outcome) {
			t.Helper()
			c := w.get(a)
			defer c.Close()
			if c.Object == nil || c.Bytes != nil || c.Size != int64(len(b)) || c.MediaType != m.MediaType || c.Status.Outcome != want {
				t.Fatalf("%+v", c.Status)
			}
			if got, err := io.ReadAll(c.Object); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
		asked := "GET acme/app@" + m.Digest.String()
		sent(cache.Miss)
		sent(cache.Hit)
		if c := w.get(head(a)); c.Object != nil || c.Bytes != nil || c.Size != int64(len(b)) {
			t.Errorf("HEAD: %+v", c)
		}
		w.hub.wants(t, asked)
		w.restart()
		sent(cache.Hit)
		w.hub.wants(t)
		w.shelf.evict(m.Digest)
		sent(cache.Miss)
		w.hub.wants(t, asked)

		w.shelf.evict(m.Digest)
		w.shelf.fault = func() error { return errors.New("disk full") }
		c := w.get(a)
		if c.Object != nil || !bytes.Equal(c.Bytes, b) {
			t.Errorf("%d bytes, object %v", len(c.Bytes), c.Object)
		}
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	})
}

// While references can't be written, the client waits for two seconds; clients that come after it don't wait at all, and the
// registry is not asked for them. The writes keep their order.
func TestManifestDoesNotWaitForReferences(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.books.fail = func(op string) error {
			if op == "learn" {
				time.Sleep(10 * time.Second)
			}
			return nil
		}
		d := im.index.Digest.String()
		if took := since(func() { w.get(ask(app, "1")) }); took != 2*time.Second {
			t.Errorf("took %s", took)
		}
		w.hub.wants(t, "HEAD acme/app:1", "GET acme/app@"+d)
		if took := since(func() {
			for range 10 {
				if c := w.get(ask(app, d)); string(c.Bytes) != string(im.index.Bytes) || c.Status.Outcome != cache.Hit {
					t.Errorf("%+v", c.Status)
				}
			}
		}); took != 0 {
			t.Errorf("others waited %s", took)
		}
		w.hub.wants(t)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"bytes " + d, "references " + d, "tag 1 " + d}, w.books.journal.lines); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
	})
}

// A document that the mirror has no memory for is refused for that reason, only while there is none, and an upstream is not
// blamed; a tag is served from the copy.
func TestNoMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		time.Sleep(policy.MaxAge)
		w.hub.behave(func(string) error {
			return &fault.Error{Op: "manifest", Upstream: hub, Err: &memory.FullError{Need: 1}}
		}, nil)
		if c := w.get(ask(app, "1")); !c.Status.Stale || c.Digest != im.index.Digest {
			t.Errorf("%+v", c.Status)
		}
		if _, ok := errors.AsType[*memory.FullError](w.fails(ask(app, "2"))); !ok {
			t.Error("it is another error")
		}
		w.hub.behave(nil, takes(4*time.Second)) // within policy.Wait, as it would not be after trouble
		w.hub.push(t, app, "2", "b")
		w.get(ask(app, "2"))
		if c := w.get(ask(app, "1")); c.Status.Stale {
			t.Error("a tag is not waited for, as after trouble with the upstream")
		}
	})
}

// A registry that knows its manifests by tag alone is not said to lack one that the mirror has no memory for.
func TestNoMemoryForAManifestByItsTag(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.knowsTagsOnly()
		w.get(head(ask(app, "1")))
		w.hub.behave(func(call string) error {
			if call != "GET acme/app:1" {
				return nil
			}
			return &fault.Error{Op: "manifest", Upstream: hub, Err: &memory.FullError{Need: 1}}
		}, nil)
		byDigest := ask(app, im.index.Digest.String())
		if err := w.fails(byDigest); !isFull(err) {
			t.Errorf("it is another error: %v", err)
		}
		w.hub.behave(nil, nil)
		w.fresh(w.get(byDigest), im.index)
	})
}

func isFull(err error) bool {
	_, ok := errors.AsType[*memory.FullError](err)
	return ok
}

// A parameter that means nothing does not make another question of one. What a link of the registry's had is passed on.
func TestQueriesThatMeanNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.lists[app] = &upstream.Document{Bytes: []byte(`{"tags":[]}`), Next: "n=5&token=abc&%2e%2e=x"}
		get := func(query string) {
			t.Helper()
			q, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			c, err := w.Tags(context.Background(), askTags(app, q))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		for i := range 200 {
			get(fmt.Sprintf("n=5&x=%d&utm=%d&ns=docker.io", i, i))
			get(fmt.Sprintf("n=%s5&n=%d", strings.Repeat("0", i), i))
			get("n=5&y%ff=z")
		}
		w.hub.wants(t, "TAGS acme/app:n=5")
		get("n=5&token=abc&x=1")
		get("n=5&token=abc&x=2")
		get("token=def&n=99999999999999999999")
		w.hub.wants(t, "TAGS acme/app:n=1000&token=def", "TAGS acme/app:n=5&token=abc")
	})
}

// A registry whose links carry ever new parameters makes no more than a few of them known.
func TestLinkedParametersAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		query := make(url.Values)
		for i := range 100 {
			w.hub.lists[app] = &upstream.Document{Bytes: []byte(`{"tags":[]}`), Next: fmt.Sprintf("p%d=1&%s=2", i, strings.Repeat("q", 65))}
			query.Set(fmt.Sprint("p", i), "1")
			time.Sleep(policy.MaxAge)
			if _, err := w.Tags(context.Background(), askTags(app, nil)); err != nil {
				t.Fatal(err)
			}
		}
		w.hub.asked()
		if _, err := w.Tags(context.Background(), askTags(app, query)); err != nil {
			t.Fatal(err)
		}
		if call := w.hub.asked()[0]; strings.Count(call, "=") != 8 {
			t.Errorf("asked %s", call)
		}
	})
}
