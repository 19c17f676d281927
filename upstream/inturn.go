package upstream

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/upstream/fault"
)

// How a transfer waits for its turn, and goes on after a pause.

// mayRead waits for another turn where it was taken.
func (t *transfer) mayRead() error {
	if t.turn == nil || !t.turn.taken.Load() {
		return nil
	}
	if t.part {
		return t.queueFault(errTaken, 0)
	}
	begun := time.Now()
	if !t.turn.q.resume(t.ctx, t.turn, t.hangUp) {
		return t.gone()
	}
	t.rested = time.Since(begun) >= idleTurn
	return nil
}

// hangUp closes the connection of a transfer that goes on later. It does not count as a break.
func (t *transfer) hangUp() {
	t.close()
	t.gained, t.rested = fairProgress, false
}

// enterQueue waits for a turn at the endpoint.
func (t *transfer) enterQueue() error {
	q, small := t.c.ep.queue, t.c.ep.small
	if t.turn != nil && (t.turn.q == q || t.turn.q == small) {
		return nil
	}
	t.leaveQueue(false)
	patience, begun := t.c.o.HeaderTimeout-queueSpare, time.Now()
	if left := time.Until(t.by) - queueSpare; left > 0 {
		patience = min(patience, left)
	}
	ok := true
	switch {
	case !t.opened.IsZero(): // the beginning is with the client
		t.turn = q.enter(t.asker)
	case t.part:
		t.turn = q.spare(t.asker)
		ok = t.turn != nil
	case guard.Turns && t.claim > 0 && t.claim <= smallBlob:
		if t.turn = q.try(t.asker); t.turn == nil {
			q = small
			t.turn, ok = q.wait(t.ctx, t.asker, patience)
		}
	default:
		t.turn, ok = q.wait(t.ctx, t.asker, patience)
	}
	if ok {
		return nil
	}
	err := context.Cause(t.ctx)
	if err == nil {
		_, waiting := q.length()
		err = &fault.QueueError{Endpoint: t.c.ep.Name, Most: q.most, Waiting: waiting, Waited: time.Since(begun)}
	}
	return t.queueFault(err, time.Since(begun))
}

func (t *transfer) queueFault(err error, took time.Duration) error {
	step := fault.Step{Name: fault.StepQueue, Host: t.c.ep.Origin.String(), Took: took, Err: err}
	t.c.trace.Add(step)
	return &fault.Failure{Err: err, Step: step}
}

// leaveQueue gives the turn back. keep: the next part of the blob may have it.
func (t *transfer) leaveQueue(keep bool) {
	if t.turn != nil {
		t.turn.give(keep)
		t.turn = nil
	}
}
