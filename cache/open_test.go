package cache_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/oci"
)

func TestMissThenHit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10<<20, nil)
		for i, n := range []int{0, 1, 100_000, 5 << 20} {
			d, _ := b.up.add(uint64(i), n)
			b.want(d, cache.Miss, b.get(d))
			b.check()
			b.want(d, cache.Hit, b.get(d))
			b.want(d, cache.Hit, b.getAs(d, -1))
			if got := b.up.count(d); got != min(n, 1) {
				t.Errorf("%d bytes: fetched %d times, want once, and nothing for nothing", n, got)
			}
		}
		got := b.Stats()
		got.Disk = cache.Disk{}
		want := cache.Stats{Bytes: 5<<20 + 100_001, Size: 10 << 20, Objects: 4, Hits: 8, Misses: 4}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("stats (-want +got):\n%s", diff)
		}
		b.check()
	})
}

func TestJoined(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10<<20, nil)
		d, _ := b.up.add(1, 1<<20)
		b.up.gate = make(chan struct{})
		var mu sync.Mutex
		outcomes := make(map[cache.Outcome]int)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				o, outcome, err := b.Open(t.Context(), d, 1<<20, b.up.source(d))
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
				b.read(o, d)
			})
		}
		synctest.Wait()
		if got := b.Stats(); got.Reserved != 0 || got.Bytes != 0 {
			t.Errorf("nothing has come, and %d bytes are reserved, %d stored", got.Reserved, got.Bytes)
		}
		close(b.up.gate)
		wg.Wait()
		if diff := cmp.Diff(map[cache.Outcome]int{cache.Miss: 1, cache.Joined: 49}, outcomes); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
		if b.up.count(d) != 1 || b.up.sent != 1<<20 {
			t.Errorf("fetched %d times, %d bytes", b.up.count(d), b.up.sent)
		}
		if got := b.Stats(); got.Misses != 1 || got.Joined != 49 {
			t.Errorf("counted %d misses, %d joined", got.Misses, got.Joined)
		}
		b.check()
	})
}

func TestUnknownSize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, unsure := range []bool{false, true} {
			b := start(t, 10<<20, nil)
			b.up.unsure = unsure
			d, _ := b.up.add(1, 3_000_000)
			b.want(d, cache.Miss, b.getAs(d, -1))
			b.check()
			if got := b.Stats(); got.Bytes != 3_000_000 || got.Reserved != 0 {
				t.Errorf("%d bytes stored, %d reserved", got.Bytes, got.Reserved)
			}
			b.want(d, cache.Hit, b.getAs(d, -1))
		}
	})
}

// A blob of unknown size is stored as far as there is room, and then served without.
func TestUnknownSizeTooLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 2<<20, nil)
		d, _ := b.up.add(1, 5_000_000)
		b.getAs(d, -1)
		b.check()
		if got := b.Stats(); got.Bytes != 0 || got.Reserved != 0 || got.Evicted != 0 {
			t.Errorf("%d bytes stored, %d reserved, %d evicted", got.Bytes, got.Reserved, got.Evicted)
		}
	})
}

func TestLargerThanTheCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1<<20, nil)
		small, _ := b.up.add(1, 1000)
		b.get(small)
		d, want := b.up.add(2, 1<<20+1)
		for range 2 {
			b.want(d, cache.Uncached, b.get(d))
		}
		o, outcome, err := b.Open(t.Context(), d, int64(len(want)), b.up.source(d))
		if err != nil {
			t.Fatal(err)
		}
		b.want(d, cache.Uncached, outcome)
		if _, err := o.Seek(1<<20-10, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(o); err != nil || !bytes.Equal(got, want[1<<20-10:]) {
			t.Errorf("read after a seek: %d bytes, %v", len(got), err)
		}
		p := make([]byte, 100)
		if n, err := o.ReadAt(p, 500_000); n != 100 || err != nil || !bytes.Equal(p, want[500_000:500_100]) {
			t.Errorf("read at an offset: %d, %v", n, err)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		b.want(small, cache.Hit, b.get(small))
		if got := b.Stats(); got.Uncached != 3 || got.Evicted != 0 {
			t.Errorf("%d uncached, %d evicted: nothing makes room for what can't fit", got.Uncached, got.Evicted)
		}
		b.check()
	})
}

func TestSourceFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1<<20, nil)
		_, d := cachetest.Bytes(1, 1000) // which the upstream has not
		if _, _, err := b.Open(t.Context(), d, -1, b.up.source(d)); err == nil {
			t.Error("opened what is not there")
		}
		o, _, err := b.Open(t.Context(), d, 1000, b.up.source(d))
		if err == nil {
			_, err = io.ReadAll(o)
			_ = o.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "no such blob") {
			t.Errorf("%v, want the source's error", err)
		}
		time.Sleep(2 * time.Hour) // all that lingers is over
		if got := b.Stats(); got.Reserved != 0 || got.Bytes != 0 {
			t.Errorf("%d bytes stay reserved, %d stored", got.Reserved, got.Bytes)
		}
	})
}

func TestWrongSize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1<<20, nil)
		d, content := b.up.add(1, 1000)
		b.get(d)

		// What was verified when it came is right, whatever a descriptor claims.
		b.want(d, cache.Hit, b.getAs(d, 999))
		if b.up.count(d) != 1 {
			t.Error("a wrong claim had good content fetched again")
		}

		mem := b.store.Store.(*cachetest.Store)
		for name, claim := range map[string]int64{"as expected": 1000, "not known": -1} {
			mem.Damage(d, content[:500])
			before := b.up.count(d)
			b.want(d, cache.Miss, b.getAs(d, claim))
			if b.up.count(d) != before+1 {
				t.Errorf("cut content (size %s) was not fetched again", name)
			}
			b.check()
		}

		// Without an index the size that the caller expects counts.
		b.index.Forget()
		b.index.Fail(errors.New("no index"))
		mem.Damage(d, content[:500])
		b.restart(1<<20, nil)
		b.want(d, cache.Miss, b.get(d))
		b.check()
	})
}

func TestRemoveWhileOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1<<20, nil)
		d, _ := b.up.add(1, 100_000)
		b.get(d)
		o, _, err := b.Open(t.Context(), d, 100_000, b.up.source(d))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Remove(d); err != nil {
			t.Fatal(err)
		}
		if err := b.Remove(d); err != nil {
			t.Errorf("second remove: %v", err)
		}
		b.check()
		b.want(d, cache.Miss, b.get(d))
		b.read(o, d)
		b.check()
	})
}

// Content that vanishes behind the cache's back is fetched again, and no longer counted.
func TestGoneByHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1<<20, nil)
		d, _ := b.up.add(1, 1000)
		b.get(d)
		if err := b.store.Remove(d); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Get(t.Context(), d); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("get: %v", err)
		}
		b.check()
		b.want(d, cache.Miss, b.get(d))
		// And what appears is served and counted.
		content, other := cachetest.Bytes(2, 2000)
		cachetest.Fill(t, b.store, content)
		if got, err := b.Get(t.Context(), other); err != nil || !bytes.Equal(got, content) {
			t.Errorf("get: %d bytes, %v", len(got), err)
		}
		b.check()
	})
}

func TestPutAndGet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10<<20, nil)
		content := []byte(`{"schemaVersion":2}`)
		d := b.put(content)
		if size, ok := b.Stat(d); !ok || size != int64(len(content)) {
			t.Errorf("stat: %d, %t", size, ok)
		}
		if got, err := b.Get(t.Context(), d); err != nil || !bytes.Equal(got, content) {
			t.Errorf("get: %q, %v", got, err)
		}
		creates := b.store.Calls(cachetest.Create)
		b.put(content)
		if got := b.store.Calls(cachetest.Create); got != creates {
			t.Error("content that is there was written again")
		}
		sha512 := digest.SHA512.FromBytes(content)
		if err := b.Put(t.Context(), sha512, content); err != nil {
			t.Errorf("put under sha512: %v", err)
		}
		b.check()

		for name, bad := range map[string]oci.Digest{"wrong": digest.FromString("other"), "no": "sha256:abc"} {
			if err := b.Put(t.Context(), bad, content); err == nil {
				t.Errorf("put under a %s digest went well", name)
			}
		}
		if _, err := b.Get(t.Context(), digest.FromString("other")); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("get of what is not there: %v", err)
		}
		large, _ := cachetest.Bytes(1, oci.MaxManifestSize+1)
		if _, err := b.Get(t.Context(), b.put(large)); err == nil || errors.Is(err, cache.ErrNotFound) {
			t.Errorf("get of a large blob: %v", err)
		}
		b.check()
	})
}

