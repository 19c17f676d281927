package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth/internal/clean"
)

// Grant is what a fetch gave: a credential, and when to ask for the next one.
type Grant struct {
	Credential
	// Hold is how long until it is fetched again. 0: half of what is left of its life, where that is known; else half of
	// Refresh.Lifetime.
	Hold time.Duration
}

// Refresh says how a credential that doesn't last is kept fresh.
type Refresh struct {
	Name string // of the credential, for people
	Kind string // "ecr", "helper", ...
	For  string // what it is for: a host

	// Fetch gets the credential anew. It is called once at a time, at most once a second, and ends soon after its context
	// does. An anonymous credential without an error means that there is none, for good reason. An error may have a
	// method RetryAfter() time.Duration.
	Fetch func(ctx context.Context) (Grant, error)
	// Lifetime is how long a credential is taken for fresh that doesn't say when it expires. 0: an hour.
	Lifetime time.Duration
	// Timeout bounds a fetch. 0: 30 s.
	Timeout time.Duration

	Log *slog.Logger // nil: discard
	// Observe is told of every fetch once it is over, from any goroutine. Nil: nobody.
	Observe func(Fetched)
}

// Fetched is one attempt to get a credential, for metrics.
type Fetched struct {
	Name string
	Kind string
	Took time.Duration
	Err  error // nil: it worked
}

// Renewer is a Source that can get another credential before the time of the one that it has is over.
type Renewer interface {
	Source
	// Renew says that a credential was refused and gives the one to try next. Where there is none, it is the refused one
	// again: the caller goes on as nobody. Many may call it at once.
	Renew(ctx context.Context, refused Credential) (Credential, error)
}

// Renew asks a source for something better than a credential that was refused. See Renewer.
func Renew(ctx context.Context, s Source, refused Credential) (Credential, error) {
	if r, ok := s.(Renewer); ok {
		return r.Renew(ctx, refused)
	}
	return s.Credential(ctx)
}

// Runner is a Source with work of its own in the background, which keeps its credential fresh. It gives credentials
// without it too, but they are then fetched when they are needed.
type Runner interface {
	Source
	// Run works until the context ends. It is called once at most.
	Run(ctx context.Context) error
}

// Run does the background work of a source that has any, else returns at once.
func Run(ctx context.Context, s Source) error {
	if r, ok := s.(Runner); ok {
		return r.Run(ctx)
	}
	return nil
}

// Scoped is a Source whose credential depends on the repository.
type Scoped interface {
	Source
	// For is the source of one repository. Sources of repositories that share a credential may be one.
	For(repository string) Source
}

// For is the source of a repository, which is the source itself unless it is Scoped.
func For(s Source, repository string) Source {
	if sc, ok := s.(Scoped); ok {
		return sc.For(repository)
	}
	return s
}

const (
	defaultLifetime = time.Hour
	defaultTimeout  = 30 * time.Second
	// leastPause is how close two fetches may come to each other.
	leastPause = time.Second
	// mostPause is how long a source that fails is left alone.
	mostPause = 2 * time.Minute
	// refusedPause is how long nothing is fetched on account of a refusal after a refused credential came again: a wrong
	// password is asked for once, not with every pull.
	refusedPause = 30 * time.Second
	// patience is how long somebody waits for another attempt of a source that has failed. What is cached, and what is
	// public, must not wait for a cloud that hangs.
	patience = 2 * time.Second
	// hurtsIn is how long before its end a credential that can't be renewed is an emergency, or a quarter of its life
	// where that is less.
	hurtsIn = 15 * time.Minute
)

