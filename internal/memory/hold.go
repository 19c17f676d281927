package memory

import (
	"context"
	"sync"
)

// Hold is the room of one piece of work. Its methods are safe for concurrent use, its Need is for one caller at a time.
type Hold struct {
	b      *Budget
	class  Class
	client string

	mu   sync.Mutex // guards the fields below; taken before the budget's
	pool *pool
	n    int64
}

type (
	holdKey   struct{}
	clientKey struct{}
)

// By records in a context which client memory is for.
func By(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// Enter begins a piece of work that has nothing yet. The functions that get the context count on it by Need. The
// caller releases the hold.
func (b *Budget) Enter(ctx context.Context, c Class) (context.Context, *Hold) {
	client, _ := ctx.Value(clientKey{}).(string)
	h := &Hold{b: b, class: c, client: client}
	return context.WithValue(ctx, holdKey{}, h), h
}

// Need is that of the context's hold. Without one nothing is counted.
func Need(ctx context.Context, n int64) error {
	if h, ok := ctx.Value(holdKey{}).(*Hold); ok {
		return h.Need(ctx, n)
	}
	return nil
}

// Need waits until the hold has n bytes. The bytes that it had are given back before it waits: a hold is for one document at a
// time, and the former one is garbage by now. The error is a *FullError.
func (h *Hold) Need(ctx context.Context, n int64) error {
	h.mu.Lock()
	have := h.n
	h.mu.Unlock()
	if n <= have {
		return nil
	}
	h.Release()
	p := h.b.pool(h.class, n)
	got, err := h.b.acquire(ctx, p, h.client, n)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pool, h.n = p, got
	return nil
}

// Shrink gives back the bytes beyond n.
func (h *Hold) Shrink(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n > n {
		h.b.release(h.pool, h.n-n)
		h.n = n
	}
}

// Release gives everything back. It may be called again.
func (h *Hold) Release() { h.Shrink(0) }

// Shrink is that of the context's hold.
func Shrink(ctx context.Context, n int64) {
	if h, ok := ctx.Value(holdKey{}).(*Hold); ok {
		h.Shrink(n)
	}
}
