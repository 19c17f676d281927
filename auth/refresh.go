package auth

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Grant is the result of a fetch: a credential, and when to fetch the next one.
type Grant struct {
	Credential
	// Hold is how long until it is fetched again. 0: half of the rest of its life, where that is known; else half of
	// Refresh.Lifetime.
	Hold time.Duration
}

// Refresh says how a credential that expires is kept fresh.
type Refresh struct {
	Name string // of the credential, for people
	Kind string // "ecr", "helper", ...
	For  string // the host, or the repository, that it is for

	// Fetch gets the credential anew. It is called once at a time, at most once a second, and ends soon after its context
	// does. An anonymous credential without an error means that there is none, for good reason. An error may have a
	// method RetryAfter() time.Duration.
	Fetch func(ctx context.Context) (Grant, error)
	// Lifetime is how long a credential counts as fresh that doesn't say when it expires. 0: an hour.
	Lifetime time.Duration
	// Timeout bounds a fetch. 0: 30 s.
	Timeout time.Duration

	Log *slog.Logger // nil: discard
	// Observe is called after every fetch, from any goroutine, with the name of the credential. Nil: nothing is.
	Observe func(name string, err error)
}

const (
	defaultLifetime = time.Hour
	defaultTimeout  = 30 * time.Second
	// leastPause is the shortest time between two fetches.
	leastPause = time.Second
	// refusedPause is how long a refusal fetches nothing after a refused credential has come again: a wrong password is
	// asked for once, not with every pull.
	refusedPause = 30 * time.Second
	// patience is how long a request waits for another attempt of a source that has failed. Cached and public content must
	// not wait for a cloud that hangs.
	patience = 2 * time.Second
)

// Refreshed is the source of a credential that is fetched ahead of its end. Make it by NewRefreshed.
//
//	fresh ──half of its life, with jitter──► due: the old one is given out, one fetch runs meanwhile
//	  ▲                                        │
//	  └──────────────────── fetched ◄──────────┤
//	                                           └─ failed: again after 1 s, 2 s, ... 2 min; the old one is given out
//	                                              until it really expires, then the error
//
// Its methods are safe for concurrent use. A renewal does no harm to a running pull, which has the credential by value.
type Refreshed struct {
	o Refresh

	wake chan struct{} // tells Run that something has changed
	wg   sync.WaitGroup

	mu       sync.Mutex // guards what follows; a leaf
	stopped  bool       // Run has ended: no fetch begins in the background any more
	current  Credential
	received time.Time  // when current was fetched; zero: never
	due      time.Time  // when to fetch again
	staleAt  time.Time  // when current no longer counts as fresh, though it may work; zero: at its end
	call     *fetchCall // the fetch that runs; nil: none does

	err           error     // of the last attempt
	failures      int       // attempts in a row that failed
	attempted     time.Time // when the last attempt ended
	okSince       time.Time // when attempts began to succeed; zero: none has
	failingSince  time.Time // when attempts began to fail; it counts while err is set
	nextOnRefusal time.Time // no fetch because of a refusal before this; zero: at once
	logged        severity  // of the renewal's trouble, as far as it was logged
}

// NewRefreshed makes the source. Nothing is fetched yet.
func NewRefreshed(o Refresh) *Refreshed {
	if o.Lifetime <= 0 {
		o.Lifetime = defaultLifetime
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Observe == nil {
		o.Observe = func(string, error) {}
	}
	return &Refreshed{o: o, wake: make(chan struct{}, 1)}
}

// Credential gives the current credential while that is fresh, and fetches it where there is none. Its error says why there
// is none.
func (r *Refreshed) Credential(ctx context.Context) (Credential, error) {
	r.mu.Lock()
	now := time.Now()
	switch {
	case r.fresh(now):
		if !now.Before(r.due) {
			r.start(now, true)
		}
		defer r.mu.Unlock()
		return r.current, nil
	case r.failures > 0 && now.Before(r.due) && r.call == nil:
		defer r.mu.Unlock()
		return r.give(now)
	}
	var wait time.Duration
	if r.failures > 0 {
		wait = patience
	}
	return r.await(ctx, now, wait)
}

// Renew fetches again, unless the current credential is another one than the refused, or has come back after a refusal
// lately.
func (r *Refreshed) Renew(ctx context.Context, refused Credential) (Credential, error) {
	r.mu.Lock()
	now := time.Now()
	if r.call == nil && (!r.same(refused) || now.Before(r.nextOnRefusal) || r.failures > 0 && now.Before(r.due)) {
		defer r.mu.Unlock()
		return r.give(now)
	}
	return r.await(ctx, now, 0)
}

// Run fetches ahead of time until the context ends.
func (r *Refreshed) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-r.wake:
		case <-ctx.Done():
			r.mu.Lock()
			r.stopped = true
			r.abandon()
			r.mu.Unlock()
			r.wg.Wait()
			return nil
		}
		r.mu.Lock()
		now := time.Now()
		if !now.Before(r.due) {
			r.start(now, true)
		}
		next := r.due
		if r.call != nil {
			next = now.Add(r.o.Timeout) // its end wakes us
		}
		if r.err != nil {
			r.warn(now)
			for _, t := range []time.Time{r.urgentAt(), r.current.Expires} {
				if t.After(now) && t.Before(next) {
					next = t
				}
			}
		}
		r.mu.Unlock()
		timer.Reset(max(time.Until(next), time.Millisecond))
	}
}

// Status says how the credential is. It fetches nothing.
func (r *Refreshed) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	s := Status{
		Name: r.o.Name, Kind: r.o.Kind, For: r.o.For, State: StateOK, Since: r.okSince, Expires: r.current.Expires,
		LastRefresh: r.received,
	}
	if r.err != nil {
		s.LastError, s.LastErrorAt, s.Since = r.err.Error(), r.attempted, r.failingSince
	}
	switch {
	case r.received.IsZero() && r.err == nil:
		s.State = StateUnknown
	case r.current.expired(now):
		s.State, s.Since = StateExpired, r.current.Expires
	case r.err == nil:
	case !r.received.IsZero() && !r.current.Expires.IsZero():
		s.State = StateExpiring
	default:
		s.State = StateFailing
	}
	return s
}

// fresh reports whether the current credential may be given out without a fetch. The lock is held.
func (r *Refreshed) fresh(now time.Time) bool {
	if r.received.IsZero() || r.current.expired(now) {
		return false
	}
	return r.staleAt.IsZero() || now.Before(r.staleAt) || r.failures > 0 && now.Before(r.due)
}

// give is the result for a caller that can't wait: the current credential while it has not expired, else why there is none.
// The lock is held.
func (r *Refreshed) give(now time.Time) (Credential, error) {
	switch {
	case !r.received.IsZero() && !r.current.expired(now):
		return r.current, nil
	case r.err != nil && !r.current.Expires.IsZero():
		return Credential{}, fmt.Errorf("credential %s expired at %s and can't be renewed: %w", r.o.Name,
			r.current.Expires.UTC().Format(time.RFC3339), r.err)
	case r.err != nil:
		return Credential{}, fmt.Errorf("credential %s: %w", r.o.Name, r.err)
	}
	return Credential{}, fmt.Errorf("credential %s: it has not come yet", r.o.Name)
}

// same reports whether a credential is the current one. The lock is held.
func (r *Refreshed) same(c Credential) bool {
	return c.Username == r.current.Username && c.Password == r.current.Password && c.Identity == r.current.Identity
}