// Refreshed is the source of a credential that is fetched ahead of its end. Make it by NewRefreshed.
//
//	fresh ──half of its life, with jitter──► due: the old one is given out, one fetch runs meanwhile
//	  ▲                                        │
//	  └──────────────────── fetched ◄──────────┤
//	                                           └─ failed: again after 1 s, 2 s, ... 2 min; the old one is given out
//	                                              until it really expires, then the error
//
// Its methods are safe for concurrent use. A running pull is not hurt by a renewal: it has the credential by value.
type Refreshed struct {
	o Refresh

	wake chan struct{} // of Run: something has changed
	wg   sync.WaitGroup

	mu      sync.Mutex // guards what follows; a leaf
	ended   bool       // Run is over: nothing more happens in the background
	have    Credential
	fetched time.Time // when have came; zero: nothing did
	due     time.Time // when to fetch again
	over    time.Time // when have is no longer taken for fresh, though it may work; zero: at its end
	err     error     // of the last attempt
	failed  int       // attempts in vain since the last good one
	tried   time.Time // when the last attempt ended
	good    time.Time // when attempts began to succeed; zero: none did
	bad     time.Time // when attempts began to fail; it counts while err is set
	again   time.Time // no fetch on account of a refusal before; zero: at once
	told    trouble
	call    *refreshCall // nil: none runs
}

// trouble is how bad it is, as the log has been told.
type trouble int

const (
	fine trouble = iota
	troubled
	urgent
	hurting
)

type refreshCall struct {
	done    chan struct{}
	end     context.CancelFunc
	waiters int // who needs what it brings; with none, it ends with Run
}

// NewRefreshed makes the source. It asks nobody yet.
func NewRefreshed(o Refresh) *Refreshed {
	if o.Lifetime <= 0 {
		o.Lifetime = defaultLifetime
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(Fetched) {}
	}
	return &Refreshed{o: o, wake: make(chan struct{}, 1)}
}

// Credential gives what it has while that is good, and fetches where there is nothing. Its error says why there is none.
func (r *Refreshed) Credential(ctx context.Context) (Credential, error) {
	r.mu.Lock()
	now := time.Now()
	switch {
	case r.fresh(now):
		if !now.Before(r.due) {
			r.start(now, true)
		}
		defer r.mu.Unlock()
		return r.have, nil
	case r.failed > 0 && now.Before(r.due) && r.call == nil:
		defer r.mu.Unlock()
		return r.give(now)
	}
	wait := time.Duration(0)
	if r.failed > 0 {
		wait = patience
	}
	call := r.start(now, false)
	call.waiters++
	r.mu.Unlock()
	return r.await(ctx, call, wait)
}

// Renew fetches again, unless what it has is another credential than the refused one, or that came back lately.
func (r *Refreshed) Renew(ctx context.Context, refused Credential) (Credential, error) {
	r.mu.Lock()
	now := time.Now()
	if r.call == nil && (!r.same(refused) || now.Before(r.again) || r.failed > 0 && now.Before(r.due)) {
		defer r.mu.Unlock()
		return r.give(now)
	}
	call := r.start(now, false)
	call.waiters++
	r.mu.Unlock()
	return r.await(ctx, call, 0)
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
			r.ended = true
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
			next = now.Add(r.o.Timeout) // it wakes us when it is over
		}
		if r.err != nil {
			r.warn(now)
			for _, t := range []time.Time{r.hurts(), r.have.Expires} {
				if t.After(now) && t.Before(next) {
					next = t
				}
			}
		}
		r.mu.Unlock()
		timer.Reset(max(time.Until(next), time.Millisecond))
	}
}

// Status says how the credential is. It asks nobody.
func (r *Refreshed) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	s := Status{
		Name: r.o.Name, Kind: r.o.Kind, For: r.o.For, State: StateOK, Expires: r.have.Expires, LastRefresh: r.fetched,
	}
	s.Since = r.good
	if r.err != nil {
		s.LastError, s.LastErrorAt, s.Since = r.err.Error(), r.tried, r.bad
	}
	expired := !r.have.Expires.IsZero() && !now.Before(r.have.Expires)
	switch {
	case r.fetched.IsZero() && r.err == nil:
		s.State = StateUnknown
	case expired:
		s.State, s.Since = StateExpired, r.have.Expires
	case r.err == nil:
	case !r.fetched.IsZero() && !r.have.Expires.IsZero():
		s.State = StateExpiring
	default:
		s.State = StateFailing
	}
	return s
}

// fresh reports whether what there is may be given out without asking. The lock is held.
func (r *Refreshed) fresh(now time.Time) bool {
	if r.fetched.IsZero() || !r.have.Expires.IsZero() && !now.Before(r.have.Expires) {
		return false
	}
	return r.over.IsZero() || now.Before(r.over) || r.failed > 0 && now.Before(r.due)
}

