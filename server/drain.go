package server

import (
	"context"
	"hash/maphash"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/oci"
)

const (
	// pullGap is the longest time between two requests of one pull: when the mirror stops, a pull has ended that long after
	// its last answer. containerd asks for the next layer at once.
	pullGap = 3 * time.Second
	// maxActivePulls bounds the tracked pulls in each shard. Requests of further pulls are served, and refused once the mirror
	// stops.
	maxActivePulls = 512
)

// activePulls are the pulls under way: while the mirror stops they continue, and no other begins. A pull is identified by
// client and repository, and ends pullGap after its last answer: the journal, which counts pulls for operators, tells images
// apart and waits longer. It is safe for concurrent use.
type activePulls struct {
	seed   maphash.Seed
	shards [16]pulls
}

type pulls struct {
	mu   sync.Mutex // guards open; a leaf
	open map[pullKey]pullState
}

type pullKey struct {
	client string
	repo   oci.Repo
}

type pullState struct {
	requests int       // that are being answered
	last     time.Time // end of the last request
}

// ended reports whether no further request of the pull is expected.
func (p pullState) ended(now time.Time) bool { return p.requests == 0 && now.Sub(p.last) >= pullGap }

func newActivePulls() *activePulls {
	u := &activePulls{seed: maphash.MakeSeed()}
	for i := range u.shards {
		u.shards[i].open = make(map[pullKey]pullState)
	}
	return u
}

func (u *activePulls) shard(k pullKey) *pulls {
	return &u.shards[maphash.Comparable(u.seed, k)%uint64(len(u.shards))]
}

// begin notes a request. Not ok: its pull was not under way, and no other begins while the mirror stops. tracked: the caller must
// call end.
func (u *activePulls) begin(k pullKey, now time.Time, draining bool) (ok, tracked bool) {
	s := u.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, open := s.open[k]
	if draining && (!open || p.ended(now)) {
		return false, false
	}
	if !open && len(s.open) >= maxActivePulls {
		maps.DeleteFunc(s.open, func(_ pullKey, p pullState) bool { return p.ended(now) })
		if len(s.open) >= maxActivePulls {
			return true, false
		}
	}
	p.requests++
	s.open[k] = p
	return true, true
}

// end notes that a request was answered.
func (u *activePulls) end(k pullKey, now time.Time) {
	s := u.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.open[k]
	p.requests, p.last = p.requests-1, now
	s.open[k] = p
}

// remaining is the time until all pulls without a request have ended. Zero: there are none.
func (u *activePulls) remaining(now time.Time) (d time.Duration) {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		for _, p := range s.open {
			if p.requests == 0 {
				d = max(d, pullGap-now.Sub(p.last))
			}
		}
		s.mu.Unlock()
	}
	return d
}

// Stop ends service without breaking pulls: readiness goes first; after notice the pulls under way are served to their end, and
// no other begins; then the listeners of the servers are closed. When ctx ends before that, the remaining connections are
// closed, and the context's cause is returned.
func (s *Server) Stop(ctx context.Context, notice time.Duration, servers ...*http.Server) error {
	s.stopping.Store(true)
	for _, h := range servers {
		h.SetKeepAlivesEnabled(false) // clients that return find another replica, or wait for the next process
	}
	backoff.Wait(ctx, notice)
	s.draining.Store(true)
	for ctx.Err() == nil {
		if s.Wait(ctx) != nil {
			break
		}
		remaining := s.pulls.remaining(time.Now())
		if remaining <= 0 {
			break
		}
		backoff.Wait(ctx, remaining)
	}
	var err error
	for _, h := range servers {
		if e := h.Shutdown(ctx); e != nil && err == nil {
			err = context.Cause(ctx)
		}
	}
	if e := s.Wait(ctx); e != nil && err == nil {
		err = e
	}
	if err != nil {
		for _, h := range servers {
			_ = h.Close()
		}
	}
	return err
}

// tracker counts requests, and reports when there are none. It is not a sync.WaitGroup, since requests may begin during a
// wait.
type tracker struct {
	mu   sync.Mutex // guards the fields below
	n    int
	idle chan struct{} // closed when n becomes 0; nil: no call of wait needs it
}

func (t *tracker) add() {
	t.mu.Lock()
	t.n++
	t.mu.Unlock()
}

func (t *tracker) done() {
	t.mu.Lock()
	if t.n--; t.n == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
	t.mu.Unlock()
}

func (t *tracker) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *tracker) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}
