package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
)

// named is a digest that tests can read.
func named(name string) oci.Digest { return digest.FromString(name) }

// warehouse is a cache: what is there, and what the manifests among it refer to.
type warehouse struct {
	mu    sync.Mutex
	there map[oci.Digest]bool
	parts map[oci.Digest][]oci.Digest
	fails map[oci.Digest]bool
	asked func(d oci.Digest) // before an answer of Has
}

func (w *warehouse) cached() catalog.Cached {
	return catalog.Cached{
		Has: func(d oci.Digest) bool {
			if w.asked != nil {
				w.asked(d)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.there[d]
		},
		Parts: func(mediaType string, d oci.Digest) ([]oci.Digest, error) {
			if mediaType == "" || w.fails[d] {
				return nil, errors.New("can't be read")
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.parts[d], nil
		},
	}
}

func (w *warehouse) put(there bool, names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range names {
		w.there[named(n)] = there
	}
}

// shelved has the images that the tests prune: "app" is here with its config, and "old" is gone but for a layer.
func shelved(t *testing.T) (*catalog.Catalog, *statetest.Table, *warehouse) {
	t.Helper()
	refs := statetest.NewTable()
	c := catalog.New(statetest.NewTable(), refs, catalog.Options{})
	w := &warehouse{
		there: make(map[oci.Digest]bool), parts: make(map[oci.Digest][]oci.Digest), fails: make(map[oci.Digest]bool),
	}
	learn := func(repo oci.Repo, mediaType, name string, parts ...string) {
		m := &oci.Manifest{Digest: named(name), MediaType: mediaType, Bytes: []byte(name)}
		for _, p := range parts {
			m.Children = append(m.Children, child(named(p), layerType, 7))
			w.parts[m.Digest] = append(w.parts[m.Digest], named(p))
		}
		if err := c.Learn(repo, m); err != nil {
			t.Fatal(err)
		}
	}
	learn(acme, manifestType, "app", "app config", "app layer", "shared layer")
	learn(acme, manifestType, "old", "old config", "old layer", "kept layer")
	learn(acme, indexType, "index", "app", "arm")
	learn(nginx, manifestType, "web", "old layer")
	if err := c.LearnBlob(acme, oci.Descriptor{Digest: named("heard of"), Size: 9}); err != nil {
		t.Fatal(err)
	}
	w.put(true, "app", "app config", "index", "kept layer", "web")
	return c, refs, w
}

var names = []string{
	"app", "app config", "app layer", "shared layer", "old", "old config", "old layer", "kept layer", "index", "arm", "web",
	"heard of", "new", "new layer",
}

// knows is what is recorded of a repository, by name.
func knows(t *testing.T, refs state.Table, repo oci.Repo) (list []string) {
	t.Helper()
	for _, n := range names {
		if _, err := refs.Get(repo.String() + "@" + named(n).String()); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// What leads to nothing is forgotten: on disk and in memory, in each repository for itself.
func TestPrune(t *testing.T) {
	t.Parallel()
	c, refs, w := shelved(t)
	check := func(when string, repo oci.Repo, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, knows(t, refs, repo)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", when, repo, diff)
		}
		for _, n := range names {
			if _, ok, err := c.Member(repo, named(n)); err != nil || ok != slices.Contains(want, n) {
				t.Errorf("%s: %s of %s: %t %v", when, n, repo, ok, err)
			}
		}
	}
	n, err := c.Prune(t.Context(), w.cached())
	if n != 4 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	check("with two images", acme, "app", "app config", "app layer", "shared layer", "kept layer", "index", "arm")
	check("with two images", nginx, "old layer", "web")
	if n, err := c.Prune(t.Context(), w.cached()); n != 0 || err != nil {
		t.Errorf("once more: %d %v", n, err)
	}
	w.put(false, "app", "index")
	if n, err := c.Prune(t.Context(), w.cached()); n != 5 || err != nil {
		t.Errorf("without its manifest: %d %v", n, err)
	}
	check("without its manifest", acme, "app config", "kept layer")
	check("without its manifest", nginx, "old layer", "web")
	w.put(false, names...)
	if n, err := c.Prune(t.Context(), w.cached()); n != 4 || err != nil {
		t.Errorf("of nothing: %d %v", n, err)
	}
	check("of nothing", acme)
	check("of nothing", nginx)
}

// A repository of which a manifest can't be read stays whole; the others don't.
func TestPruneKeepsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	c, refs, w := shelved(t)
	w.fails[named("app")] = true
	w.put(false, "web")
	before := knows(t, refs, acme)
	if n, err := c.Prune(t.Context(), w.cached()); n != 2 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if diff := cmp.Diff(before, knows(t, refs, acme)); diff != "" {
		t.Error(diff)
	}
}

// What is learnt or used while it runs stays.
func TestPruneLeavesWhatIsInUse(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(c *catalog.Catalog) error{
		"learnt with its manifest": func(c *catalog.Catalog) error {
			return c.Learn(acme, &oci.Manifest{
				Digest: named("new"), MediaType: manifestType, Bytes: []byte("new"), Children: []oci.Child{child(named("old layer"), layerType, 7)},
			})
		},
		"heard of": func(c *catalog.Catalog) error {
			return c.LearnBlob(acme, oci.Descriptor{Digest: named("old layer"), Size: 7})
		},
		"looked up": func(c *catalog.Catalog) error {
			_, _, err := c.Member(acme, named("old layer"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, refs, w := shelved(t)
			w.asked = func(d oci.Digest) {
				w.asked = nil
				if err := use(c); err != nil {
					t.Error(err)
				}
			}
			if n, err := c.Prune(t.Context(), w.cached()); n != 3 || err != nil {
				t.Errorf("%d %v", n, err)
			}
			if _, ok, _ := c.Member(acme, named("old layer")); !ok || !slices.Contains(knows(t, refs, acme), "old layer") {
				t.Error("it was forgotten")
			}
		})
	}
}

// slow is a table whose writes that remove wait, if they shall.
type slow struct {
	state.Table
	began, end chan struct{}
}

func (s *slow) Write(items []state.Item) error {
	if items[0].Value == nil {
		s.began <- struct{}{}
		<-s.end
	}
	return s.Table.Write(items)
}

// What is learnt while it is being removed is there afterwards. Who only asks does not wait.
func TestLearnWhatIsBeingRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refs := &slow{statetest.NewTable(), make(chan struct{}), make(chan struct{})}
		c := catalog.New(statetest.NewTable(), refs, catalog.Options{})
		w := &warehouse{there: make(map[oci.Digest]bool)}
		heard := oci.Descriptor{Digest: aa, Size: 7}
		if err := c.LearnBlob(acme, heard); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 2)
		go func() { _, err := c.Prune(t.Context(), w.cached()); done <- err }()
		<-refs.began
		go func() { done <- c.LearnBlob(acme, heard) }()
		if err := c.LearnBlob(acme, oci.Descriptor{Digest: bb, Size: 8}); err != nil { // another one
			t.Error(err)
		}
		_, _, _ = c.Member(acme, aa)
		synctest.Wait()
		close(refs.end)
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for _, d := range []oci.Digest{aa, bb} {
			if _, err := refs.Get(acme.String() + "@" + d.String()); err != nil {
				t.Errorf("%s: %v", d, err)
			}
		}
	})
}

