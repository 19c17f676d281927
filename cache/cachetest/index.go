package cachetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// TestIndex holds an index to what cache.Index promises. open makes an empty index, and ends it with the test.
func TestIndex(t *testing.T, open func(t *testing.T) cache.Index) {
	for name, test := range map[string]func(t *testing.T, x cache.Index){
		"an empty index":       testIndexEmpty,
		"written and read":     testIndexRoundTrip,
		"to the minute":        testIndexMinute,
		"the last write wins":  testIndexLast,
		"removed":              testIndexRemoved,
		"a large batch":        testIndexLarge,
		"at once":              testIndexAtOnce,
		"a copy":               testIndexCopies,
		"load while it writes": testIndexWhileWriting,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func access(seed int, at time.Time) cache.Access {
	return cache.Access{Digest: digest.FromString(fmt.Sprint(seed)), Size: int64(seed), Used: at}
}

func record(t testing.TB, x cache.Index, used []cache.Access, removed []oci.Digest) {
	t.Helper()
	if err := x.Write(used, removed); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func recorded(t testing.TB, x cache.Index) map[oci.Digest]cache.Access {
	t.Helper()
	all, err := x.Load()
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	for d, a := range all {
		if a.Digest != d {
			t.Fatalf("loaded %s as %s", a.Digest, d)
		}
	}
	return all
}

func wantRecorded(t testing.TB, x cache.Index, want ...cache.Access) {
	t.Helper()
	m := make(map[oci.Digest]cache.Access)
	for _, a := range want {
		m[a.Digest] = a
	}
	if diff := cmp.Diff(m, recorded(t, x)); diff != "" {
		t.Fatalf("recorded (-want +got):\n%s", diff)
	}
}

func testIndexEmpty(t *testing.T, x cache.Index) {
	wantRecorded(t, x)
	record(t, x, nil, nil)
	record(t, x, nil, []oci.Digest{digest.FromString("never there")})
	wantRecorded(t, x)
}

func testIndexRoundTrip(t *testing.T, x cache.Index) {
	a, b, c := access(1, noon), access(2, noon.Add(time.Hour)), access(0, noon)
	b.Size = 1 << 40
	c.Digest = digest.SHA512.FromString("c")
	record(t, x, []cache.Access{a, b, c}, nil)
	wantRecorded(t, x, a, b, c)
}

func testIndexMinute(t *testing.T, x cache.Index) {
	record(t, x, []cache.Access{access(1, noon.Add(59*time.Second))}, nil)
	for _, a := range recorded(t, x) {
		if d := a.Used.Sub(noon); d < 0 || d >= time.Minute {
			t.Errorf("recorded as %s, want the minute of %s", a.Used, noon)
		}
	}
}

func testIndexLast(t *testing.T, x cache.Index) {
	record(t, x, []cache.Access{access(1, noon), access(2, noon)}, nil)
	record(t, x, []cache.Access{access(1, noon.Add(time.Hour))}, nil)
	wantRecorded(t, x, access(1, noon.Add(time.Hour)), access(2, noon))
}

func testIndexRemoved(t *testing.T, x cache.Index) {
	record(t, x, []cache.Access{access(1, noon), access(2, noon), access(3, noon)}, nil)
	record(t, x, []cache.Access{access(4, noon)}, []oci.Digest{access(1, noon).Digest, access(3, noon).Digest})
	wantRecorded(t, x, access(2, noon), access(4, noon))
	record(t, x, []cache.Access{access(1, noon)}, nil)
	wantRecorded(t, x, access(1, noon), access(2, noon), access(4, noon))
}

func testIndexLarge(t *testing.T, x cache.Index) {
	const n = 25_000
	var used []cache.Access
	var half []oci.Digest
	for i := range n {
		a := access(i, noon)
		used = append(used, a)
		if i%2 == 0 {
			half = append(half, a.Digest)
		}
	}
	record(t, x, used, nil)
	if got := len(recorded(t, x)); got != n {
		t.Fatalf("recorded %d, want %d", got, n)
	}
	record(t, x, nil, half)
	if got := len(recorded(t, x)); got != n/2 {
		t.Fatalf("recorded %d after half were removed, want %d", got, n/2)
	}
}

func testIndexAtOnce(t *testing.T, x cache.Index) {
	var wg sync.WaitGroup
	var want []cache.Access
	for i := range 8 {
		a := access(i, noon)
		want = append(want, a)
		wg.Go(func() {
			if err := x.Write([]cache.Access{a}, nil); err != nil {
				t.Errorf("write: %v", err)
			}
		})
	}
	wg.Wait()
	wantRecorded(t, x, want...)
}

// A caller may change what it has loaded.
func testIndexCopies(t *testing.T, x cache.Index) {
	record(t, x, []cache.Access{access(1, noon)}, nil)
	clear(recorded(t, x))
	wantRecorded(t, x, access(1, noon))
}

func testIndexWhileWriting(t *testing.T, x cache.Index) {
	for i := range 100 {
		record(t, x, []cache.Access{access(i, noon)}, nil)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 100 {
			if err := x.Write([]cache.Access{access(1000+i, noon)}, nil); err != nil {
				t.Errorf("write: %v", err)
			}
		}
	})
	for range 5 {
		if got := len(recorded(t, x)); got < 100 {
			t.Errorf("loaded %d of at least 100", got)
		}
	}
	wg.Wait()
	if got := len(recorded(t, x)); got != 200 {
		t.Errorf("loaded %d, want 200", got)
	}
}
