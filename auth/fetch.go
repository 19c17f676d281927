package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/text"
)

// afterFailure is how long a source that fails is left alone.
var afterFailure = backoff.Backoff{First: leastPause, Most: 2 * time.Minute}

// fetchCall is a fetch that runs.
type fetchCall struct {
	done    chan struct{}
	end     context.CancelFunc
	waiters int // callers that need its result; with none, it ends with Run
}

// start begins a fetch, or joins the one that runs. After Run no fetch begins in the background: then it is nil. The lock
// is held.
func (r *Refreshed) start(now time.Time, background bool) *fetchCall {
	if r.call != nil {
		return r.call
	}
	if background && r.stopped {
		return nil
	}
	// It belongs to all callers that wait for it, and to later ones: no client that leaves ends it.
	ctx, end := context.WithTimeoutCause(context.Background(), r.o.Timeout, timeoutError(r.o.Timeout))
	call := &fetchCall{done: make(chan struct{}), end: end}
	r.call = call
	pause := max(leastPause-now.Sub(r.attempted), 0)
	r.wg.Go(func() {
		defer end()
		backoff.Wait(ctx, pause)
		g, err := r.fetch(ctx)
		r.finish(call, g, err)
	})
	return call
}

// await waits for a fetch, for as long as wait says where it is not zero, and gives the result of that moment. The lock is
// held, and given up.
func (r *Refreshed) await(ctx context.Context, now time.Time, wait time.Duration) (Credential, error) {
	call := r.start(now, false)
	call.waiters++
	r.mu.Unlock()
	var late <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		late = timer.C
	}
	left := false
	select {
	case <-call.done:
	case <-late:
	case <-ctx.Done():
		left = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if call.waiters--; r.stopped {
		r.abandon()
	}
	c, err := r.give(time.Now())
	if err != nil && left {
		return Credential{}, fmt.Errorf("credential %s: %w", r.o.Name, context.Cause(ctx))
	}
	return c, err
}

// abandon ends a fetch that no caller waits for. The lock is held.
func (r *Refreshed) abandon() {
	if r.call != nil && r.call.waiters == 0 {
		r.call.end()
	}
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

// finish takes in the result of a fetch.
func (r *Refreshed) finish(call *fetchCall, g Grant, err error) {
	r.mu.Lock()
	now := time.Now()
	r.call, r.attempted = nil, now
	if r.stopped && err != nil && call.waiters == 0 { // perhaps abandon ended it
		close(call.done)
		r.mu.Unlock()
		return
	}
	if err != nil {
		r.fail(now, err)
	} else {
		r.accept(now, g)
	}
	close(call.done)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	r.o.Observe(r.o.Name, err)
}

// fail notes an attempt that failed. The lock is held.
func (r *Refreshed) fail(now time.Time, err error) {
	r.err = withoutSecrets(err, r.current)
	if r.failures++; r.failures == 1 {
		r.failingSince = now
	}
	pause := afterFailure.After(r.failures)
	if left := r.current.Expires.Sub(now); !r.current.Expires.IsZero() && left > 0 {
		pause = min(pause, max(left/4, leastPause)) // not so long that the last chance is missed
	}
	if e, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok {
		pause = max(pause, e.RetryAfter())
	}
	r.due = now.Add(backoff.Between(pause, pause+pause/5))
	r.warn(now)
}

// redactedError is an error of a source that repeated the secret which it gave before.
type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

// withoutSecrets is an error without the secrets of a credential: a program that fails may print them.
func withoutSecrets(err error, c Credential) error {
	shown := text.Hide(err.Error(), c.Secrets()...)
	if shown == err.Error() {
		return err
	}
	return &redactedError{shown, err}
}

// accept takes a credential into use. The lock is held.
func (r *Refreshed) accept(now time.Time, g Grant) {
	if r.logged > healthy {
		r.o.Log.Info("credential is renewed again", "credential", r.o.Name, "source", r.o.Kind, "host", r.o.For,
			"expires_at", g.Expires)
	}
	if r.received.IsZero() || r.failures > 0 {
		r.okSince = now
	}
	r.nextOnRefusal = time.Time{}
	if !r.received.IsZero() && r.same(g.Credential) {
		r.nextOnRefusal = now.Add(refusedPause)
	}
	r.current, r.received, r.err, r.failures, r.logged = g.Credential, now, nil, 0, healthy
	r.current.Name = r.o.Name
	hold := g.Hold
	r.staleAt = time.Time{}
	switch {
	case hold > 0:
		r.staleAt = now.Add(2 * hold)
	case !g.Expires.IsZero():
		hold = g.Expires.Sub(now) / 2
	default:
		hold = r.o.Lifetime / 2
		r.staleAt = now.Add(r.o.Lifetime)
	}
	if !g.Expires.IsZero() {
		hold = min(hold, g.Expires.Sub(now)*9/10)
	}
	// Up to a tenth earlier: many credentials that came at one start must not be renewed at one moment.
	r.due = now.Add(max(hold-rand.N(hold/10+1), leastPause))
}
