package cache_test

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/oci"
)

// blobs makes n blobs of size bytes.
func (b *bench) blobs(n, size int) []oci.Digest {
	var list []oci.Digest
	for i := range n {
		d, _ := b.up.add(uint64(1000*size+i), size)
		list = append(list, d)
	}
	return list
}

// names turns what is stored into letters: the first of the list is a.
func (b *bench) names(list []oci.Digest) string {
	b.t.Helper()
	s := ""
	for i, ok := range b.there(list...) {
		if ok {
			s += string(rune('a' + i))
		}
	}
	return s
}

// use reads the blobs named by letters, a minute apart.
func (b *bench) use(list []oci.Digest, names string) {
	b.t.Helper()
	for _, r := range names {
		time.Sleep(time.Minute)
		b.get(list[r-'a'])
		b.check()
	}
}

func TestEvictionOrder(t *testing.T) {
	t.Parallel()
	// The budget is ten blobs: the tenth passes 90 % and leaves eight.
	for name, tt := range map[string]struct{ use, want string }{
		"below the mark":                    {"abcdefghi", "abcdefghi"},
		"the first goes first":              {"abcdefghij", "cdefghij"},
		"what was used again stays":         {"abcdefghiaj", "adefghij"},
		"two used again":                    {"abcdefghicaj", "acefghij"},
		"a look through all":                {"abab" + "cdefghijklmnopqrstuvwxyz", "abuvwxyz"},
		"protected, and never used again":   {"abcdefg" + "abcdefg" + "hijklmnop", "bcdefgop"},
		"too many protected go back":        {"abcdefgh" + "abcdefgh" + "ij", "cdefghij"},
		"protected, then used on probation": {"aabcdefghibj", "abefghij"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := start(t, 10_000, nil)
				list := b.blobs(26, 1000)
				b.use(list, tt.use)
				if got := b.names(list); got != tt.want {
					t.Errorf("stored: %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// Many uses within a minute are one: a rollout to fifty nodes protects nothing.
func TestUsesWithinAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		for range 50 {
			b.get(list[0])
		}
		b.use(list, "bcdefghij")
		if got := b.names(list); got != "cdefghij" {
			t.Errorf("stored: %s, want cdefghij", got)
		}
	})
}

func TestRoomForADownload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(9, 1000)
		b.use(list, "abcdefghi")
		// 7,000 bytes need six of nine to go, once the first of them is here.
		large, _ := b.up.add(1, 7000)
		b.up.gate = make(chan struct{})
		o, outcome, err := b.Open(t.Context(), large, 7000, b.up.source(large))
		if err != nil {
			t.Fatal(err)
		}
		b.want(large, cache.Miss, outcome)
		synctest.Wait()
		if got := b.names(list); got != "abcdefghi" {
			t.Errorf("nothing has come, and there is %s, want all", got)
		}
		close(b.up.gate)
		b.read(o, large)
		b.check()
		if got := b.names(list); got != "i" { // and one more, down to the low mark
			t.Errorf("stored: %s, want i", got)
		}
		b.want(large, cache.Hit, b.get(large))
		// One of the size of the whole cache takes all of it.
		all, _ := b.up.add(2, 10_000)
		b.want(all, cache.Miss, b.get(all))
		b.check()
	})
}

func TestKeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		until := time.Now().Add(time.Hour)
		b.Keep("one", until, list[0], list[1]) // before they are there
		b.Keep("two", until, list[1], list[2])
		b.use(list, "abcdefghij")
		if got := b.names(list); got != "abcfghij" {
			t.Fatalf("stored: %s, want abcfghij", got)
		}
		b.Keep("one", until, list[0]) // b is still the other's
		b.use(list, "kl")
		if got := b.names(list); got != "abchijkl" {
			t.Fatalf("stored: %s, want abchijkl", got)
		}
		b.Keep("two", until)
		b.use(list, "mn")
		if got := b.names(list); got != "ahijklmn" {
			t.Fatalf("stored: %s, want ahijklmn", got)
		}
		b.Keep("one", time.Now().Add(-time.Second), list[0])
		b.use(list, "op")
		if got := b.names(list); got[0] == 'a' {
			t.Fatalf("stored: %s, and no keep has a any more", got)
		}
	})
}

func TestKeepEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		b.Keep("job", time.Now().Add(30*time.Minute), list[0])
		b.use(list, "abcdefghij")
		if got := b.names(list); got[0] != 'a' {
			t.Fatalf("stored: %s, and a is kept", got)
		}
		b.Keep("job", time.Now().Add(30*time.Minute), list[0]) // renewed
		time.Sleep(20 * time.Minute)
		b.use(list, "kl")
		if got := b.names(list); got[0] != 'a' {
			t.Fatalf("stored: %s, and the keep was renewed", got)
		}
		time.Sleep(20 * time.Minute)
		b.use(list, "mn")
		if got := b.names(list); got[0] == 'a' {
			t.Fatalf("stored: %s, and the keep has ended", got)
		}
	})
}

// Where all content is kept there is no room: other content is served uncached, until a keep ends.
func TestAllKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(10, 1000)
		b.Keep("job", time.Now().Add(time.Hour), list...)
		b.use(list, "abcdefghij")
		if got := b.names(list); got != "abcdefghij" {
			t.Fatalf("stored: %s, want all", got)
		}
		more, content := b.up.add(1, 500)
		b.want(more, cache.Uncached, b.get(more))
		if err := b.Put(t.Context(), more, content); err == nil {
			t.Error("put had room")
		}
		b.check()
		time.Sleep(time.Hour)
		b.want(more, cache.Miss, b.get(more))
		b.check()
	})
}

func TestOpenIsNotEvicted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(26, 1000)
		b.use(list, "a")
		o, _, err := b.Open(t.Context(), list[0], 1000, b.up.source(list[0]))
		if err != nil {
			t.Fatal(err)
		}
		b.use(list, "bcdefghijklmno")
		if got := b.names(list); got[0] != 'a' {
			t.Fatalf("stored: %s, and a is open", got)
		}
		b.read(o, list[0])
		b.use(list, "pqrstuvwxyz")
		if got := b.names(list); got[0] == 'a' {
			t.Fatalf("stored: %s, and a is not open any more", got)
		}
	})
}

// hookedStore calls back in the midst of a call.
type hookedStore struct {
	cache.Store
	create, remove func()
}

func (s *hookedStore) Create(size int64) (cache.Spool, error) {
	if f := s.create; f != nil {
		s.create = nil
		f()
	}
	return s.Store.Create(size)
}

func (s *hookedStore) Remove(d oci.Digest) error {
	if f := s.remove; f != nil {
		s.remove = nil
		f()
	}
	return s.Store.Remove(d)
}

// A victim that is opened before it is removed stays.
func TestUsedBeforeItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *hookedStore
		b := start(t, 10_000, func(o *cache.Options) {
			s = &hookedStore{Store: o.Store}
			o.Store = s
		})
		list := b.blobs(26, 1000)
		b.use(list, "abcdefghi")
		s.remove = func() {
			o, outcome, err := b.Open(t.Context(), list[1], 1000, b.up.source(list[1]))
			if err != nil || outcome != cache.Hit {
				t.Errorf("open: %s, %v", outcome, err)
				return
			}
			b.read(o, list[1])
		}
		b.use(list, "j")
		if got := b.names(list); got != "bcdefghij" {
			t.Errorf("stored: %s, want bcdefghij", got)
		}
		b.use(list, "k")
		if got := b.names(list); got != "befghijk" {
			t.Errorf("stored: %s, want befghijk", got)
		}
	})
}

func TestParkedGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1<<20, func(o *cache.Options) { o.GoOn = 1 })
		d, _ := b.up.add(1, 900_000)
		b.up.gate = make(chan struct{})
		o, _, err := b.Open(t.Context(), d, 900_000,
			cache.Source{Key: "key", Fetch: b.up.stall(d, 100_000)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(o, make([]byte, 50_000)); err != nil {
			t.Fatal(err)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // lingers, then parks
		if got := b.Stats(); got.Parked != 1 || got.Reserved != 100_000 {
			t.Fatalf("%d parked, %d bytes reserved", got.Parked, got.Reserved)
		}
		close(b.up.gate)
		other, _ := b.up.add(2, 1_000_000)
		b.want(other, cache.Miss, b.get(other))
		if got := b.Stats(); got.Parked != 0 || got.Reserved != 0 {
			t.Errorf("%d parked, %d bytes reserved", got.Parked, got.Reserved)
		}
		b.check()
	})
}

// meter counts what a store really holds.
type meter struct {
	cache.Store
	mu        sync.Mutex // guards the fields below
	now, most int64
	sizes     map[oci.Digest]int64
}

func (m *meter) add(n int64) {
	m.now += n
	m.most = max(m.most, m.now)
}

func (m *meter) Create(size int64) (cache.Spool, error) {
	p, err := m.Store.Create(size)
	if err == nil {
		p = &meteredSpool{Spool: p, m: m}
	}
	return p, err
}

func (m *meter) Remove(d oci.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now -= m.sizes[d]
	delete(m.sizes, d)
	return m.Store.Remove(d)
}

type meteredSpool struct {
	cache.Spool
	m    *meter
	size int64 // written
}

func (p *meteredSpool) WriteAt(b []byte, off int64) (int, error) {
	p.m.mu.Lock()
	p.size += int64(len(b))
	p.m.add(int64(len(b)))
	p.m.mu.Unlock()
	return p.Spool.WriteAt(b, off)
}

func (p *meteredSpool) Commit(d oci.Digest, size int64) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if _, twice := p.m.sizes[d]; twice {
		p.m.now -= p.size
	}
	p.m.sizes[d] = size
	p.size = 0
	return p.Spool.Commit(d, size)
}

func (p *meteredSpool) Discard() error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.now -= p.size
	p.size = 0
	return p.Spool.Discard()
}

// However many clients pull more at once than fits, the budget holds at every moment, by the store's own count, and each
// client gets the right bytes.
func TestNeverOverTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 1_000_000
		m := &meter{sizes: make(map[oci.Digest]int64)}
		b := start(t, size, func(o *cache.Options) {
			m.Store = o.Store
			o.Store = m
		})
		var list []oci.Digest
		for i := range 40 {
			d, _ := b.up.add(uint64(i), 10_000+i*10_000)
			list = append(list, d)
		}
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 60 {
					d := list[(w*7+i*(w+1)*3)%len(list)]
					b.up.mu.Lock()
					n := int64(len(b.up.blobs[d]))
					b.up.mu.Unlock()
					o, _, err := b.Open(t.Context(), d, n, b.up.source(d))
					if err != nil {
						t.Errorf("open: %v", err)
						return
					}
					b.read(o, d)
					cachetest.CheckBudget(t, b.Cache)
					time.Sleep(time.Duration(i) * time.Second)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		b.check()
		if m.most > size || m.most < size/2 {
			t.Errorf("the store held %d bytes at most, of %d", m.most, size)
		}
		if st := b.Stats(); st.Evicted == 0 || st.Hits == 0 || st.Misses == 0 {
			t.Errorf("the test proves nothing: %+v", st)
		}
	})
}

func TestStatsOfEviction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 10_000, nil)
		list := b.blobs(10, 1000)
		b.use(list, "abcdefghij")
		got := b.Stats()
		got.Disk = cache.Disk{}
		want := cache.Stats{Bytes: 8000, Size: 10_000, Objects: 8, Misses: 10, Evicted: 2, EvictedBytes: 2000}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("stats (-want +got):\n%s", diff)
		}
	})
}
