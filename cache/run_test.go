package cache_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/oci"
)

// indexed returns what the index holds, as minutes ago.
func (b *bench) indexed() map[oci.Digest]int {
	b.t.Helper()
	all, err := b.index.Load()
	if err != nil {
		b.t.Fatal(err)
	}
	m := make(map[oci.Digest]int)
	for d, a := range all {
		m[d] = int(time.Since(a.Used).Minutes())
	}
	return m
}

// checkIndex checks that the index holds what is stored, with its size and time.
func (b *bench) checkIndex() {
	b.t.Helper()
	want := make(map[oci.Digest]cache.Access)
	for a := range b.Entries() {
		a.Used = a.Used.UTC()
		want[a.Digest] = a
	}
	got, err := b.index.Load()
	if err != nil {
		b.t.Fatal(err)
	}
	for d, a := range got {
		a.Used = a.Used.UTC()
		got[d] = a
	}
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("index (-stored +recorded):\n%s", diff)
	}
}

func TestRestartKeepsTheOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		b.use(list, "abcdefgh")
		time.Sleep(time.Minute)
		b.get(list[0])
		b.restart(10_000, nil)
		b.check()
		b.checkIndex()
		for i, d := range list[:8] {
			b.want(d, cache.Hit, b.get(list[i]))
		}
		// Within the minute that was no use: the order is still that of before.
		b.restart(10_000, nil)
		b.use(list, "ij")
		if got := b.names(list); len(got) != 8 {
			t.Errorf("stored: %s, want 8", got)
		}
	})
}

func TestRestartEvictsTheOldest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		b.use(list, "hgfedcba") // h is the oldest
		b.restart(10_000, nil)
		b.use(list, "ij")
		if got := b.names(list); got != "abcdefij" {
			t.Errorf("stored: %s, want abcdefij", got)
		}
		b.check()
	})
}

func TestRestartWithLess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		b.use(list, "abcdefgh")
		b.restart(5000, nil)
		synctest.Wait()
		if got := b.names(list); got != "efgh" { // 80 % of it
			t.Errorf("stored: %s, want efgh", got)
		}
		b.check()
		b.stop()
		b.checkIndex()
	})
}

// Without an index everything is served, and eviction is less exact.
func TestRestartWithoutIndex(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*cache.Options){
		"none": func(o *cache.Options) { o.Index = nil },
		"lost": func(o *cache.Options) { o.Index.(*cachetest.Index).Forget() },
		"fails": func(o *cache.Options) {
			o.Index.(*cachetest.Index).Fail(errors.New("no index"))
			o.Index = brokenIndex{o.Index}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := start(t, 10_000, nil)
				list := b.blobs(26, 1000)
				b.use(list, "abcdefgh")
				b.restart(10_000, change)
				b.check()
				for _, d := range list[:8] {
					b.want(d, cache.Hit, b.get(d))
				}
				b.use(list, "ijklm")
				b.check()
				if name == "lost" {
					b.stop()
					b.checkIndex()
				}
			})
		})
	}
}

type brokenIndex struct{ cache.Index }

func (brokenIndex) Load() (map[oci.Digest]cache.Access, error) {
	return nil, errors.New("index can't be read")
}

// What the index has and the store has not is forgotten; what only the store has is taken in; what has another size
// than recorded is removed.
func TestIndexAndStoreDiffer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 100_000, nil)
		list := b.blobs(4, 1000)
		b.use(list, "abc")
		b.stop()
		if err := b.store.Remove(list[0]); err != nil {
			t.Fatal(err)
		}
		b.store.Store.(*cachetest.Store).Damage(list[1], []byte("cut"))
		b.up.mu.Lock()
		cachetest.Fill(t, b.store, b.up.blobs[list[3]])
		b.up.mu.Unlock()
		b.run(100_000, nil)
		if got := b.names(list); got != "cd" {
			t.Errorf("stored: %s, want cd", got)
		}
		b.check()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b.checkIndex()
	})
}

