package cachetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// TestStore holds a store to what cache.Store, flight.Spool and flight.Object promise. open makes an empty store, and
// ends it with the test.
func TestStore(t *testing.T, open func(t *testing.T) cache.Store) {
	for name, test := range map[string]func(t *testing.T, s cache.Store){
		"an empty store":                    testEmpty,
		"what is not a digest":              testNoDigest,
		"content of every size":             testSizes,
		"content of unknown size":           testUnknownSize,
		"not visible before commit":         testInvisible,
		"written in any order":              testAnyOrder,
		"holes read as zeros or not at all": testHoles,
		"read while written":                testReadWhileWritten,
		"readers of a spool are apart":      testOwnPositions,
		"spool read after commit":           testSpoolAfterCommit,
		"reader outlives commit, discard":   testReaderOutlives,
		"object outlives remove":            testObjectOutlivesRemove,
		"object outlives a second commit":   testObjectOutlivesCommit,
		"a short spool does not commit":     testShortCommit,
		"spare bytes are cut off":           testSpare,
		"discard":                           testDiscard,
		"an ended spool":                    testEndedSpool,
		"the same content at once":          testSameAtOnce,
		"remove, then commit again":         testAgain,
		"list while it changes":             testAllWhileChanging,
		"list, and stop":                    testAllStops,
		"close is told once":                testOnClose,
		"many at once":                      testMany,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// Bytes makes n bytes that look random and are the same for the same seed, with their digest.
func Bytes(seed uint64, n int) ([]byte, oci.Digest) {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 1}).Read(b)
	return b, digest.FromBytes(b)
}

// Fill commits b to a store.
func Fill(t testing.TB, s cache.Store, b []byte) oci.Digest {
	t.Helper()
	d := digest.FromBytes(b)
	commit(t, s, d, b)
	return d
}

func commit(t testing.TB, s cache.Store, d oci.Digest, b []byte) {
	t.Helper()
	p := create(t, s, int64(len(b)))
	write(t, p, b, 0)
	if err := p.Commit(d, int64(len(b))); err != nil {
		t.Fatalf("commit: %v", err)
	}
	if err := p.Discard(); err != nil {
		t.Fatalf("discard after commit: %v", err)
	}
}

func create(t testing.TB, s cache.Store, size int64) cache.Spool {
	t.Helper()
	p, err := s.Create(size)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() { _ = p.Discard() })
	return p
}

func write(t testing.TB, p cache.Spool, b []byte, off int64) {
	t.Helper()
	if n, err := p.WriteAt(b, off); err != nil || n != len(b) {
		t.Fatalf("write %d bytes at %d: %d, %v", len(b), off, n, err)
	}
}

func read(t testing.TB, s cache.Store, d oci.Digest) []byte {
	t.Helper()
	o, err := s.Open(d)
	if err != nil {
		t.Fatalf("open %s: %v", d, err)
	}
	defer closeIt(t, o)
	b, err := io.ReadAll(o)
	if err != nil {
		t.Fatalf("read %s: %v", d, err)
	}
	if o.Size() != int64(len(b)) {
		t.Fatalf("size of %s: %d, read %d bytes", d, o.Size(), len(b))
	}
	return b
}