// A table that can't be written, and a context that ends, are its errors; nothing is believed to be gone that is not.
func TestPruneFails(t *testing.T) {
	t.Parallel()
	c, refs, w := shelved(t)
	broken := errors.New("no space left on device")
	refs.SetFail(func() error { return broken })
	if n, err := c.Prune(t.Context(), w.cached()); n != 0 || !errors.Is(err, broken) {
		t.Errorf("%d %v", n, err)
	}
	if _, ok, err := c.Member(acme, named("old")); !ok || err != nil {
		t.Errorf("%t %v", ok, err)
	}
	refs.SetFail(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := c.Prune(ctx, w.cached()); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d %v", n, err)
	}
}

// Pulls, evictions and prunes at once: what was learnt last of content is recorded, if nothing was removed since.
func TestPruneAmidPulls(t *testing.T) {
	t.Parallel()
	refs := statetest.NewTable()
	c := catalog.New(statetest.NewTable(), refs, catalog.Options{Remembered: 64})
	w := &warehouse{there: make(map[oci.Digest]bool), parts: make(map[oci.Digest][]oci.Digest)}
	const images, rounds = 20, 50
	var pulls, prunes sync.WaitGroup
	stop := make(chan struct{})
	prunes.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := c.Prune(t.Context(), w.cached()); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range images {
		pulls.Go(func() {
			name, layer := fmt.Sprint("image ", i), fmt.Sprint("layer ", i)
			m := &oci.Manifest{Digest: named(name), MediaType: manifestType, Bytes: []byte(name), Children: []oci.Child{child(named(layer), layerType, 7)}}
			for range rounds {
				w.mu.Lock() // bytes, references, blob
				w.there[m.Digest], w.parts[m.Digest] = true, []oci.Digest{named(layer)}
				w.mu.Unlock()
				if err := c.Learn(acme, m); err != nil {
					t.Error(err)
				}
				w.put(true, layer)
				for _, d := range []oci.Digest{m.Digest, named(layer)} {
					if _, ok, err := c.Member(acme, d); !ok || err != nil {
						t.Errorf("%s: what was learnt and is here is not known: %v", name, err)
					}
				}
				w.put(false, name, layer)
			}
		})
	}
	pulls.Wait()
	close(stop)
	prunes.Wait()
}
