package cache_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
)

func TestFreeSpace(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		floor cache.MinFree
		less  cache.Space // when the disk fills up
		want  string
	}{
		"bytes":   {cache.MinFree{Bytes: 5000}, cache.Space{Free: 3000, Total: 100_000}, "cde"},
		"percent": {cache.MinFree{Percent: 5}, cache.Space{Free: 3000, Total: 100_000}, "cde"},
		"inodes": {
			cache.MinFree{Percent: 5},
			cache.Space{Free: 50_000, Total: 100_000, FreeInodes: 47, AllInodes: 1000},
			"de",
		},
		"no inode count": {cache.MinFree{Percent: 5}, cache.Space{Free: 50_000, Total: 100_000}, "abcde"},
		"enough": {
			cache.MinFree{Percent: 5},
			cache.Space{Free: 5000, Total: 100_000, FreeInodes: 50, AllInodes: 1000},
			"abcde",
		},
		"not known": {cache.MinFree{Percent: 5}, cache.Space{}, "abcde"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				space, held := cache.Space{Free: 90_000, Total: 100_000, FreeInodes: 900, AllInodes: 1000}, int64(0)
				var running atomic.Pointer[bench]
				b := start(t, 50_000, func(o *cache.Options) {
					o.MinFree = tt.floor
					o.Free = func() (cache.Space, error) {
						mu.Lock()
						defer mu.Unlock()
						s := space
						if held > 0 { // what was evicted since is free
							gone := held - running.Load().Stats().Objects
							s.Free += gone * 1000
							s.FreeInodes += gone
						}
						return s, nil
					}
				})
				running.Store(b)
				list := b.blobs(5, 1000)
				b.use(list, "abcde")
				mu.Lock()
				space, held = tt.less, 5
				mu.Unlock()
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if got := b.names(list); got != tt.want {
					t.Errorf("stored: %s, want %s", got, tt.want)
				}
				b.check()
			})
		})
	}
}

// A download that would go below the floor makes room first, or is uncached.
func TestFreeSpaceForADownload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Pointer[bench]
		free := int64(10_000) // with nothing stored
		b := start(t, 50_000, func(o *cache.Options) {
			o.MinFree = cache.MinFree{Bytes: 5000}
			o.Free = func() (cache.Space, error) {
				b := running.Load()
				if b == nil {
					return cache.Space{Free: free, Total: 100_000}, nil
				}
				return cache.Space{Free: free - b.Stats().Bytes, Total: 100_000}, nil
			}
		})
		running.Store(b)
		list := b.blobs(7, 1000)
		b.use(list, "abcdefg")
		if got := b.names(list); got != "cdefg" {
			t.Errorf("stored: %s, want cdefg", got)
		}
		large, _ := b.up.add(1, 6000)
		b.want(large, cache.Uncached, b.get(large))
		b.check()
	})
}

// What was reserved and the disk does not know of yet counts against its free space.
func TestFreeSpaceOfReservations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *hookedStore
		b := start(t, 50_000, func(o *cache.Options) {
			s = &hookedStore{Store: o.Store}
			o.Store = s
			o.MinFree = cache.MinFree{Bytes: 5000}
			o.Free = func() (cache.Space, error) { return cache.Space{Free: 10_000, Total: 100_000}, nil }
		})
		one, _ := cachetest.Bytes(1, 3000)
		two, d := cachetest.Bytes(2, 3000)
		s.create = func() {
			if err := b.Put(t.Context(), d, two); !errors.Is(err, cache.ErrNoRoom) {
				t.Errorf("put: %v, want ErrNoRoom", err)
			}
		}
		b.put(one)
		b.put(two)
		b.check()
	})
}
