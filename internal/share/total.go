package share

import (
	"context"
	"time"
)

// The total is given out in turns. A body that finds it free takes its piece. Others wait, each behind those of its own client; clients
// with waiting bodies are in a ring, and at each turn the next one gets a piece for its first body. One timer serves all.

// totalBurst is the time for which all clients together may send at once after a pause. It is longer than timers are late.
const totalBurst = 100 * time.Millisecond

// queue returns when n bytes of the total are for this request.
func (r *Request) queue(ctx context.Context, n int64) error {
	l, a := r.l, r.a
	l.mu.Lock()
	now := time.Now()
	if l.turns.Len() == 0 && !l.total.until.After(now) {
		l.total.take(now, n, l.set.Total, totalBurst)
		l.mu.Unlock()
		return nil
	}
	b := &body{n: n, ready: make(chan struct{})}
	at := a.bodies.PushBack(b)
	if a.turn == nil {
		a.turn = l.turns.PushBack(a)
	}
	l.arm(now)
	l.mu.Unlock()
	r.pace()

	select {
	case <-b.ready:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-b.ready: // in the same moment
	default:
		a.bodies.Remove(at)
		if a.bodies.Len() == 0 {
			l.turns.Remove(a.turn)
			a.turn = nil
		}
	}
	return context.Cause(ctx)
}

// arm sets the timer for the next turn.
func (l *Limits) arm(now time.Time) {
	if l.armed || l.turns.Len() == 0 {
		return
	}
	l.armed = true
	wait := max(0, l.total.until.Sub(now))
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.give)
	} else {
		l.timer.Reset(wait)
	}
}

// give gives out what of the total is free.
func (l *Limits) give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	now := time.Now()
	for l.turns.Len() > 0 && !l.total.until.After(now) {
		a := l.turns.Front().Value.(*account)
		b := a.bodies.Remove(a.bodies.Front()).(*body)
		l.total.take(now, b.n, l.set.Total, totalBurst)
		close(b.ready)
		if a.bodies.Len() > 0 {
			l.turns.MoveToBack(a.turn)
			continue
		}
		l.turns.Remove(a.turn)
		a.turn = nil
	}
	l.arm(now)
}
