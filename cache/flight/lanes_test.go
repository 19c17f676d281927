package flight_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// A large blob, and how fast each connection brings it: alone in 160 ms. Small flights have parts of up to 1 MiB, and
// judge connections every 2.5 ms.
const (
	largeChunk = 4 << 10
	largeSize  = 3200 * largeChunk
	largeWait  = 50 * time.Microsecond
	largeAlone = largeSize / largeChunk * largeWait
)

// pullLarge pulls a large blob through a new group, and returns how long that took.
func pullLarge(t *testing.T, o *origin, change func(*flight.Options), sources ...flight.Source) time.Duration {
	t.Helper()
	st := &store{}
	opts := st.options()
	opts.ParallelAbove = 1 << 20
	if change != nil {
		change(&opts)
	}
	g := flight.New(opts)
	g.Small()
	start := time.Now()
	done := make(chan error, len(sources))
	for _, s := range sources {
		obj, _ := join(t, g, o, s)
		go func() {
			b, err := copyAll(t.Context(), obj, 0, largeSize)
			if err == nil && !bytes.Equal(b, o.content) {
				err = errors.New("other bytes")
			}
			_ = obj.Close()
			done <- err
		}()
	}
	for range sources {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	took := time.Since(start)
	g.Close()
	st.check(t)
	if n := o.total(); n != largeSize {
		t.Errorf("%d bytes fetched, want each of %d once", n, largeSize)
	}
	return took
}

func TestLanesMakeALargeBlobFaster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(40, largeSize)
		o.chunk = largeChunk
		took := pullLarge(t, o, nil, o.source("a", fault{wait: largeWait}), o.source("a", fault{wait: largeWait}))
		if took > largeAlone/2 {
			t.Errorf("it took %v with lanes, %v alone", took, largeAlone)
		}
		if n := o.most(); n != 8 {
			t.Errorf("%d connections at once, want 8", n)
		}
	})
}

// Where one connection fills the line, a second one only takes from it.
func TestLanesThatDoNotPayAreGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(41, largeSize)
		o.chunk = largeChunk
		line := make(chan struct{}, 1)
		s := change(o.source("a", fault{}), func(_ flight.Want, b flight.Body) flight.Body {
			return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
				line <- struct{}{}
				time.Sleep(largeWait)
				<-line
				return b.Read(p)
			}}
		})
		pullLarge(t, o, nil, s)
		if n := o.most(); n != 2 {
			t.Errorf("%d connections at once, want the one and one that was tried", n)
		}
		// The part before the lane, the lane's part, the part beside it, and the rest by one request.
		if n := o.count(); n > 5 {
			t.Errorf("%d requests", n)
		}
	})
}

// A host that accepts one connection refuses the second. No reader fails for that.
func TestLaneThatFails(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]int64{"at once": 0, "later": 300 << 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(42, largeSize)
				o.chunk = largeChunk
				s := o.source("a", fault{wait: largeWait})
				fetch, tried := s.Fetch, new(atomic.Int64)
				s.Fetch = func(ctx context.Context, w flight.Want) (flight.Body, error) {
					if w.Part {
						tried.Add(1)
					}
					if w.Part && at == 0 {
						return nil, errors.New("too many connections")
					}
					b, err := fetch(ctx, w)
					if w.Part && err == nil {
						b.(*body).f.cutAt = w.From + at
					}
					return b, err
				}
				pullLarge(t, o, nil, s)
				if n := tried.Load(); n != 1 {
					t.Errorf("%d lanes were tried, want 1", n)
				}
			})
		})
	}
}

// whole is a body of a source that does not support ranges.
type whole struct{ *body }

func (w whole) Extend() bool {
	w.to = largeSize
	return true
}

func TestSourceWithoutRangesSendsTheBlobOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(43, largeSize)
		o.chunk = largeChunk
		s := o.source("a", fault{wait: largeWait})
		fetch := s.Fetch
		s.Fetch = func(ctx context.Context, w flight.Want) (flight.Body, error) {
			b, err := fetch(ctx, w)
			return whole{b.(*body)}, err
		}
		pullLarge(t, o, nil, s)
		if n := o.count(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestLanesKeepToTheirHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(44, largeSize)
		o.chunk = largeChunk
		pullLarge(t, o, func(opts *flight.Options) { opts.LanesPerHost = 1 }, o.source("a", fault{wait: largeWait}))
		if n := o.most(); n != 2 {
			t.Errorf("%d connections at once, want 2", n)
		}
	})
}

// A small range far ahead does not wait for a part.
func TestRangeWithinALane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(45, largeSize)
		o.chunk = largeChunk
		st := &store{}
		opts := st.options()
		opts.ParallelAbove = 1 << 20
		g := flight.New(opts)
		g.Small()
		obj, _ := join(t, g, o, o.source("a", fault{wait: largeWait}))
		done := make(chan error, 1)
		go func() {
			_, err := copyAll(t.Context(), obj, 0, largeSize)
			_ = obj.Close()
			done <- err
		}()
		time.Sleep(largeAlone / 4) // lanes run
		for _, off := range []int64{largeSize - 100_000, largeSize / 2, largeSize/2 + 600<<10} {
			probe, _ := join(t, g, o, o.source("b", fault{wait: largeWait}))
			start := time.Now()
			b, err := copyAll(t.Context(), probe, off, 2)
			if err != nil || !bytes.Equal(b, o.content[off:off+2]) {
				t.Errorf("2 bytes at %d: %x, %v", off, b, err)
			}
			if took := time.Since(start); took > 70*largeWait { // an extent of 256 KiB
				t.Errorf("2 bytes at %d took %v", off, took)
			}
			_ = probe.Close()
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		g.Close()
		st.check(t)
	})
}
