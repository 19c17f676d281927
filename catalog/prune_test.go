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

// warehouse is a cache: the content that is there.
type warehouse struct {
	mu    sync.Mutex
	there map[oci.Digest]bool
	asked func(d oci.Digest) // before an answer
}

func (w *warehouse) has(d oci.Digest) bool {
	if w.asked != nil {
		w.asked(d)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.there[d]
}

func (w *warehouse) put(there bool, names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range names {
		w.there[named(n)] = there
	}
}

// shelved has what the tests prune: "app" is here with its config, and "old" is gone but for a layer.
func shelved(t *testing.T) (*catalog.Catalog, *statetest.Table, *warehouse) {
	t.Helper()
	refs := statetest.NewTable()
	c := catalog.New(statetest.NewTable(), refs, catalog.Options{})
	w := &warehouse{there: make(map[oci.Digest]bool)}
	learn := func(repo oci.Repo, mediaType, name string) {
		m := &oci.Manifest{Digest: named(name), MediaType: mediaType, Bytes: []byte(name)}
		if err := errors.Join(c.Learn(repo, m, catalog.ShownToAll), c.Open(m.Digest)); err != nil {
			t.Fatal(err)
		}
	}
	blob := func(repo oci.Repo, name string) {
		d := oci.Descriptor{Digest: named(name), Size: 9}
		if err := errors.Join(c.LearnBlob(repo, d, catalog.ShownToAll), c.Open(d.Digest)); err != nil {
			t.Fatal(err)
		}
	}
	for _, repo := range []oci.Repo{acme, nginx} {
		if err := c.NoteShown(repo); err != nil {
			t.Fatal(err)
		}
	}
	learn(acme, manifestType, "app")
	blob(acme, "app config")
	blob(acme, "app layer")
	learn(acme, manifestType, "old")
	blob(acme, "old layer")
	blob(acme, "kept layer")
	learn(acme, indexType, "index")
	learn(nginx, manifestType, "web")
	blob(nginx, "old layer")
	w.put(true, "app", "app config", "index", "kept layer", "web")
	return c, refs, w
}

var names = []string{
	"app", "app config", "app layer", "old", "old layer", "kept layer", "index", "web", "new",
}

// knows are the records of a repository, by name.
func knows(t *testing.T, refs state.Table, repo oci.Repo) (list []string) {
	t.Helper()
	for _, n := range names {
		if _, err := refs.Get(repo.String() + "@" + named(n).String()); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// Records of content that is gone are removed: on disk and in memory, in each repository for itself, and at last the repository.
func TestPrune(t *testing.T) {
	t.Parallel()
	c, refs, w := shelved(t)
	check := func(when string, repo oci.Repo, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, knows(t, refs, repo)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", when, repo, diff)
		}
		for _, n := range names {
			if m, err := c.Member(repo, named(n)); err != nil || (m.Standing == catalog.ShownToAll) != slices.Contains(want, n) {
				t.Errorf("%s: %s of %s: %+v %v", when, n, repo, m, err)
			}
		}
		if r, err := c.Repository(repo); err != nil || r.Shown.IsZero() != (len(want) == 0) {
			t.Errorf("%s: %s: %+v %v", when, repo, r, err)
		}
	}
	n, err := c.Prune(t.Context(), w.has)
	if n != 7 || err != nil { // three of one, one of the other, and that they are open
		t.Errorf("%d %v", n, err)
	}
	check("with two images", acme, "app", "app config", "kept layer", "index")
	check("with two images", nginx, "web")
	for name, want := range map[string]bool{"app": true, "kept layer": true, "old": false, "old layer": false} {
		if open, err := c.IsOpen(named(name)); open != want || err != nil {
			t.Errorf("%s: open %t, %v", name, open, err)
		}
	}
	if n, err := c.Prune(t.Context(), w.has); n != 0 || err != nil {
		t.Errorf("once more: %d %v", n, err)
	}
	w.put(false, names...)
	if n, err := c.Prune(t.Context(), w.has); n != 5+5+2 || err != nil {
		t.Errorf("of nothing: %d %v", n, err)
	}
	check("of nothing", acme)
	check("of nothing", nginx)
	for it, err := range refs.Scan("") {
		t.Errorf("left: %s, %v", it.Key, err)
	}
}

// Records that are learnt or used while it runs stay.
func TestPruneLeavesWhatIsInUse(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(c *catalog.Catalog) error{
		"learnt as a manifest": func(c *catalog.Catalog) error {
			return c.Learn(acme, &oci.Manifest{Digest: named("old layer"), MediaType: manifestType, Bytes: []byte("new")}, catalog.ShownToAll)
		},
		"heard of": func(c *catalog.Catalog) error {
			return c.LearnBlob(acme, oci.Descriptor{Digest: named("old layer"), Size: 7}, catalog.ShownToAll)
		},
		"looked up": func(c *catalog.Catalog) error {
			_, err := c.Member(acme, named("old layer"))
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
			if n, err := c.Prune(t.Context(), w.has); n != 6 || err != nil {
				t.Errorf("%d %v", n, err)
			}
			if m, _ := c.Member(acme, named("old layer")); m.Standing != catalog.ShownToAll || !slices.Contains(knows(t, refs, acme), "old layer") {
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

// A record that is learnt while it is being removed is there afterwards. A caller that only reads does not wait.
func TestLearnWhatIsBeingRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refs := &slow{statetest.NewTable(), make(chan struct{}), make(chan struct{})}
		c := catalog.New(statetest.NewTable(), refs, catalog.Options{})
		w := &warehouse{there: make(map[oci.Digest]bool)}
		heard := oci.Descriptor{Digest: aa, Size: 7}
		if err := c.LearnBlob(acme, heard, catalog.ShownToAll); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 2)
		go func() { _, err := c.Prune(t.Context(), w.has); done <- err }()
		<-refs.began
		go func() { done <- c.LearnBlob(acme, heard, catalog.ShownToAll) }()
		if err := c.LearnBlob(acme, oci.Descriptor{Digest: bb, Size: 8}, catalog.ShownToAll); err != nil { // another one
			t.Error(err)
		}
		_, _ = c.Member(acme, aa)
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
	if n, err := c.Prune(t.Context(), w.has); n != 0 || !errors.Is(err, broken) {
		t.Errorf("%d %v", n, err)
	}
	if m, err := c.Member(acme, named("old")); m.Standing != catalog.ShownToAll || err != nil {
		t.Errorf("%+v %v", m, err)
	}
	refs.SetFail(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := c.Prune(ctx, w.has); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d %v", n, err)
	}
}

// Pulls, evictions and prunes at once: the last news of content is recorded, if nothing was removed since.
func TestPruneAmidPulls(t *testing.T) {
	t.Parallel()
	refs := statetest.NewTable()
	c := catalog.New(statetest.NewTable(), refs, catalog.Options{Remembered: 64})
	w := &warehouse{there: make(map[oci.Digest]bool)}
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
			if _, err := c.Prune(t.Context(), w.has); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range images {
		pulls.Go(func() {
			name, layer := fmt.Sprint("image ", i), fmt.Sprint("layer ", i)
			m := &oci.Manifest{Digest: named(name), MediaType: manifestType, Bytes: []byte(name), Children: []oci.Child{child(named(layer), layerType, 7)}}
			for range rounds {
				w.mu.Lock() // bytes, then records
				w.there[m.Digest] = true
				w.mu.Unlock()
				w.put(true, layer)
				if err := errors.Join(
					c.Learn(acme, m, catalog.ShownToAll), c.LearnBlob(acme, m.Children[0].Descriptor, catalog.ShownToAll),
				); err != nil {
					t.Error(err)
				}
				for _, d := range []oci.Digest{m.Digest, named(layer)} {
					if m, err := c.Member(acme, d); m.Standing != catalog.ShownToAll || err != nil {
						t.Errorf("%s: content that was learnt and is here is not known: %v", name, err)
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
