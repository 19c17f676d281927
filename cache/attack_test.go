package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// full is a cache for 40 blobs of a size with 36 in it.
func full(t *testing.T, size int) (*bench, []oci.Digest) {
	b := start(t, 40*int64(size), nil)
	list := b.blobs(36, size)
	for _, d := range list {
		b.get(d)
	}
	if st := b.Stats(); st.Evicted != 0 || st.Objects != 36 {
		t.Fatalf("the beginning: %+v", st)
	}
	time.Sleep(time.Hour)
	return b, list
}

// A size that only a manifest claims evicts nothing, whatever the source does and however often it is asked for.
func TestClaimedSizeEvictsNothing(t *testing.T) {
	t.Parallel()
	read := func(t *testing.T, o cache.Object) {
		if _, err := io.ReadAll(o); err == nil {
			t.Error("read a blob that isn't there to its end")
		}
	}
	for name, tt := range map[string]struct {
		source func(b *bench, d oci.Digest) cache.Source
		use    func(t *testing.T, o cache.Object)
	}{
		"a layer of 5 bytes": {func(b *bench, d oci.Digest) cache.Source { return b.up.source(d) }, read},
		"no such layer": {func(b *bench, _ oci.Digest) cache.Source {
			return b.up.source("sha256:" + oci.Digest(fmt.Sprintf("%064d", 7)))
		}, read},
		"the client leaves before the first byte": {func(*bench, oci.Digest) cache.Source {
			return cache.Source{Key: "key", Fetch: func(ctx context.Context, _ flight.Want) (flight.Body, error) {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}}
		}, func(t *testing.T, o cache.Object) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := o.(*flight.Reader).Ready(ctx, 0, 1); err == nil {
				t.Error("ready without a byte")
			}
		}},
		"the client asks for nothing": {
			func(b *bench, d oci.Digest) cache.Source { return b.up.source(d) },
			func(*testing.T, cache.Object) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, list := full(t, 50_000)
				var wg sync.WaitGroup
				for i, claim := range []int64{1_999_999, 2_000_000, 1_000_000, 250_000} {
					for k := range 10 {
						d, _ := b.up.add(uint64(100*i+k+1), 5)
						wg.Go(func() {
							o, _, err := b.Open(t.Context(), d, claim, tt.source(b, d))
							if err != nil {
								t.Errorf("open: %v", err)
								return
							}
							tt.use(t, o)
							_ = o.Close()
						})
					}
				}
				wg.Wait()
				time.Sleep(time.Minute)
				if st := b.Stats(); st.Evicted != 0 || st.EvictedBytes != 0 || st.Reserved != 0 || st.Parked != 0 {
					t.Errorf("%d evicted, %d bytes; %d reserved", st.Evicted, st.EvictedBytes, st.Reserved)
				}
				for _, d := range list {
					b.want(d, cache.Hit, b.get(d))
				}
				b.check()
			})
		})
	}
}

// A registry that confirms any size and sends next to nothing gets next to nothing, and keeps no other download from the
// cache.
func TestConfirmedSizeEvictsWhatArrives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := full(t, 1_000_000)
		b.up.gate = make(chan struct{})
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 3 {
			d, _ := b.up.add(uint64(i+1), 39_000_000)
			wg.Go(func() {
				o, _, err := b.Open(t.Context(), d, 39_000_000, cache.Source{Key: "key", Fetch: b.up.stall(d, 5)})
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				_ = o.(*flight.Reader).Ready(ctx, 0, 39_000_000)
				<-ctx.Done()
				_ = o.Close()
			})
		}
		synctest.Wait()
		if st := b.Stats(); st.EvictedBytes > 8_000_000 || st.Reserved > 4<<20 {
			t.Errorf("%d bytes evicted, %d reserved, for 15 that came", st.EvictedBytes, st.Reserved)
		}
		close(b.up.gate)
		cancel()
		wg.Wait()
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		if st := b.Stats(); st.Reserved != 0 {
			t.Errorf("%d bytes stay reserved", st.Reserved)
		}
	})
}

// Downloads that don't fit beside each other find out before much has come, and each reader gets its bytes.
func TestDownloadsThatDoNotFit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1_000_000, nil)
		var wg sync.WaitGroup
		var total int64
		for i := range 5 {
			d, _ := b.up.add(uint64(i), 700_000)
			total += 700_000
			wg.Go(func() {
				o, _, err := b.Open(t.Context(), d, 700_000, b.up.source(d))
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				b.read(o, d)
			})
		}
		wg.Wait()
		b.check()
		if b.up.sent > total+5*(16<<10) {
			t.Errorf("%d bytes came of %d", b.up.sent, total)
		}
		if st := b.Stats(); st.Objects != 1 || st.Reserved != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// Readers that take a byte now and then don't keep new content from being stored: what they read is evicted, and they keep its
