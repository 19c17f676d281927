package flight_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/cache/flight"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOneDownloadForAll(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 511, 64 << 10, 64<<10 + 1, 1 << 20, 5<<20 + 17} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			o := newOrigin(1, size)
			o.chunk = 100 << 10
			st := &store{}
			g := flight.New(st.options())
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					obj, _ := join(t, g, o, o.source("a", fault{}))
					defer obj.Close()
					b, err := copyAll(t.Context(), obj, 0, int64(size))
					if err != nil || !bytes.Equal(b, o.content) {
						t.Errorf("got %d bytes, %v; want the %d of the blob", len(b), err, size)
					}
				})
			}
			wg.Wait()
			g.Close()
			if n := o.count(); n != 1 {
				t.Errorf("%d fetches, want 1", n)
			}
			if n := o.total(); n != int64(size) {
				t.Errorf("%d bytes fetched, want %d", n, size)
			}
			if w := o.fetches[0]; w.From != 0 || w.To != int64(size) || w.Size != int64(size) {
				t.Errorf("asked for [%d, %d), want the whole blob", w.From, w.To)
			}
			if _, ok := st.committed[o.digest()]; !ok {
				t.Error("not committed")
			}
			st.check(t)
		})
	}
}

func TestAStuckReaderDelaysNoOther(t *testing.T) {
	t.Parallel()
	o := newOrigin(2, 6<<20)
	st := &store{}
	g := flight.New(st.options())
	stuck, _ := join(t, g, o, o.source("a", fault{})) // never reads
	fast, joined := join(t, g, o, o.source("b", fault{}))
	if !joined {
		t.Error("the second reader did not join the first one's flight")
	}
	if b, err := copyAll(t.Context(), fast, 0, int64(len(o.content))); err != nil || !bytes.Equal(b, o.content) {
		t.Fatalf("fast reader: %d bytes, %v", len(b), err)
	}
	_ = fast.Close()
	// The stuck reader gets its bytes also long after the commit.
	if b, err := copyAll(t.Context(), stuck, 0, int64(len(o.content))); err != nil || !bytes.Equal(b, o.content) {
		t.Fatalf("stuck reader: %d bytes, %v", len(b), err)
	}
	_ = stuck.Close()
	g.Close()
	if n := o.count(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
	st.check(t)
}

// A denied source ends its own readers; the others get every byte, and none twice.
func TestDeniedAlone(t *testing.T) {
	t.Parallel()
	denied := errors.New("403 from the registry")
	for _, tt := range []struct {
		name  string
		alice fault
		want  error
	}{
		{"at once", fault{deny: denied}, denied},
		{"in the middle", fault{cutAt: 3<<20 + 5}, errCut},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(3, 8<<20)
			o.chunk = 64 << 10
			st := &store{}
			g := flight.New(st.options())
			alice, _ := join(t, g, o, o.source("alice", tt.alice))
			bob, joined := join(t, g, o, o.source("bob", fault{}))
			if !joined {
				t.Fatal("bob did not join")
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				defer alice.Close()
				_, err := alice.(*flight.Reader).CopyTo(t.Context(), io.Discard, 0, alice.Size())
				if !errors.Is(err, tt.want) {
					t.Errorf("alice: %v, want %v", err, tt.want)
				}
				// Bob reads only now, so that the download began by Alice's source.
				b, err := copyAll(t.Context(), bob, 0, bob.Size())
				if err != nil || !bytes.Equal(b, o.content) {
					t.Errorf("bob: %d bytes, %v", len(b), err)
				}
				_ = bob.Close()
			})
			wg.Wait()
			g.Close()
			if n := o.total(); n != int64(len(o.content)) {
				t.Errorf("%d bytes fetched, want %d: none twice", n, len(o.content))
			}
			st.check(t)
		})
	}
}

// A source is told of wrong content although its reader has its part and has left, and before another reader can begin.
func TestWrongContentIsToldToItsSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(4, 6<<20)
		o.flip = 3 << 20
		st := &store{}
		g := flight.New(st.options())
		var told []error
		s := o.source("a", fault{})
		s.Wrong = func(err error) {
			if len(g.Flights()) != 1 {
				t.Error("the next download could begin already")
			}
			told = append(told, err)
		}
		obj, _ := join(t, g, o, s)
		for _, off := range []int64{0, 5 << 20} { // together they have all of it fetched
			_, err := copyAll(t.Context(), obj, off, 100)
			// The second read may begin when all bytes are there, and known to be wrong.
			if _, wrong := errors.AsType[*flight.MismatchError](err); err != nil && (off == 0 || !wrong) {
				t.Error(err)
			}
		}
		_ = obj.Close()
		synctest.Wait()
		if e, ok := errors.AsType[*flight.MismatchError](errors.Join(told...)); len(told) != 1 || !ok || e.Digest != o.digest() {
			t.Errorf("told %v", told)
		}
		g.Close()
		st.check(t)
	})
}

