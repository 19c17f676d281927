package cachetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

func testInvisible(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 5000)
	p := create(t, s, 5000)
	absent(t, s, d)
	write(t, p, b, 0)
	absent(t, s, d)
	wantList(t, s, map[oci.Digest]int64{})
	if err := p.Commit(d, 5000); err != nil {
		t.Fatal(err)
	}
	wantList(t, s, map[oci.Digest]int64{d: 5000})
	if !bytes.Equal(read(t, s, d), b) {
		t.Error("content came back changed")
	}
}

func testAnyOrder(t *testing.T, s cache.Store) {
	const n, chunk = 300_000, 7001
	b, d := Bytes(1, n)
	p := create(t, s, n)
	var offs []int
	for off := 0; off < n; off += chunk {
		offs = append(offs, off)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(offs), func(i, j int) { offs[i], offs[j] = offs[j], offs[i] })
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := i; j < len(offs); j += 4 {
				off := offs[j]
				if _, err := p.WriteAt(b[off:min(off+chunk, n)], int64(off)); err != nil {
					t.Errorf("write at %d: %v", off, err)
				}
			}
		})
	}
	wg.Wait()
	if err := p.Commit(d, n); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, s, d), b) {
		t.Error("content came back changed")
	}
}

func testHoles(t *testing.T, s cache.Store) {
	const n, at = 3 << 20, 2 << 20
	p := create(t, s, n)
	write(t, p, []byte("here"), at)
	got := make([]byte, n)
	for i := range got {
		got[i] = 0xff
	}
	m, err := p.ReadAt(got, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read: %v", err)
	}
	want := make([]byte, n)
	copy(want[at:], "here")
	if m < at+4 || !bytes.Equal(got[:m], want[:m]) {
		t.Errorf("a spool with a hole does not read as zeros (%d bytes)", m)
	}
}

func testReadWhileWritten(t *testing.T, s cache.Store) {
	b, _ := Bytes(1, 100_000)
	p := create(t, s, int64(len(b)))
	o, err := p.Open()
	if err != nil {
		t.Fatalf("open spool: %v", err)
	}
	defer closeIt(t, o)
	if o.Size() != int64(len(b)) {
		t.Errorf("size of an open spool: %d, want what it was made for", o.Size())
	}
	for off := 0; off < len(b); off += 10_000 {
		write(t, p, b[off:off+10_000], int64(off))
		got := make([]byte, 10_000)
		if n, err := p.ReadAt(got, int64(off)); n != len(got) || !bytes.Equal(got, b[off:off+10_000]) {
			t.Fatalf("read back at %d: %d, %v", off, n, err)
		}
		if _, err := io.ReadFull(o, got); err != nil || !bytes.Equal(got, b[off:off+10_000]) {
			t.Fatalf("own reader at %d: %v", off, err)
		}
	}
}

func testOwnPositions(t *testing.T, s cache.Store) {
	p := create(t, s, 6)
	write(t, p, []byte("abcdef"), 0)
	var objs []cache.Object
	for i := range 3 {
		o, err := p.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer closeIt(t, o)
		if _, err := o.Seek(int64(i), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		objs = append(objs, o)
	}
	for i, o := range objs {
		b := make([]byte, 2)
		if _, err := io.ReadFull(o, b); err != nil || string(b) != "abcdef"[i:i+2] {
			t.Errorf("reader %d read %q, %v", i, b, err)
		}
	}
}

func testSpoolAfterCommit(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 9000)
	p := create(t, s, 9000)
	write(t, p, b, 0)
	if err := p.Commit(d, 9000); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 9000)
	if n, err := p.ReadAt(got, 0); n != 9000 || !bytes.Equal(got, b) {
		t.Errorf("read after commit: %d, %v", n, err)
	}
	if err := s.Remove(d); err != nil {
		t.Fatal(err)
	}
	if n, err := p.ReadAt(got, 0); n != 9000 || !bytes.Equal(got, b) {
		t.Errorf("read after commit and remove: %d, %v", n, err)
	}
}

func testReaderOutlives(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 9000)
	for _, committed := range []bool{true, false} {
		p := create(t, s, 9000)
		write(t, p, b, 0)
		before, err := p.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer closeIt(t, before)
		readers := []cache.Object{before}
		if committed {
			if err := p.Commit(d, 9000); err != nil {
				t.Fatal(err)
			}
			after, err := p.Open()
			if err != nil {
				t.Fatalf("open spool after commit: %v", err)
			}
			defer closeIt(t, after)
			readers = append(readers, after)
		}
		if err := p.Discard(); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(d); err != nil {
			t.Fatal(err)
		}
		for i, o := range readers {
			got := make([]byte, 9000)
			if _, err := io.ReadFull(o, got); err != nil || !bytes.Equal(got, b) {
				t.Errorf("reader %d of a spool that ended (committed: %t): %v", i, committed, err)
			}
		}
	}
}

func testShortCommit(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 1000)
	p := create(t, s, 1000)
	write(t, p, b[:999], 0)
	if err := p.Commit(d, 1000); err == nil {
		t.Error("a spool of 999 bytes was committed as 1000")
	}
	absent(t, s, d)
	if err := p.Discard(); err != nil {
		t.Errorf("discard after a failed commit: %v", err)
	}
	wantList(t, s, map[oci.Digest]int64{})
}

func testSpare(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 1000)
	p := create(t, s, -1)
	write(t, p, append(bytes.Clone(b), "behind"...), 0)
	if err := p.Commit(d, 1000); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, d); !bytes.Equal(got, b) {
		t.Errorf("%d bytes came back, want 1000", len(got))
	}
	wantList(t, s, map[oci.Digest]int64{d: 1000})
}

func testDiscard(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 1000)
	p := create(t, s, 1000)
	write(t, p, b, 0)
	for range 3 {
		if err := p.Discard(); err != nil {
			t.Errorf("discard: %v", err)
		}
	}
	absent(t, s, d)
	wantList(t, s, map[oci.Digest]int64{})

	p = create(t, s, 1000)
	write(t, p, b, 0)
	if err := p.Commit(d, 1000); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := p.Discard(); err != nil {
			t.Errorf("discard after commit: %v", err)
		}
	}
	if !bytes.Equal(read(t, s, d), b) {
		t.Error("discard after commit took the content away")
	}
}

func testEndedSpool(t *testing.T, s cache.Store) {
	b, d := Bytes(1, 1000)
	p := create(t, s, 1000)
	write(t, p, b, 0)
	if err := p.Discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt(b, 0); err == nil {
		t.Error("write to a discarded spool went well")
	}
	if _, err := p.ReadAt(b, 0); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read of a discarded spool: %v", err)
	}
	if err := p.Commit(d, 1000); err == nil {
		t.Error("commit of a discarded spool went well")
	}
	if o, err := p.Open(); err == nil {
		_ = o.Close()
		t.Error("open of a discarded spool went well")
	}
	absent(t, s, d)
}