// file open for a while.
func TestSlowReadersPinNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 10_000
		b := start(t, size, nil)
		var open []cache.Object
		hold := func(d oci.Digest) {
			o, outcome, err := b.Open(t.Context(), d, 1000, b.up.source(d))
			if err != nil || outcome != cache.Hit {
				t.Fatalf("%s, %v", outcome, err)
			}
			open = append(open, o)
		}
		list := b.blobs(9, 1000)
		for _, d := range list {
			b.get(d)
			hold(d)
		}
		time.Sleep(2 * time.Minute)
		stored := 0
		for i := range 100 {
			d, want := b.up.add(uint64(i+1), 1001)
			o, _, err := b.Open(t.Context(), d, 1001, b.up.source(d))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, o) // not closed: else it would be the first to go, above the high mark
			if got, err := io.ReadAll(o); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
			synctest.Wait() // until what that set off is over
			if _, here := b.Stat(d); here {
				stored++
			}
			cachetest.CheckBudget(t, b.Cache)
			if st := b.Stats(); st.Held > size/8+2*1001 {
				t.Errorf("%d bytes are held beyond the budget of %d", st.Held, size)
			}
			time.Sleep(time.Minute)
		}
		if stored < 100 {
			t.Errorf("%d of 100 were stored", stored)
		}
		b.check()
		for _, o := range open {
			_ = o.Close()
		}
		if st := b.Stats(); st.Held != 0 {
			t.Errorf("%d bytes are held after every reader has closed", st.Held)
		}
	})
}

// Content that is read slowly while it arrives, and is evicted after that, is held as well. When its file is closed, the reader
// goes on from its own source.
func TestSlowReaderOfADownload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1_000_000, nil)
		d, want := b.up.add(1, 900_000)
		o, _, err := b.Open(t.Context(), d, 900_000, b.up.source(d))
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		got := make([]byte, 1000)
		if _, err := io.ReadFull(o, got); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		for i := range 15 {
			other, _ := b.up.add(uint64(i+2), 950_000)
			b.get(other)
			time.Sleep(time.Minute)
		}
		if st := b.Stats(); st.Held != 900_000 && st.Uncached == 0 {
			t.Errorf("%+v", st)
		}
		rest, err := io.ReadAll(o)
		if got = append(got, rest...); err != nil || string(got) != string(want) {
			t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
		}
	})
}

// However many manifests share their layers, their leases end in as many steps as they have layers, and there are no
// more of them than fit; the small ones stay.
func TestManyLeases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(20, 1000)
		b.Keep("victim", time.Now().Add(15*time.Minute), list[:5]...)
		for _, d := range list[:5] {
			b.get(d)
		}
		many := make([]oci.Digest, 10_000)
		for i := range many {
			many[i] = oci.Digest(fmt.Sprintf("sha256:%064d", i))
		}
		for i := range 200 {
			b.Keep(fmt.Sprint("attacker", i), time.Now().Add(15*time.Minute), many...)
		}
		if n := b.Kept(); n > 1_000_000 {
			t.Errorf("%d digests are kept", n)
		}
		for _, d := range list[5:] {
			b.get(d)
		}
		if got := b.names(list); got[:5] != "abcde" {
			t.Errorf("stored: %s, and the first five are kept", got)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if n := b.Kept(); n != 0 {
			t.Errorf("%d digests are kept after the end", n)
		}
	})
}

// The error of a download that gets no room says why, in numbers, and so do the cache's statistics.
func TestNoRoomSaysWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		space := cache.Space{Free: 1 << 40, Total: 1 << 40}
		var mu sync.Mutex
		b := start(t, 10_000, func(o *cache.Options) {
			o.Dir, o.MinFree = "/x", cache.MinFree{Percent: 5}
			o.Free = func() (cache.Space, error) {
				mu.Lock()
				defer mu.Unlock()
				return space, nil
			}
		})
		put := func(n int) string {
			c, d := cachetest.Bytes(uint64(n), n)
			err := b.Put(t.Context(), d, c)
			if err == nil {
				return ""
			}
			if !errors.Is(err, cache.ErrNoRoom) {
				t.Errorf("%v is not ErrNoRoom", err)
			}
			no, ok := errors.AsType[*cache.NoRoomError](err)
			if !ok {
				t.Fatalf("%v is not a NoRoomError", err)
			}
			return no.Error()
		}
		want := func(got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
		want(put(20_000), "19.5 KiB are more than cache.size, which is 9.8 KiB; raise it to cache them")
		list := b.blobs(10, 1000)
		b.Keep("job", time.Now().Add(time.Hour), list...)
		for _, d := range list {
			b.get(d)
		}
		want(put(2000), "everything cached is in use, and 2 KiB are needed; raise cache.size, which is 9.8 KiB")
		mu.Lock()
		space = cache.Space{Free: 0, Total: 24 << 20}
		mu.Unlock()
		const full = "the disk of /x is full: 0 bytes free, cache.minFree wants 5% (1.2 MiB); free space, or lower cache.minFree"
		want(put(300), full)
		want(b.Stats().Disk.String(), full)
		if st := b.Stats(); !st.Degraded || st.Disk.State != cache.DiskFull {
			t.Errorf("a full disk is %s", st.Disk.State)
		}
		b.want(list[0], cache.Hit, b.get(list[0]))
		mu.Lock()
		space = cache.Space{Free: 20 << 20, Total: 24 << 20, FreeInodes: 3, AllInodes: 1000}
		mu.Unlock()
		want(put(300), "the disk of /x is full: 3 files can still be made, cache.minFree wants 5% (50); remove files there, "+
			"or lower cache.minFree")
		mu.Lock()
		space = cache.Space{Free: 20 << 20, Total: 24 << 20}
		mu.Unlock()
		time.Sleep(6 * time.Second)
		if st := b.Stats(); st.Degraded {
			t.Errorf("with space again: %s", st.Disk)
		}
		want(b.Stats().Disk.String(), "the disk of /x has 20 MiB of 24 MiB free")
	})
}
