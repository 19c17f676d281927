package login

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/internal/coalesce"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// tokenKey says what a token is for, and whose it is.
type tokenKey struct {
	endpoint   endpoint.Origin // where it is shown
	scheme                     // with the scope that it was asked with
	credential identity
}

// token is what a token service gave.
type token struct {
	value   auth.Secret
	fetched time.Time
	expires time.Time // a little before its end, so that it does not expire on the way
	fetch   fetch     // gets the next one; set once it is in the cache

	// The cache's mutex guards the following fields.
	renewAt  time.Time // when four fifths of its life are over, or the next attempt is due
	used     time.Time
	renewing bool
}

// fetch gets a token. It must end soon after its context does.
type fetch func(context.Context) fetched

// fetched is the outcome of a token request, shared by all operations that waited for it.
type fetched struct {
	token *token
	steps []fault.Step
	err   error
}

// newToken makes a token of what a service gave at a time, with the life that it said.
func newToken(value string, life time.Duration, at time.Time) *token {
	return &token{
		value:   auth.NewSecret(value),
		fetched: at,
		renewAt: at.Add(life * 4 / 5),
		expires: at.Add(life - min(life/10, 10*time.Second)),
	}
}

const (
	// refusalLife is how long a token service's refusal of a credential stands: a wrong password that is sent with every
	// pull locks the account. It is short, since the password may just be corrected.
	refusalLife = 5 * time.Second
	// maxTokens bounds the cache. A mirror of ten thousand repositories in use within five minutes is unheard of.
	maxTokens = 10_000
)

// tokens is a cache of tokens. One request at a time runs for a key; it ends when no operation waits for it any more.
//
//	get ──have, young──────────────► token
//	 │└───have, past renewAt───────► token, and a renewal in the background
//	 └────have none──► join or start a fetch ──► all that wait get its outcome
type tokens struct {
	log   *slog.Logger
	start func(func(context.Context)) bool // see Options
	wake  chan struct{}                    // of run, when a token came
	calls coalesce.Group[tokenKey, fetched]
	// refusals are those of credentials by a token service.
	refusals bounded.Expiring[tokenKey, fetched]

	mu   sync.Mutex // guards the following fields; a leaf
	have map[tokenKey]*token
}

func newTokens(log *slog.Logger, start func(func(context.Context)) bool) *tokens {
	return &tokens{log: log, start: start, wake: make(chan struct{}, 1), have: make(map[tokenKey]*token)}
}

// get gives a token from the cache, or by f: one that was asked for before since does not count. Fresh: it was fetched while the
// caller waited.
func (t *tokens) get(ctx context.Context, k tokenKey, since time.Time, f fetch) (out fetched, fresh bool) {
	for {
		if out, ok := t.cached(k, since); ok {
			return out, fresh
		}
		out, _, err := t.calls.Do(ctx, k, func(ctx context.Context) (fetched, error) {
			if out, ok := t.cached(k, since); ok { // another call has just ended
				return out, nil
			}
			return t.fetch(ctx, k, f), nil
		})
		if err != nil {
			return fetched{err: err}, false
		}
		if out.token == nil || !out.token.fetched.Before(since) {
			return out, true
		}
		fresh = true // it has joined a request that was made before, and asks again
	}
}

// cached is the outcome that is in the cache. A token from before since is removed.
func (t *tokens) cached(k tokenKey, since time.Time) (fetched, bool) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	tok := t.have[k]
	switch {
	case tok == nil:
	case tok.fetched.Before(since):
		delete(t.have, k)
	case now.Before(tok.expires):
		tok.used = now
		if !now.Before(tok.renewAt) {
			t.renew(k, tok)
		}
		return fetched{token: tok}, true
	}
	return t.refusals.Get(k)
}

// fetch gets a token and takes the outcome into the cache. An outcome that no operation waits for any more is dropped.
func (t *tokens) fetch(ctx context.Context, k tokenKey, f fetch) fetched {
	out := f(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	r, refused := fault.RefusalIn(out.err)
	switch {
	case ctx.Err() != nil:
	case out.token != nil:
		t.sweep()
		out.token.used, out.token.fetch = out.token.fetched, f
		t.have[k] = out.token
		t.refusals.Delete(k)
		select {
		case t.wake <- struct{}{}:
		default:
		}
	case refused && r.Status < 500 && r.Status != http.StatusTooManyRequests && k.credential != (identity{}):
		t.refusals.Put(k, out, refusalLife, maxTokens)
	}
	return out
}

// sweep makes room for one more: the tokens that were used longest ago go, but for three quarters. So names that a client makes up
// push out each other, not the tokens of repositories in use. The lock is held.
func (t *tokens) sweep() {
	if len(t.have) < maxTokens {
		return
	}
	byUse := slices.SortedFunc(maps.Keys(t.have), func(a, b tokenKey) int { return t.have[a].used.Compare(t.have[b].used) })
	for _, k := range byUse[:len(byUse)-maxTokens*3/4] {
		delete(t.have, k)
	}
}

// drop forgets a token that was not accepted, unless it has been replaced meanwhile.
func (t *tokens) drop(k tokenKey, tok *token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.have[k] == tok {
		delete(t.have, k)
	}
}

// renew fetches a token again, in the background. The old one stays until it expires. The lock is held.
func (t *tokens) renew(k tokenKey, old *token) {
	if old.renewing {
		return
	}
	old.renewing = t.start(func(ctx context.Context) {
		// As a waiter of its own, so that no client that leaves ends it.
		out, _, err := t.calls.Do(ctx, k, func(ctx context.Context) (fetched, error) { return t.fetch(ctx, k, old.fetch), nil })
		if err == nil {
			err = out.err
		}
		failed := err != nil && ctx.Err() == nil
		t.mu.Lock()
		old.renewing = false
		if failed {
			old.renewAt = time.Now().Add(min(max(time.Until(old.expires)/2, time.Second), 30*time.Second))
			t.refusals.Delete(k) // the old one is still valid
		}
		t.mu.Unlock()
		if failed {
			t.log.Warn("cannot renew token; using the old one until it expires",
				"host", k.endpoint.String(), "scope", k.scope, "expires_at", old.expires, "error", err)
		}
	})
}

// run renews tokens that were used in the second half of their lives, until the context ends.
func (t *tokens) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(max(time.Until(t.renewDue(time.Now())), time.Second))
		select {
		case <-timer.C:
		case <-t.wake:
		case <-ctx.Done():
			return
		}
	}
}

// renewDue starts the renewals that are due, and says when the next one is.
func (t *tokens) renewDue(now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := now.Add(time.Hour)
	for k, tok := range t.have {
		due := tok.expires
		switch {
		case now.After(tok.expires):
			delete(t.have, k)
			continue
		case now.Before(tok.renewAt):
			due = tok.renewAt
		case tok.used.After(tok.fetched.Add(tok.renewAt.Sub(tok.fetched) / 2)):
			t.renew(k, tok)
		}
		if due.Before(next) {
			next = due
		}
	}
	return next
}