func TestGetVerifies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10<<20, nil)
		content := []byte(`{"schemaVersion":2}`)
		d := b.put(content)
		bad := bytes.Clone(content)
		bad[3] ^= 1
		b.store.Store.(*cachetest.Store).Damage(d, bad)
		if got, err := b.Get(t.Context(), d); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("damaged content: %q, %v", got, err)
		}
		b.check()
		if b.there(d)[0] {
			t.Error("damaged content is still there")
		}
	})
}

func TestPutTooLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1000, nil)
		content, d := cachetest.Bytes(1, 1001)
		if err := b.Put(t.Context(), d, content); !errors.Is(err, cache.ErrNoRoom) {
			t.Errorf("put: %v, want ErrNoRoom", err)
		}
		b.check()
	})
}

// Stat reads no disk and records no use of the content.
func TestStat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		d := b.put([]byte("content"))
		time.Sleep(time.Hour)
		opens := b.store.Calls(cachetest.Open)
		if got := b.there(d, digest.FromString("other")); !cmp.Equal(got, []bool{true, false}) {
			t.Errorf("stat: %v", got)
		}
		if got := b.store.Calls(cachetest.Open); got != opens {
			t.Errorf("stat opened %d files", got-opens)
		}
		for a := range b.Entries() {
			if time.Since(a.Used) < time.Hour-time.Minute {
				t.Errorf("stat was taken for a use: %s", a.Used)
			}
		}
		b.Touch(d)
		b.Touch(digest.FromString("other"))
		for a := range b.Entries() {
			if time.Since(a.Used) > time.Minute {
				t.Errorf("touch was not: %s", a.Used)
			}
		}
		b.check()
	})
}

// Peek verifies as Get does, records no use of the content, and does not remove it where it is damaged.
func TestPeek(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10<<20, nil)
		content := []byte(`{"schemaVersion":2}`)
		d := b.put(content)
		time.Sleep(time.Hour)
		if got, err := b.Peek(d); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%q %v", got, err)
		}
		for a := range b.Entries() {
			if time.Since(a.Used) < time.Hour-time.Minute {
				t.Errorf("taken for a use: %s", a.Used)
			}
		}
		b.store.Store.(*cachetest.Store).Damage(d, []byte(`{"schemaVersion":1}`))
		large, _ := cachetest.Bytes(1, oci.MaxManifestSize+1)
		for name, d := range map[string]oci.Digest{
			"damaged": d, "not there": digest.FromString("other"), "large": b.put(large),
		} {
			if got, err := b.Peek(d); err == nil {
				t.Errorf("%s: %q", name, got)
			}
		}
		if !b.there(d)[0] {
			t.Error("what is damaged was removed")
		}
	})
}

// What Stat doesn't find isn't there, once what is stored was read and while the disk works.
func TestSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10<<20, nil)
		if !b.Settled() {
			t.Error("not settled after it has loaded")
		}
		b.store.Fail(cachetest.Create, 1, errors.New("input/output error"))
		d, _ := b.up.add(1, 100)
		b.get(d)
		if b.Settled() {
			t.Error("settled with a disk that fails")
		}
		b.store.EndFaults()
	})
	if cache.New(cache.Options{Store: cachetest.NewStore(), Size: 1}).Settled() {
		t.Error("settled before it has loaded")
	}
}
