package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// upstreamFake is a registry from which large blobs are pulled one after another, each a new one.
type upstreamFake struct {
	t      *testing.T
	g      *flight.Group
	st     *store
	seed   uint64
	name   string
	most   int   // connections that it accepts; 0: any number
	busy   error // by which it refuses more; nil: one of its own
	shared bool  // all connections together are as fast as one
	work   bool  // blobs are pulled by background work, which reads none of them

	refused atomic.Int64
}

// pulled is what a pull took of the upstream.
type pulled struct {
	took     time.Duration
	requests int
	peak     int // connections at once
	refused  int64
}

func newUpstream(t *testing.T, seed uint64) *upstreamFake {
	u := &upstreamFake{t: t, st: &store{}, seed: seed, name: "registry.example"}
	opts := u.st.options()
	opts.ParallelAbove = 1 << 20
	u.g = flight.New(opts)
	u.g.Small()
	return u
}

func (u *upstreamFake) close() {
	u.g.Close()
	u.st.check(u.t)
}

// pull pulls a new blob.
func (u *upstreamFake) pull() pulled {
	u.t.Helper()
	u.seed++
	o := newOrigin(u.seed, largeSize)
	o.chunk = largeChunk
	line := make(chan struct{}, 1)
	s := o.source("a", fault{})
	if u.work {
		s = o.background("a", fault{})
	}
	s.Upstream = u.name
	fetch := s.Fetch
	s.Fetch = func(ctx context.Context, w flight.Want) (flight.Body, error) {
		o.mu.Lock()
		full := u.most > 0 && o.open >= u.most
		o.mu.Unlock()
		if full {
			u.refused.Add(1)
			return nil, fmt.Errorf("429 Too Many Requests: %w", u.busy)
		}
		b, err := fetch(ctx, w)
		if err != nil {
			return nil, err
		}
		return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
			if u.shared {
				line <- struct{}{}
				defer func() { <-line }()
			}
			time.Sleep(largeWait)
			return b.Read(p)
		}}, nil
	}
	u.refused.Store(0)
	start := time.Now()
	obj, _ := join(u.t, u.g, o, s)
	if u.work {
		if err := <-stored(u.t.Context(), obj, func(int64) {}); err != nil {
			u.t.Error(err)
		}
	} else if b, err := copyAll(u.t.Context(), obj, 0, largeSize); err != nil || !bytes.Equal(b, o.content) {
		u.t.Errorf("%d bytes of %d, %v", len(b), largeSize, err)
	}
	took := time.Since(start)
	_ = obj.Close()
	synctest.Wait()
	if n := o.total(); n != largeSize {
		u.t.Errorf("%d bytes fetched, want each of %d once", n, largeSize)
	}
	return pulled{took: took, requests: o.count(), peak: o.most(), refused: u.refused.Load()}
}

func TestProvenConnectionsAreUsedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(t, 60)
		defer u.close()
		first, second := u.pull(), u.pull()
		if first.took > largeAlone/2 || first.peak != 8 {
			t.Errorf("the first blob took %v by up to %d connections, alone it takes %v", first.took, first.peak, largeAlone)
		}
		if second.took > largeAlone/6 || second.peak != 8 {
			t.Errorf("the second blob took %v by up to %d connections, the first %v", second.took, second.peak, first.took)
		}
		// Of 12.5 MiB, parts of 1 MiB at most and 256 KiB at least.
		if second.requests > 40 {
			t.Errorf("%d requests for the second blob", second.requests)
		}
		time.Sleep(time.Hour)
		if third := u.pull(); third.took < first.took*9/10 {
			t.Errorf("after an hour a blob took %v: it did not begin by one connection", third.took)
		}
	})
}

func TestProvenConnectionsAreThoseOfTheUpstream(t *testing.T) {
	t.Parallel()
	for _, other := range []string{"", "other.example"} {
		synctest.Test(t, func(t *testing.T) {
			u := newUpstream(t, 64)
			defer u.close()
			first := u.pull()
			u.name = other
			if second := u.pull(); second.took != first.took {
				t.Errorf("%q: a blob took %v, and %v by an upstream that is not known", other, second.took, first.took)
			}
		})
	}
}

// An upstream that refuses connections gets no more of them, until some time has passed.
func TestRefusedConnectionsAreRemembered(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 3, 4, 5} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream(t, 70)
				defer u.close()
				u.most, u.busy = most, errors.New("too many connections")
				first := u.pull()
				if first.refused == 0 || first.refused > 4 || first.peak != most {
					t.Errorf("first: %+v", first)
				}
				second := u.pull()
				if second.refused != 0 || second.peak != most {
					t.Errorf("second: %+v", second)
				}
				if most == 1 && second.requests != 1 {
					t.Errorf("%d requests of an upstream that accepts one connection, want the whole blob by one", second.requests)
				}
				time.Sleep(10 * time.Minute)
				if third := u.pull(); third.refused == 0 {
					t.Errorf("after ten minutes no other connection was tried: %+v", third)
				}
			})
		})
	}
}

// That the mirror itself has no turn for a part says nothing about the upstream.
func TestBusyIsNotRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(t, 74)
		defer u.close()
		u.most, u.busy = 2, flight.ErrBusy
		u.pull()
		u.most = 0
		if second := u.pull(); second.peak != 8 {
			t.Errorf("%+v", second)
		}
	})
}

// A line that one connection fills is not tried again with two for the next blob.
func TestConnectionsThatDoNotPayAreRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(t, 76)
		defer u.close()
		u.shared = true
		first, second := u.pull(), u.pull()
		if first.peak != 2 {
			t.Errorf("first: %+v, want one connection and one that was tried", first)
		}
		if second.peak != 1 || second.requests != 1 {
			t.Errorf("second: %+v, want one request", second)
		}
	})
}