func closeIt(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func absent(t testing.TB, s cache.Store, d oci.Digest) {
	t.Helper()
	o, err := s.Open(d)
	if err == nil {
		_ = o.Close()
	}
	if !errors.Is(err, cache.ErrNotFound) {
		t.Fatalf("open of what is not there: %v, want ErrNotFound", err)
	}
}

func list(t testing.TB, s cache.Store) map[oci.Digest]int64 {
	t.Helper()
	all := make(map[oci.Digest]int64)
	for e, err := range s.All() {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if _, twice := all[e.Digest]; twice {
			t.Fatalf("listed twice: %s", e.Digest)
		}
		all[e.Digest] = e.Size
	}
	return all
}

func wantList(t testing.TB, s cache.Store, want map[oci.Digest]int64) {
	t.Helper()
	if diff := cmp.Diff(want, list(t, s)); diff != "" {
		t.Fatalf("list (-want +got):\n%s", diff)
	}
}

func testEmpty(t *testing.T, s cache.Store) {
	_, d := Bytes(1, 10)
	absent(t, s, d)
	if err := s.Remove(d); err != nil {
		t.Errorf("remove of what is not there: %v", err)
	}
	wantList(t, s, map[oci.Digest]int64{})
}

func testNoDigest(t *testing.T, s cache.Store) {
	for _, d := range []oci.Digest{"", "sha256:", "sha256:../../../../etc/passwd", "../LOCK", "sha256:ABCD", "md5:" +
		"d41d8cd98f00b204e9800998ecf8427e"} {
		absent(t, s, d)
		if err := s.Remove(d); err != nil {
			t.Errorf("remove %q: %v", d, err)
		}
		p := create(t, s, 3)
		write(t, p, []byte("abc"), 0)
		if err := p.Commit(d, 3); err == nil {
			t.Errorf("commit of %q went well", d)
		}
		if err := p.Discard(); err != nil {
			t.Errorf("discard: %v", err)
		}
	}
	wantList(t, s, map[oci.Digest]int64{})
}

func testSizes(t *testing.T, s cache.Store) {
	want := make(map[oci.Digest]int64)
	for i, n := range []int{0, 1, 511, 4096, 65537, 1<<20 + 3} {
		b, d := Bytes(uint64(i), n)
		if i%2 == 1 {
			d = digest.SHA512.FromBytes(b)
		}
		commit(t, s, d, b)
		want[d] = int64(n)
		if !bytes.Equal(read(t, s, d), b) {
			t.Errorf("%d bytes came back changed", n)
		}
		checkObject(t, s, d, b)
	}
	wantList(t, s, want)
}

// checkObject reads an object in every way.
func checkObject(t *testing.T, s cache.Store, d oci.Digest, want []byte) {
	t.Helper()
	o, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, o)
	half := int64(len(want) / 2)
	if pos, err := o.Seek(half, io.SeekStart); err != nil || pos != half {
		t.Errorf("seek to %d: %d, %v", half, pos, err)
	}
	if b, err := io.ReadAll(o); err != nil || !bytes.Equal(b, want[half:]) {
		t.Errorf("read of the second half: %d bytes, %v", len(b), err)
	}
	if n, err := o.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read at the end: %d, %v, want EOF", n, err)
	}
	if pos, err := o.Seek(0, io.SeekEnd); err != nil || pos != int64(len(want)) {
		t.Errorf("seek to the end: %d, %v", pos, err)
	}
	b := make([]byte, len(want)-int(half))
	if n, err := o.ReadAt(b, half); n != len(b) || err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(b, want[half:]) {
		t.Errorf("read at %d: %d, %v", half, n, err)
	}
	if n, err := o.ReadAt(make([]byte, 2), int64(len(want))-1); len(want) > 0 && (n != 1 || !errors.Is(err, io.EOF)) {
		t.Errorf("read over the end: %d, %v, want 1 and EOF", n, err)
	}
}

func testUnknownSize(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 70000)
	p := create(t, s, -1)
	write(t, p, b, 0)
	if err := p.Commit(d, int64(len(b))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, s, d), b) {
		t.Error("content came back changed")
	}
}

func testObjectOutlivesRemove(t *testing.T, s cache.Store) {
	b, _ := Bytes(1, 100_000)
	d := Fill(t, s, b)
	o, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, o)
	got := make([]byte, 100)
	if _, err := io.ReadFull(o, got); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(d); err != nil {
		t.Fatal(err)
	}
	absent(t, s, d)
	rest, err := io.ReadAll(o)
	if err != nil || !bytes.Equal(append(got, rest...), b) {
		t.Errorf("read after remove: %d bytes, %v", len(rest), err)
	}
}

func testObjectOutlivesCommit(t *testing.T, s cache.Store) {
	b, _ := Bytes(1, 100_000)
	d := Fill(t, s, b)
	o, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, o)
	Fill(t, s, b)
	wantList(t, s, map[oci.Digest]int64{d: int64(len(b))})
	if got, err := io.ReadAll(o); err != nil || !bytes.Equal(got, b) {
		t.Errorf("read after a second commit: %d bytes, %v", len(got), err)
	}
	if !bytes.Equal(read(t, s, d), b) {
		t.Error("content came back changed")
	}
}

