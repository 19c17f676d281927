package upstream

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// tokenKey says what a token is for, and whose it is.
type tokenKey struct {
	endpoint endpoint.Origin // where it is shown
	realm    string          // where it came from
	service  string
	scope    string
	who      identity
}

// identity is what of a credential a token depends on.
type identity struct {
	username           string
	password, identity auth.Secret
}

func identityOf(c auth.Credential) identity { return identity{c.Username, c.Password, c.Identity} }

// token is what a token service gave.
type token struct {
	value   auth.Secret
	fetched time.Time
	renewAt time.Time                     // when four fifths of its life are over
	expires time.Time                     // a little before its end, so that it doesn't expire on the way
	used    time.Time                     // guarded by the cache's mutex
	again   func(context.Context) fetched // gets the next one; set once it is in the cache
}

// newToken makes a token of what a service gave at a time, with the life that it said.
func newToken(value string, life time.Duration, fetched time.Time) *token {
	return &token{
		value:   auth.NewSecret(value),
		fetched: fetched,
		renewAt: fetched.Add(life * 4 / 5),
		expires: fetched.Add(life - min(life/10, 10*time.Second)),
	}
}

// fetched is the outcome of a token request, shared by all who waited for it.
type fetched struct {
	token *token
	steps []fault.Step
	err   error
}

// refusedFor is how long a token service's no to a credential stands: a wrong password that is sent with every pull
// locks the account. It is short, since a person may be repairing it.
const refusedFor = 5 * time.Second

// maxTokens bounds the cache. A mirror of ten thousand repositories in use within five minutes is unheard of.
const maxTokens = 10_000

// tokens is a cache of tokens. One request at a time runs per key; it belongs to those who wait for it, and ends when
// the last one leaves.
//
//	get ──have, young──────────────► token
//	 │└───have, past renewAt───────► token, and a renewal in the background
//	 └────have none──► join or start a fetch ──► all who wait get its outcome
type tokens struct {
	log  *slog.Logger
	wake chan struct{} // of run, when a token came

	ctx  context.Context // of renewals in the background
	stop context.CancelFunc
	wg   sync.WaitGroup // renewals in the background

	mu     sync.Mutex // guards what follows
	closed bool
	have   map[tokenKey]*token
	calls  map[tokenKey]*tokenCall
	no     map[tokenKey]refusedToken // of credentials; with have at most maxTokens
}

type tokenCall struct {
	done    chan struct{}
	fetch   func(context.Context) fetched
	waiters int // guarded by the cache's mutex
	cancel  context.CancelFunc
	out     fetched // once done
}

type refusedToken struct {
	until time.Time
	out   fetched
}

