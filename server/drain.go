package server

import (
	"context"
	"hash/maphash"
	"net/http"
	"sync"
	"time"

	"github.com/registrymirror/mirror/oci"
)

const (
	// pause is how long a client takes between two requests of one pull at most: when the mirror stops, a pull is over
	// that long after its last answer. containerd asks for the next layer at once.
	pause = 3 * time.Second
	// maxUnderWay bounds the pulls that are tracked, in each of the shards. Requests beyond are served, and refused once the
	// mirror stops.
	maxUnderWay = 512
)

// underWay is the pulls of clients that are under way: while the mirror stops these go on, and no other begins. A pull is
// told by client and repository. It is safe for concurrent use.
type underWay struct {
	seed   maphash.Seed
	shards [16]pulls
}

type pulls struct {
	mu   sync.Mutex // guards what follows; a leaf
	open map[pullKey]pullState
}

type pullKey struct {
	client string
	repo   oci.Repo
}

type pullState struct {
	requests int       // being answered
	last     time.Time // end of the last one
}

// over reports whether no further request of the pull is expected.
func (p pullState) over(now time.Time) bool { return p.requests == 0 && now.Sub(p.last) >= pause }

func newUnderWay() *underWay {
	u := &underWay{seed: maphash.MakeSeed()}
	for i := range u.shards {
		u.shards[i].open = make(map[pullKey]pullState)
	}
	return u
}

func (u *underWay) shard(k pullKey) *pulls {
	return &u.shards[maphash.Comparable(u.seed, k)%uint64(len(u.shards))]
}

// begin notes a request. known reports whether its pull was under way; tracked, that end must follow.
func (u *underWay) begin(k pullKey, now time.Time) (known, tracked bool) {
	s := u.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.open[k]
	known = ok && !p.over(now)
	if !ok && len(s.open) >= maxUnderWay {
		for k, p := range s.open {
			if p.over(now) {
				delete(s.open, k)
			}
		}
		if len(s.open) >= maxUnderWay {
			return false, false
		}
	}
	p.requests++
	s.open[k] = p
	return known, true
}

// end notes that a request was answered.
func (u *underWay) end(k pullKey, now time.Time) {
	s := u.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.open[k]
	p.requests, p.last = p.requests-1, now
	s.open[k] = p
}

// forget takes a request back whose pull is not to go on.
func (u *underWay) forget(k pullKey) {
	s := u.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.open[k]; p.requests > 1 {
		p.requests--
		s.open[k] = p
		return
	}
	delete(s.open, k)
}

// left is how long it takes until all pulls are over that have no request being answered. Zero: there are none.
func (u *underWay) left(now time.Time) (d time.Duration) {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		for _, p := range s.open {
			if p.requests == 0 {
				d = max(d, pause-now.Sub(p.last))
			}
		}
		s.mu.Unlock()
	}
	return d
}

// Stop ends service without breaking what runs: readiness goes first; after notice the clients that have a pull under way are
// served until that is over, and no other is; then the listeners of the servers are closed. When ctx ends before that, what still
// runs is cut, and the context's cause returned.
func (s *Server) Stop(ctx context.Context, notice time.Duration, servers ...*http.Server) error {
	s.stopping.Store(true)
	for _, h := range servers {
		h.SetKeepAlivesEnabled(false) // clients that come back find another replica, or wait for the next process
	}
	sleep(ctx, notice)
	s.draining.Store(true)
	for ctx.Err() == nil {
		if s.Wait(ctx) != nil {
			break
		}
		left := s.pulls.left(time.Now())
		if left <= 0 {
			break
		}
		sleep(ctx, left)
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

// sleep waits for a time, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