func testSameAtOnce(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 50_000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			p, err := s.Create(50_000)
			if err != nil {
				t.Errorf("create: %v", err)
				return
			}
			defer func() {
				if err := p.Discard(); err != nil {
					t.Errorf("discard: %v", err)
				}
			}()
			if _, err := p.WriteAt(b, 0); err != nil {
				t.Errorf("write: %v", err)
			}
			if err := p.Commit(d, 50_000); err != nil {
				t.Errorf("commit: %v", err)
			}
			got := make([]byte, 50_000)
			if n, err := p.ReadAt(got, 0); n != len(got) || !bytes.Equal(got, b) {
				t.Errorf("read after commit: %d, %v", n, err)
			}
		})
	}
	wg.Wait()
	wantList(t, s, map[oci.Digest]int64{d: 50_000})
	if !bytes.Equal(read(t, s, d), b) {
		t.Error("content came back changed")
	}
}

func testAgain(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 1000)
	for range 3 {
		Fill(t, s, b)
		if !bytes.Equal(read(t, s, d), b) {
			t.Error("content came back changed")
		}
		if err := s.Remove(d); err != nil {
			t.Fatal(err)
		}
		absent(t, s, d)
		wantList(t, s, map[oci.Digest]int64{})
	}
}

func testAllWhileChanging(t *testing.T, s cache.Store) {
	stay := make(map[oci.Digest]int64)
	var gone []oci.Digest
	for i := range 60 {
		b, d := Bytes(uint64(i), 100+i)
		Fill(t, s, b)
		if i%2 == 0 {
			stay[d] = int64(len(b))
		} else {
			gone = append(gone, d)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, d := range gone {
			if err := s.Remove(d); err != nil {
				t.Errorf("remove: %v", err)
			}
		}
	})
	got := list(t, s)
	wg.Wait()
	for d, n := range stay {
		if got[d] != n {
			t.Errorf("%s: listed with size %d, want %d", d, got[d], n)
		}
	}
	wantList(t, s, stay)
}

func testAllStops(t *testing.T, s cache.Store) {
	for i := range 10 {
		b, _ := Bytes(uint64(i), 10)
		Fill(t, s, b)
	}
	n := 0
	for _, err := range s.All() {
		if err != nil {
			t.Error(err)
		}
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("listed %d", n)
	}
}

func testOnClose(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 10)
	Fill(t, s, b)
	o, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	n, ok := o.(cache.CloseNotifier)
	if !ok {
		closeIt(t, o)
		return // an object need not be one
	}
	calls := 0
	n.OnClose(func() { calls++ })
	if calls != 0 {
		t.Error("told before the close")
	}
	closeIt(t, o)
	_ = o.Close() // whatever it returns
	if calls != 1 {
		t.Errorf("told %d times, want once", calls)
	}
}

func testMany(t *testing.T, s cache.Store) {
	var mu sync.Mutex
	want := make(map[oci.Digest]int64)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				b, d := Bytes(uint64(w*1000+i), 1+i*37)
				p, err := s.Create(int64(len(b)))
				if err != nil {
					t.Errorf("create: %v", err)
					return
				}
				_, werr := p.WriteAt(b, 0)
				if err := errors.Join(werr, p.Commit(d, int64(len(b))), p.Discard()); err != nil {
					t.Errorf("fill %s: %v", d, err)
					return
				}
				o, err := s.Open(d)
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				got, err := io.ReadAll(o)
				if err := errors.Join(err, o.Close()); err != nil || !bytes.Equal(got, b) {
					t.Errorf("read %s: %d bytes, %v", d, len(got), err)
				}
				if i%3 == 0 {
					if err := s.Remove(d); err != nil {
						t.Errorf("remove: %v", err)
					}
					continue
				}
				mu.Lock()
				want[d] = int64(len(b))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	wantList(t, s, want)
	for _, d := range slices.Sorted(maps.Keys(want)) {
		if got := digest.FromBytes(read(t, s, d)); got != d {
			t.Error(fmt.Errorf("%s holds %s", d, got))
		}
	}
}