func newTokens(log *slog.Logger) *tokens {
	t := &tokens{
		log: log, wake: make(chan struct{}, 1),
		have: make(map[tokenKey]*token), calls: make(map[tokenKey]*tokenCall),
		no: make(map[tokenKey]refusedToken),
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// get gives a token from the cache, or by fetch. fresh: it was fetched while we waited. fetch must end soon after its
// context does.
func (t *tokens) get(ctx context.Context, k tokenKey, fetch func(context.Context) fetched) (out fetched, fresh bool) {
	now := time.Now()
	t.mu.Lock()
	if tok := t.have[k]; tok != nil && now.Before(tok.expires) {
		tok.used = now
		if !now.Before(tok.renewAt) {
			t.renew(k, tok)
		}
		t.mu.Unlock()
		return fetched{token: tok}, false
	}
	if r, ok := t.no[k]; ok && now.Before(r.until) {
		t.mu.Unlock()
		return r.out, false
	}
	call := t.calls[k]
	if call == nil {
		// Not the caller's context: when it leaves, the others still wait.
		fctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		call = &tokenCall{done: make(chan struct{}), fetch: fetch, cancel: cancel}
		t.calls[k] = call
		go t.fetch(fctx, k, call)
	}
	call.waiters++
	t.mu.Unlock()

	select {
	case <-call.done:
	case <-ctx.Done():
		t.leave(k, call)
		return fetched{err: context.Cause(ctx)}, false
	}
	return call.out, true
}

func (t *tokens) leave(k tokenKey, call *tokenCall) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if call.waiters--; call.waiters == 0 {
		call.cancel()
		if t.calls[k] == call {
			delete(t.calls, k)
		}
	}
}

func (t *tokens) fetch(ctx context.Context, k tokenKey, call *tokenCall) {
	defer call.cancel()
	call.out = call.fetch(ctx)
	t.mu.Lock()
	if t.calls[k] == call {
		delete(t.calls, k)
		t.keep(k, call)
	}
	t.mu.Unlock()
	close(call.done)
}

// keep takes an outcome into the cache. The lock is held.
func (t *tokens) keep(k tokenKey, call *tokenCall) {
	out := call.out
	if out.token == nil {
		if r, ok := fault.RefusalIn(out.err); ok && r.Status < 500 && r.Status != 429 && k.who != (identity{}) {
			t.sweep()
			t.no[k] = refusedToken{until: time.Now().Add(refusedFor), out: out}
		}
		return
	}
	t.sweep()
	out.token.used, out.token.again = out.token.fetched, call.fetch
	t.have[k] = out.token
	delete(t.no, k)
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// sweep makes room for one more: what is over goes first, then the quarter that was used least lately. So names that a
// client makes up push out each other, not the tokens of repositories in use. The lock is held.
func (t *tokens) sweep() {
	if len(t.have)+len(t.no) < maxTokens {
		return
	}
	now := time.Now()
	maps.DeleteFunc(t.have, func(_ tokenKey, tok *token) bool { return now.After(tok.expires) })
	maps.DeleteFunc(t.no, func(_ tokenKey, r refusedToken) bool { return now.After(r.until) })
	if len(t.have)+len(t.no) < maxTokens {
		return
	}
	clear(t.no)
	used := make([]time.Time, 0, len(t.have))
	for _, tok := range t.have {
		used = append(used, tok.used)
	}
	slices.SortFunc(used, time.Time.Compare)
	most := maxTokens * 3 / 4
	if len(used) <= most {
		return
	}
	last := used[len(used)-most-1]
	for k, tok := range t.have {
		if len(t.have) > most && !tok.used.After(last) {
			delete(t.have, k)
		}
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

// renew fetches a token again, in the background. What is there stays until it expires. The lock is held.
func (t *tokens) renew(k tokenKey, old *token) {
	if t.closed || t.calls[k] != nil {
		return
	}
	ctx, cancel := context.WithCancel(t.ctx)
	// The background waits, so that no client that leaves ends it.
	call := &tokenCall{done: make(chan struct{}), fetch: old.again, cancel: cancel, waiters: 1}
	t.calls[k] = call
	t.wg.Go(func() {
		t.fetch(ctx, k, call)
		if err := call.out.err; err != nil && ctx.Err() == nil {
			t.mu.Lock()
			old.renewAt = time.Now().Add(min(max(time.Until(old.expires)/2, time.Second), 30*time.Second))
			delete(t.no, k) // the old one is still good
			t.mu.Unlock()
			t.log.Warn("token not renewed", "host", k.endpoint.String(), "scope", k.scope, "expires", old.expires, "err", err)
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
		switch {
		case now.After(tok.expires):
			delete(t.have, k)
		case now.Before(tok.renewAt):
			next = minTime(next, tok.renewAt)
		case tok.used.After(tok.fetched.Add(tok.renewAt.Sub(tok.fetched) / 2)):
			t.renew(k, tok)
			next = minTime(next, tok.expires)
		default:
			next = minTime(next, tok.expires)
		}
	}
	return next
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// close ends renewals and waits for them.
func (t *tokens) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.stop()
	t.wg.Wait()
}
