package pull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/coalesce"
	"github.com/registrymirror/mirror/upstream"
)

// errStopped is the answer to requests after the end of Run.
var errStopped = errors.New("the mirror is stopping")

// errWaited says that the time a client waits is over. The work goes on. It never leaves this package.
var errWaited = errors.New("still waiting for the upstream")

// work owns the trips that outlive the clients that asked for them. They end with Run.
type work struct {
	life context.Context // of all trips; the one place where a context is kept
	end  context.CancelFunc
	log  *slog.Logger

	mu     sync.Mutex // guards closed, and orders wg.Add before wg.Wait
	closed bool
	wg     sync.WaitGroup
}

func newWork(log *slog.Logger) *work {
	w := &work{log: log}
	w.life, w.end = context.WithCancel(context.Background())
	return w
}

func (w *work) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.wg.Add(1)
	return true
}

// close cancels all trips, and returns when the last of them has ended.
func (w *work) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.end()
	w.wg.Wait()
}

// do runs f now, with the values of ctx and none of its cancellation: other clients want the result too, and a check
// of a tag is worth recording even if no client waits for it any more.
func (w *work) do(ctx context.Context, limit time.Duration, f func(context.Context) error) (err error) {
	if !w.begin() {
		return errStopped
	}
	defer w.wg.Done()
	return w.run(ctx, limit, f)
}

// doWithin runs f as do does, and waits for it. It returns false after a time: then f goes on. After close, f is run as a
// part of its caller.
func (w *work) doWithin(ctx context.Context, limit, wait time.Duration, f func(context.Context)) bool {
	if !w.begin() {
		f(ctx)
		return true
	}
	ended := make(chan struct{})
	go func() {
		defer w.wg.Done()
		defer close(ended)
		_ = w.run(ctx, limit, func(ctx context.Context) error {
			f(ctx)
			return nil
		})
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}

// run is do, after begin.
func (w *work) run(ctx context.Context, limit time.Duration, f func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	defer context.AfterFunc(w.life, cancel)()
	// A document that makes a parser panic must cost one pull, not the process: no HTTP server recovers here.
	defer func() {
		if v := recover(); v != nil {
			w.log.ErrorContext(ctx, "panic in a pull", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in a pull: %v", v)
		}
	}()
	return f(ctx)
}

// calls makes one call of all that are made with the same key at the same time. A call goes on when no client waits for it
// any more.
type calls[T any] struct {
	work  *work
	limit time.Duration // of one call
	group coalesce.Group[string, T]
}

func newCalls[T any](w *work, limit time.Duration) *calls[T] {
	return &calls[T]{work: w, limit: limit, group: coalesce.Group[string, T]{Lasting: true}}
}

// do waits for the result of f until the given time, then returns errWaited while f goes on. led is true for the one
// caller whose f ran. A client that has joined a call of background work, which was kept from the rest of a limit, makes one of
// its own.
func (c *calls[T]) do(ctx context.Context, key string, until time.Time, f func(context.Context) (T, error)) (
	v T, led bool, err error,
) {
	ctx, cancel := context.WithDeadlineCause(ctx, until, errWaited)
	defer cancel()
	v, led, err = c.call(ctx, key, f)
	if isReserved(err) && !upstream.IsSpare(ctx) {
		v, led, err = c.call(ctx, "client "+key, f) // a key that background work does not use
	}
	return v, led, err
}

// call is do without its own end of the wait.
func (c *calls[T]) call(ctx context.Context, key string, f func(context.Context) (T, error)) (v T, led bool, err error) {
	return c.group.Do(ctx, key, func(ctx context.Context) (v T, err error) {
		err = c.work.do(ctx, c.limit, func(ctx context.Context) (err error) {
			v, err = f(ctx)
			return err
		})
		return v, err
	})
}
