package cache_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/oci"
)

func TestNoSpaceForASpool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		d, _ := b.up.add(1, 5000)
		b.store.FailOnce(cachetest.Create, 1, syscall.ENOSPC)
		b.want(d, cache.Uncached, b.get(d))
		b.check()
		if got := b.Stats().Disk; got.State != cache.DiskFull {
			t.Errorf("where no file can be made the disk is %s: %s", got.State, got)
		}
		time.Sleep(6 * time.Second)
		b.want(d, cache.Miss, b.get(d))
		b.check()

		// With something to evict, room is made on the disk.
		other, _ := b.up.add(2, 3000)
		b.store.FailOnce(cachetest.Create, 1, syscall.EDQUOT)
		b.want(other, cache.Miss, b.get(other))
		b.check()
		if got := b.there(d, other); got[0] || !got[1] {
			t.Errorf("stored: %v, want the first to have made room", got)
		}
	})
}

func TestBrokenDisk(t *testing.T) {
	t.Parallel()
	for _, op := range []cachetest.Op{cachetest.Create, cachetest.WriteAt, cachetest.Commit} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				b := start(t, 1<<20, func(o *cache.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
				cached, _ := b.up.add(1, 5000)
				b.get(cached)
				b.store.Fail(op, 1, syscall.EROFS)
				d, content := b.up.add(2, 50_000)
				b.get(d) // finds out
				if !b.Stats().Degraded || !strings.Contains(log.String(), "is read-only") {
					t.Errorf("the log has no line of the failing disk: %s", &log)
				}
				creates := b.store.Calls(cachetest.Create)
				b.want(d, cache.Uncached, b.get(d))
				b.want(cached, cache.Hit, b.get(cached))
				if err := b.Put(t.Context(), d, content); err == nil {
					t.Error("put on a broken disk went well")
				}
				if got := b.store.Calls(cachetest.Create); got != creates {
					t.Errorf("a broken disk was asked for %d spools", got-creates)
				}
				b.check()
				if op == cachetest.Commit { // which a probe does not try
					b.store.EndFaults()
				}
				time.Sleep(30 * time.Second)
				if degraded := b.Stats().Degraded; degraded != (op != cachetest.Commit) {
					t.Errorf("after 30 s degraded: %t", degraded)
				}
				b.store.EndFaults()
				time.Sleep(6 * time.Second)
				b.want(d, cache.Miss, b.get(d))
				b.want(d, cache.Hit, b.get(d))
				b.check()
				if b.Stats().Degraded || !strings.Contains(log.String(), "works again") {
					t.Errorf("the log has no line of the disk that works again: %s", &log)
				}
				if left := b.store.Store.(*cachetest.Store).Spools(); left != 0 {
					t.Errorf("%d spools are left", left)
				}
			})
		})
	}
}

// The disk fills up at the k-th write, for every k: each reader gets the right bytes, and nothing wrong is kept.
func TestDiskFullAtEveryWrite(t *testing.T) {
	t.Parallel()
	const size = 300_000
	for k := 1; ; k++ {
		failed := false
		synctest.Test(t, func(t *testing.T) {
			b := start(t, 1<<20, nil)
			d, _ := b.up.add(1, size)
			b.up.gate = make(chan struct{})
			b.store.Fail(cachetest.WriteAt, k, syscall.ENOSPC)
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					o, _, err := b.Open(t.Context(), d, size, b.up.source(d))
					if err != nil {
						t.Errorf("open: %v", err)
						return
					}
					b.read(o, d)
				})
			}
			synctest.Wait()
			close(b.up.gate)
			wg.Wait()
			b.check()
			failed = b.Stats().Degraded
			if b.there(d)[0] == failed {
				t.Errorf("write %d: stored: %t, disk failed: %t", k, !failed, failed)
			}
			if got := b.Stats().Reserved; got != 0 {
				t.Errorf("write %d: %d bytes stay reserved", k, got)
			}
			b.store.EndFaults()
			time.Sleep(10 * time.Second)
			b.get(d)
			b.want(d, cache.Hit, b.get(d))
			b.check()
			if left := b.store.Store.(*cachetest.Store).Spools(); left != 0 {
				t.Errorf("write %d: %d spools are left", k, left)
			}
		})
		if !failed {
			if k < 5 {
				t.Errorf("only %d writes: the test proves little", k-1)
			}
			return
		}
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1<<20, nil)
		d, _ := b.up.add(1, 5000)
		b.get(d)
		b.store.Fail(cachetest.Open, 1, syscall.EIO)
		for range 2 {
			b.get(d) // reads the right bytes
		}
		b.store.EndFaults()
		b.want(d, cache.Hit, b.get(d))
		b.check()
	})
}

func TestRemoveFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		b.use(list, "abcdefghi")
		b.store.Fail(cachetest.Remove, 1, syscall.EROFS)
		if err := b.Remove(list[0]); !errors.Is(err, syscall.EROFS) {
			t.Errorf("remove: %v", err)
		}
		d, _ := b.up.add(1, 2000)
		b.want(d, cache.Miss, b.get(d))
		b.check()
		b.want(d, cache.Uncached, b.get(d)) // by now it is known
		if got := b.names(list); got != "abcdefghi" {
			t.Errorf("stored: %s, want all", got)
		}
		b.store.EndFaults()
		time.Sleep(6 * time.Second)
		b.want(d, cache.Miss, b.get(d))
		b.check()
		if got := b.names(list); got != "defghi" {
			t.Errorf("stored: %s, want defghi", got)
		}
	})
}

// Every call that can fail does so now and then, under eviction: no reader gets a wrong byte, and the counts are right.
func TestFlakyDisk(t *testing.T) {
	t.Parallel()
	ops := []cachetest.Op{cachetest.Open, cachetest.Create, cachetest.Remove, cachetest.WriteAt, cachetest.Commit}
	errs := []error{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EMFILE}
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 500_000, nil)
		var list []oci.Digest
		for i := range 30 {
			d, _ := b.up.add(uint64(i), 1000+i*3000)
			list = append(list, d)
		}
		for i := range 600 {
			if i%4 == 0 {
				b.store.FailOnce(ops[i/4%len(ops)], 1+i%3, errs[i/7%len(errs)])
			}
			b.get(list[(i*i+i/5)%len(list)])
			cachetest.CheckBudget(t, b.Cache)
			time.Sleep(time.Duration(i%3) * time.Second)
		}
		b.store.EndFaults()
		time.Sleep(2 * time.Hour)
		b.check()
		if st := b.Stats(); st.Reserved != 0 || st.Hits == 0 || st.Evicted == 0 || st.Uncached == 0 {
			t.Errorf("the test proves nothing, or something stays reserved: %+v", st)
		}
		if left := b.store.Store.(*cachetest.Store).Spools(); left != 0 {
			t.Errorf("%d spools are left", left)
		}
	})
}
