package cache_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// begun starts downloads that have half a blob each, and leaves them so.
func begun(t *testing.T, m *machine, up *upstream, n, size int) (list []oci.Digest) {
	t.Helper()
	for i := range n {
		d, b := up.add(uint64(100+i), size)
		s := up.source(d)
		s.Fetch = up.stall(d, size/2)
		o, outcome, err := m.Open(t.Context(), d, int64(size), s)
		if err != nil || outcome != cache.Miss {
			t.Fatalf("%s, %v", outcome, err)
		}
		defer o.Close()
		got := make([]byte, size/2)
		if _, err := o.ReadAt(got, 0); err != nil || !bytes.Equal(got, b[:size/2]) {
			t.Fatalf("first half: %v", err)
		}
		list = append(list, d)
	}
	return list
}

// Downloads that a stop cuts short continue after it: no byte comes twice.
func TestUnfinishedOverARestart(t *testing.T) {
	t.Parallel()
	const size, n = 400_000, 3
	dir, up := t.TempDir(), newUpstream()
	up.gate = make(chan struct{})
	m := onDisk(t, dir, 10_000_000)
	list := begun(t, m, up, n, size)
	m.leaves = 2 * n
	m.stop()
	close(up.gate)
	sent := up.sent

	m = onDisk(t, dir, 10_000_000)
	for i, d := range list {
		o, outcome, err := m.Open(t.Context(), d, size, up.source(d))
		if err != nil || outcome != cache.Joined {
			t.Fatalf("%s, %v", outcome, err)
		}
		// Those before may be on their way to their names still.
		if st := m.Stats(); st.Parked != int64(n-1-i) || st.Reserved > n*size {
			t.Errorf("with %d taken up again: %+v", i+1, st)
		}
		got, err := io.ReadAll(o)
		if err != nil || !bytes.Equal(got, up.blobs[d]) {
			t.Errorf("%d bytes of %d, %v", len(got), size, err)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
	m.stop()
	if up.sent != n*size {
		t.Errorf("%d bytes came, %d of them before the stop; want %d", up.sent, sent, n*size)
	}
}

// Unfinished downloads that there is no room for are dropped, and the others make way for a download that needs the room.
func TestUnfinishedWithinTheBudget(t *testing.T) {
	t.Parallel()
	const size, n = 400_000, 3
	dir, up := t.TempDir(), newUpstream()
	up.gate = make(chan struct{})
	m := onDisk(t, dir, 10_000_000)
	begun(t, m, up, n, size)
	m.leaves = 2 * n
	m.stop()
	close(up.gate)
	up.gate = nil

	m = onDisk(t, dir, 1_000_000)
	big, b := up.add(1, 950_000)
	o, outcome, err := m.Open(t.Context(), big, 950_000, up.source(big))
	if err != nil || outcome != cache.Miss {
		t.Fatalf("%s, %v", outcome, err)
	}
	got, err := io.ReadAll(o)
	if err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_ = o.Close()
	if st := m.Stats(); st.Parked != 0 || st.Uncached != 0 {
		t.Errorf("after another download needed the room: %+v", st)
	}
	m.stop()

	// A budget that has shrunk.
	dir = t.TempDir() // with nothing stored
	m = onDisk(t, dir, 10_000_000)
	begun(t, m, up, n, size)
	m.leaves = 2 * n
	m.stop()
	for i, life := range []struct {
		budget       int64
		parked, left int
	}{{500_000, 2, 4}, {150_000, 0, 0}} {
		m = onDisk(t, dir, life.budget)
		d, _ := up.add(uint64(7+i), 10)
		o, _, err := m.Open(t.Context(), d, 10, up.source(d)) // waits until what is stored is known
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(o); err != nil {
			t.Error(err)
		}
		_ = o.Close()
		if st := m.Stats(); st.Parked != int64(life.parked) || st.Reserved > int64(life.parked)*size+10 {
			t.Errorf("a budget of %d: %+v", life.budget, st)
		}
		m.leaves = life.left
		m.stop()
	}
}