// give is what there is for somebody who can't wait: the credential while it has not expired, else why there is none.
// The lock is held.
func (r *Refreshed) give(now time.Time) (Credential, error) {
	switch {
	case !r.fetched.IsZero() && (r.have.Expires.IsZero() || now.Before(r.have.Expires)):
		return r.have, nil
	case r.err != nil && !r.have.Expires.IsZero():
		return Credential{}, fmt.Errorf("credential %s expired at %s and can't be renewed: %w", r.o.Name,
			r.have.Expires.UTC().Format(time.RFC3339), r.err)
	case r.err != nil:
		return Credential{}, fmt.Errorf("credential %s: %w", r.o.Name, r.err)
	}
	return Credential{}, fmt.Errorf("credential %s: it has not come yet", r.o.Name)
}

// same reports whether a credential is the one there is. The lock is held.
func (r *Refreshed) same(c Credential) bool {
	return c.Username == r.have.Username && c.Password == r.have.Password && c.Identity == r.have.Identity
}

// await waits for a fetch, for as long as wait says where it is not zero, and gives what there is then.
func (r *Refreshed) await(ctx context.Context, call *refreshCall, wait time.Duration) (Credential, error) {
	var late <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-call.done:
	case <-late:
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		r.leave(call)
		if c, err := r.give(time.Now()); err == nil {
			return c, nil
		}
		return Credential{}, fmt.Errorf("credential %s: %w", r.o.Name, context.Cause(ctx))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave(call)
	return r.give(time.Now())
}

// leave notes that somebody no longer waits. The lock is held.
func (r *Refreshed) leave(call *refreshCall) {
	call.waiters--
	if r.ended {
		r.abandon()
	}
}

// abandon ends a fetch that nobody waits for. The lock is held.
func (r *Refreshed) abandon() {
	if r.call != nil && r.call.waiters == 0 {
		r.call.end()
	}
}

// start begins a fetch, or joins the one that runs. One in the background may not begin any more: then it is nil. The
// lock is held.
func (r *Refreshed) start(now time.Time, back bool) *refreshCall {
	if r.call != nil {
		return r.call
	}
	if back && r.ended {
		return nil
	}
	// It belongs to all who wait for it, and to those who come later: no client's leaving ends it.
	ctx, end := context.WithTimeoutCause(context.Background(), r.o.Timeout, timeoutError(r.o.Timeout))
	call := &refreshCall{done: make(chan struct{}), end: end}
	r.call = call
	pause := max(leastPause-now.Sub(r.tried), 0)
	r.wg.Go(func() {
		defer end()
		if pause > 0 { // at most once a second, whoever asks
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
		begun := time.Now()
		g, err := r.fetch(ctx)
		r.finish(call, g, err, time.Since(begun))
	})
	return call
}

type timeoutError time.Duration

func (e timeoutError) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(e)) }
func (e timeoutError) Timeout() bool { return true }

func (r *Refreshed) fetch(ctx context.Context) (Grant, error) {
	if err := context.Cause(ctx); err != nil {
		return Grant{}, err
	}
	g, err := r.o.Fetch(ctx)
	if err == nil && !g.Expires.IsZero() && !time.Now().Before(g.Expires) {
		return Grant{}, fmt.Errorf("what came had expired at %s; is the clock right?", g.Expires.UTC().Format(time.RFC3339))
	}
	return g, err
}

// finish takes in how a fetch ended.
func (r *Refreshed) finish(call *refreshCall, g Grant, err error, took time.Duration) {
	r.mu.Lock()
	now := time.Now()
	r.call, r.tried = nil, now
	if r.ended && err != nil && call.waiters == 0 { // perhaps we ended it
		close(call.done)
		r.mu.Unlock()
		return
	}
	if err != nil {
		r.fail(now, err)
	} else {
		r.take(now, g)
	}
	close(call.done)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	r.o.Observe(Fetched{Name: r.o.Name, Kind: r.o.Kind, Took: took, Err: err})
}