// A hit writes nothing: uses are recorded in one batch a minute, and when the cache stops.
func TestIndexBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 100_000, nil)
		list := b.blobs(10, 1000)
		time.Sleep(10 * time.Second)
		for range 100 {
			for _, d := range list {
				b.get(d)
			}
		}
		if got := b.index.Writes(); got != 0 {
			t.Errorf("%d writes within the minute", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.index.Writes(); got != 1 {
			t.Errorf("%d writes, want one batch", got)
		}
		b.checkIndex()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := b.index.Writes(); got != 1 {
			t.Errorf("%d writes, and nothing had happened", got)
		}
		if err := b.Remove(list[0]); err != nil {
			t.Fatal(err)
		}
		b.get(list[1])
		b.stop()
		if got := b.index.Writes(); got != 2 {
			t.Errorf("%d writes, want one more at the stop", got)
		}
		b.checkIndex()
		got := b.indexed()
		if len(got) != 9 || got[list[1]] != 0 || got[list[2]] < 60 {
			t.Errorf("recorded as minutes ago: %v", got)
		}
	})
}

func TestIndexFails(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"for a time": errors.New("disk full"),
		"and resets": fmt.Errorf("write: %w", cache.ErrReset),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := start(t, 100_000, nil)
				list := b.blobs(10, 1000)
				b.use(list, "abcdef")
				time.Sleep(90 * time.Second) // never at the instant of a flush
				if err := b.Remove(list[0]); err != nil {
					t.Fatal(err)
				}
				b.get(list[1])
				b.index.Fail(err)
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if errors.Is(err, cache.ErrReset) {
					b.index.Forget()
				}
				b.index.Fail(nil)
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				b.checkIndex()
			})
		})
	}
}

// gatedStore lists what it has once the gate is open.
type gatedStore struct {
	cache.Store
	gate chan struct{}
}

func (s gatedStore) All() iter.Seq2[cache.Entry, error] {
	all := s.Store.All()
	return func(yield func(cache.Entry, error) bool) {
		var list []cache.Entry
		for e, err := range all {
			if err != nil {
				yield(e, err)
				return
			}
			list = append(list, e)
		}
		<-s.gate
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// While the cache finds out what is stored, it serves it, and evicts nothing.
func TestServesWhileLoading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		b.use(list, "abcdefgh")
		gate := make(chan struct{})
		b.restart(10_000, func(o *cache.Options) { o.Store = gatedStore{o.Store, gate} })
		if b.Settled() {
			t.Fatal("loaded behind a closed gate")
		}
		b.want(list[0], cache.Hit, b.get(list[0]))
		if got := b.there(list[1], list[8]); !got[0] || got[1] {
			t.Errorf("stat while loading: %v", got)
		}
		if err := b.Remove(list[2]); err != nil {
			t.Fatal(err)
		}
		// It is not known how much room there is: a miss waits for it, and then does without.
		began := time.Now()
		b.want(list[8], cache.Uncached, b.get(list[8]))
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("a miss waited %s", took)
		}
		outcome := make(chan cache.Outcome)
		go func() { outcome <- b.get(list[9]) }()
		synctest.Wait()
		close(gate)
		if got := <-outcome; got != cache.Miss {
			t.Errorf("after a short wait: %s, want miss", got)
		}
		if got := b.names(list); got != "abdefghj" {
			t.Errorf("stored: %s, want abdefghj", got)
		}
		b.check()
	})
}

// Keeps that are asserted before Run hold from the first eviction on.
func TestKeepBeforeRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		b.use(list, "abcdefgh")
		b.stop()
		c := cache.New(cache.Options{Store: b.store, Index: b.index, Size: 5000})
		c.Keep("pins", time.Now().Add(time.Hour), list[0], list[1])
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		synctest.Wait()
		b.Cache = c
		if got := b.names(list); got != "abgh" {
			t.Errorf("stored: %s, want abgh", got)
		}
		b.check()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Run ends downloads, and nothing stays behind.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1<<20, nil)
		d, _ := b.up.add(1, 500_000)
		b.up.gate = make(chan struct{})
		o, _, err := b.Open(t.Context(), d, 500_000, b.up.source(d))
		if err != nil {
			t.Fatal(err)
		}
		b.stop()
		if _, err := o.Read(make([]byte, 1)); err == nil {
			t.Error("read from a cache that has stopped")
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := b.Stats(); got.Reserved != 0 {
			t.Errorf("%d bytes stay reserved", got.Reserved)
		}
		if left := b.store.Store.(*cachetest.Store).Spools(); left != 0 {
			t.Errorf("%d spools are left", left)
		}
		if _, _, err := b.Open(t.Context(), d, 500_000, b.up.source(d)); err == nil {
			t.Error("open after the stop went well")
		}
	})
}