func TestWrongContentEndsEveryReader(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	for _, at := range []int64{0, size / 2, size - 1} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			o := newOrigin(4, size)
			o.flip = at
			st := &store{}
			g := flight.New(st.options())
			var wg sync.WaitGroup
			for i := range 5 {
				wg.Go(func() {
					obj, _ := join(t, g, o, o.source(fmt.Sprint(i), fault{}))
					defer obj.Close()
					b, err := copyAll(t.Context(), obj, 0, size)
					var wrong *flight.MismatchError
					if !errors.As(err, &wrong) {
						t.Errorf("err = %v, want a mismatch", err)
						return
					}
					if wrong.Host != "cdn.example:443" {
						t.Errorf("evidence names host %q", wrong.Host)
					}
					if len(b) > size-64<<10 {
						t.Errorf("%d bytes left, the last 64 KiB were to be held back", len(b))
					}
				})
			}
			wg.Wait()
			g.Close()
			if len(st.committed) != 0 {
				t.Error("wrong content was committed")
			}
			st.check(t)
		})
	}
}

func TestSmallBlobIsVerifiedBeforeItsHeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // in real time, a machine that is busy for two seconds would pass for a slow upstream
		o := newOrigin(5, 1<<20)
		o.flip = 7
		st := &store{}
		g := flight.New(st.options())
		obj, _ := join(t, g, o, o.source("a", fault{}))
		var wrong *flight.MismatchError
		if err := obj.(*flight.Reader).Ready(t.Context(), 0, obj.Size()); !errors.As(err, &wrong) {
			t.Errorf("Ready: %v, want the mismatch", err)
		}
		_ = obj.Close()
		g.Close()
		st.check(t)
	})
}

// A range far ahead is fetched as aligned extents, and the fill does not fetch them again.
func TestRangeAhead(t *testing.T) {
	t.Parallel()
	const size, mib = 40 << 20, 1 << 20
	o := newOrigin(6, size)
	o.chunk = 256 << 10
	st := &store{}
	g := flight.New(st.options())
	gate := make(chan struct{})
	whole, _ := join(t, g, o, o.source("a", fault{gate: gate}))
	defer whole.Close()
	started := make(chan error, 1)
	go func() { started <- whole.(*flight.Reader).Ready(t.Context(), 0, size) }()
	if err := <-started; err != nil { // the source has agreed; the fill stands at byte 0, since its gate is closed
		t.Fatal(err)
	}
	probe, joined := join(t, g, o, o.source("b", fault{}))
	if !joined {
		t.Fatal("the probe did not join")
	}
	for _, r := range []struct{ off, n int64 }{{size - 2, 2}, {13 * mib, 2}, {13*mib + 500, 1000}, {20 * mib, 9 * mib}} {
		b, err := copyAll(t.Context(), probe, r.off, r.n)
		if err != nil || !bytes.Equal(b, o.content[r.off:r.off+r.n]) {
			t.Fatalf("range %d+%d: %d bytes, %v", r.off, r.n, len(b), err)
		}
	}
	_ = probe.Close()
	o.mu.Lock()
	got := slices.Clone(o.fetches[1:])
	o.mu.Unlock()
	want := [][2]int64{{36 * mib, 40 * mib}, {12 * mib, 16 * mib}, {20 * mib, 32 * mib}}
	for i, w := range got {
		if i >= len(want) || w.From != want[i][0] || w.To != want[i][1] {
			t.Errorf("fetch %d asked for [%d, %d), want %v", i, w.From, w.To, want)
		}
	}
	close(gate)
	b, err := copyAll(t.Context(), whole, 0, size)
	if err != nil || !bytes.Equal(b, o.content) {
		t.Fatalf("the whole: %d bytes, %v", len(b), err)
	}
	_ = whole.Close()
	g.Close()
	if n := o.total(); n > size+256<<10 { // bytes that were in transit when the fill was cut
		t.Errorf("%d bytes fetched of %d", n, size)
	}
	st.check(t)
}