// fail notes an attempt in vain. The lock is held.
func (r *Refreshed) fail(now time.Time, err error) {
	r.err = untold(err, r.have)
	pause := min(leastPause<<min(r.failed, 10), mostPause)
	if left := r.have.Expires.Sub(now); !r.fetched.IsZero() && !r.have.Expires.IsZero() && left > 0 {
		pause = min(pause, max(left/4, leastPause)) // not so long that the last chance is missed
	}
	if e, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok {
		pause = max(pause, e.RetryAfter())
	}
	if r.failed++; r.failed == 1 {
		r.bad = now
	}
	// Up to a fifth later: a fleet of mirrors must not come back at one moment.
	r.due = now.Add(pause + rand.N(pause/5+1))
	r.warn(now)
}

// repeated is an error of a source that has repeated the secret which it gave before.
type repeated struct {
	text string
	err  error
}

func (e *repeated) Error() string { return e.text }
func (e *repeated) Unwrap() error { return e.err }

// untold is an error without the secrets of a credential: a program that fails may print what it knows.
func untold(err error, c Credential) error {
	login := base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password.Reveal()))
	text := clean.Redact(err.Error(), c.Password.Reveal(), c.Identity.Reveal(), login)
	if text == err.Error() {
		return err
	}
	return &repeated{text, err}
}

// take takes a credential into use. The lock is held.
func (r *Refreshed) take(now time.Time, g Grant) {
	if r.told > fine {
		r.o.Log.Info("credential is renewed again", "credential", r.o.Name, "kind", r.o.Kind, "for", r.o.For,
			"expires", g.Expires)
	}
	if r.fetched.IsZero() || r.failed > 0 {
		r.good = now
	}
	r.again = time.Time{}
	if !r.fetched.IsZero() && r.same(g.Credential) {
		r.again = now.Add(refusedPause)
	}
	r.have, r.fetched, r.err, r.failed, r.told = g.Credential, now, nil, 0, fine
	r.have.Name = r.o.Name
	hold := g.Hold
	r.over = time.Time{}
	switch {
	case hold > 0:
		r.over = now.Add(2 * hold)
	case !g.Expires.IsZero():
		hold = g.Expires.Sub(now) / 2
	default:
		hold = r.o.Lifetime / 2
		r.over = now.Add(r.o.Lifetime)
	}
	if !g.Expires.IsZero() {
		hold = min(hold, g.Expires.Sub(now)*9/10)
	}
	// Up to a tenth earlier: many credentials that came at one start must not be renewed at one moment.
	r.due = now.Add(max(hold-rand.N(hold/10+1), leastPause))
}

// hurts is when a credential that can't be renewed is an emergency. The lock is held.
func (r *Refreshed) hurts() time.Time {
	if r.fetched.IsZero() || r.have.Expires.IsZero() {
		return time.Time{}
	}
	return r.have.Expires.Add(-min(hurtsIn, r.have.Expires.Sub(r.fetched)/4))
}

// warn tells the log of a renewal that fails: at once, when it begins to be urgent, and when it hurts. The lock is held.
func (r *Refreshed) warn(now time.Time) {
	how := troubled
	expires := r.have.Expires
	switch {
	case r.fetched.IsZero(), !expires.IsZero() && !now.Before(expires):
		how = hurting
	case !expires.IsZero() && !now.Before(r.hurts()):
		how = urgent
	}
	if how <= r.told {
		return
	}
	r.told = how
	log := r.o.Log.With("credential", r.o.Name, "kind", r.o.Kind, "for", r.o.For, "err", r.err)
	switch {
	case how == hurting && r.fetched.IsZero():
		log.Error("credential can't be fetched: only public images are pulled until it can")
	case how == hurting:
		log.Error("credential has expired and can't be renewed: only public images are pulled until it can",
			"expired", expires)
	case how == urgent:
		log.Error("credential expires soon and can't be renewed: repair where it comes from before private images "+
			"can't be pulled", "expires", expires, "left", expires.Sub(now).Round(time.Second))
	case expires.IsZero():
		log.Warn("credential was not renewed: the old one stays in use")
	default:
		log.Warn("credential was not renewed: the old one stays in use until it expires", "expires", expires)
	}
}
