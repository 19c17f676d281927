package endpoint

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/upstream/fault"
)

// Order is the order in which endpoints are asked: as they were given, those that are down or limit us after the others.
// The first ready ones are not.
func Order[E interface{ Ready(Kind, time.Time) bool }](endpoints []E, k Kind) (order []E, ready int) {
	now := time.Now()
	var later []E
	for _, e := range endpoints {
		if e.Ready(k, now) {
			order = append(order, e)
		} else {
			later = append(later, e)
		}
	}
	return append(order, later...), len(order)
}

// Share is how long an endpoint may take to answer while there are others to ask after it: they share the time that a client
// waits. 0: no limit.
func Share(patience time.Duration, others int) time.Duration {
	if others <= 0 {
		return 0
	}
	return patience / time.Duration(others+1)
}

// WithPatience ends a context after d with a *fault.PatienceError, unless answered is called before; a d of 0 never does. Call
// end when done with the context.
func WithPatience(ctx context.Context, d time.Duration) (_ context.Context, answered func(), end context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	end = func() { cancel(nil) }
	if d == 0 {
		return ctx, func() {}, end
	}
	timer := time.AfterFunc(d, func() { cancel(&fault.PatienceError{After: d}) })
	return ctx, func() { timer.Stop() }, end
}
