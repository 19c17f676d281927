package cache_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/cache/recency"
	"github.com/registrymirror/mirror/oci"
)

// machine is a cache on a real disk.
type machine struct {
	*cache.Cache
	store *disk.Store
	stop  func()

	leaves int // files in the spool folder after the stop
}

func onDisk(t *testing.T, dir string, size int64) *machine {
	t.Helper()
	store, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	index := recency.Open(dir, nil)
	c := cache.New(cache.Options{
		Store: store, Index: index, Size: size, Free: store.Free, MinFree: cache.MinFree{Bytes: 1 << 20},
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	m := &machine{Cache: c, store: store}
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		cachetest.Check(t, c, store)
		for _, err := range []error{index.Close(), store.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
		left, err := os.ReadDir(filepath.Join(dir, "spool"))
		if err != nil || len(left) != m.leaves {
			t.Errorf("left in the spool: %v, %v", left, err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

// Many pull at once from a real disk that holds a third of it, through restarts with, without and with a damaged index.
func TestOnDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	up := newUpstream()
	const size = 2_000_000
	var list []oci.Digest
	for i := range 40 {
		d, _ := up.add(uint64(i), 1+i*7500)
		list = append(list, d)
	}
	var outcomes sync.Map
	for round, change := range []func(){
		func() {},
		func() {},
		func() { _ = os.Remove(filepath.Join(dir, "recency.bin")) },
		func() { _ = os.WriteFile(filepath.Join(dir, "recency.bin"), []byte("damage"), 0o600) },
	} {
		change()
		m := onDisk(t, dir, size)
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				for range 40 {
					d := list[min(r.IntN(len(list)), r.IntN(len(list)))]
					up.mu.Lock()
					want := up.blobs[d]
					up.mu.Unlock()
					o, outcome, err := m.Open(t.Context(), d, int64(len(want)), up.source(d))
					if err != nil {
						t.Errorf("open: %v", err)
						continue
					}
					outcomes.Store(outcome, true)
					got, err := io.ReadAll(o)
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s: read %d bytes of %d, %v", outcome, len(got), len(want), err)
					}
					if err := o.Close(); err != nil {
						t.Error(err)
					}
					cachetest.CheckBudget(t, m.Cache)
					switch r.IntN(20) {
					case 0:
						if err := m.Remove(d); err != nil {
							t.Error(err)
						}
					case 1:
						m.Keep("holder", time.Now().Add(time.Millisecond), d)
					case 2:
						small, sd := cachetest.Bytes(uint64(1000+r.IntN(50)), 500)
						if err := m.Put(t.Context(), sd, small); err != nil {
							t.Error(err)
						}
						if b, err := m.Get(t.Context(), sd); err == nil && !bytes.Equal(b, small) {
							t.Error("small content came back changed")
						}
					}
				}
			})
		}
		wg.Wait()
		if st := m.Stats(); st.Evicted == 0 || st.Degraded {
			t.Errorf("round %d: %+v", round, st)
		}
		m.stop()
	}
	for _, want := range []cache.Outcome{cache.Hit, cache.Miss} {
		if _, ok := outcomes.Load(want); !ok {
			t.Errorf("never a %s", want)
		}
	}
}
