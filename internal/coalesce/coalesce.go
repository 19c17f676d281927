// Package coalesce makes one call of all that are made with the same key at the same time.
//
//	Do(key) ──no call runs──► start f ──┐
//	   └──────one runs──────► join it ──┴─► all callers get its result; each can leave when its own context ends
//
// Promise: of one key at most one call runs. It belongs to all that wait for it: it has the values of the first caller's
// context and none of its end, and is cancelled when the last waiter has left. A caller never waits longer than its own
// context lasts. Every call that was started ends: f must return soon after its context does.
//
// It remembers nothing: a call that comes after the end of another one is a call of its own. A caller that keeps results
// looks for one in f, too, since a call may have ended between its own look and Do.
package coalesce

import (
	"context"
	"errors"
	"sync"
)

// ErrFull says that as many calls run as a Group lets.
var ErrFull = errors.New("too many calls run already")

// Group is a set of calls. The zero value is ready, and runs any number of calls. It is safe for concurrent use.
type Group[K comparable, V any] struct {
	// Most is how many calls run at once; more keys get ErrFull. 0: any number.
	Most int
	// Lasting lets a call go on when the last waiter has left, so that the next caller finds it. f then has to end by itself.
	Lasting bool

	mu    sync.Mutex // guards calls and their waiters; a leaf
	calls map[K]*call[V]
}

type call[V any] struct {
	cancel  context.CancelFunc
	waiters int
	done    chan struct{} // closed once value and err are there
	value   V
	err     error
}

// Do gives the result of the call of a key: of the one that runs, or of f, which is started if none does. started reports
// whether it was f. An error is f's, ErrFull, or the cause of ctx's end.
func (g *Group[K, V]) Do(ctx context.Context, key K, f func(context.Context) (V, error)) (v V, started bool, err error) {
	g.mu.Lock()
	c := g.calls[key]
	if started = c == nil; started {
		if g.Most > 0 && len(g.calls) >= g.Most {
			g.mu.Unlock()
			return v, false, ErrFull
		}
		c = g.start(ctx, key, f)
	}
	c.waiters++
	g.mu.Unlock()

	select {
	case <-c.done:
		return c.value, started, c.err
	case <-ctx.Done():
		g.leave(key, c)
		return v, started, context.Cause(ctx)
	}
}

// Running reports whether a call of a key runs.
func (g *Group[K, V]) Running(key K) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls[key] != nil
}

// start begins a call. The lock is held.
func (g *Group[K, V]) start(ctx context.Context, key K, f func(context.Context) (V, error)) *call[V] {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &call[V]{cancel: cancel, done: make(chan struct{})}
	if g.calls == nil {
		g.calls = make(map[K]*call[V])
	}
	g.calls[key] = c
	go func() {
		defer cancel()
		c.value, c.err = f(ctx)
		g.mu.Lock()
		g.remove(key, c)
		g.mu.Unlock()
		close(c.done)
	}()
	return c
}

// leave takes one waiter off a call. One that is cancelled for that is no longer joined.
func (g *Group[K, V]) leave(key K, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.waiters--; c.waiters == 0 && !g.Lasting {
		c.cancel()
		g.remove(key, c)
	}
}

// remove forgets a call, unless another one has its key by now. The lock is held.
func (g *Group[K, V]) remove(key K, c *call[V]) {
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}
