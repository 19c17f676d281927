package transfer

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/upstream/fault"
)

// How a transfer gets its turn, and goes on after a pause.

// awaitTurn waits for another turn where the transfer's was revoked.
func (t *transfer) awaitTurn() error {
	if t.turn == nil || !t.turn.revoked.Load() {
		return nil
	}
	if t.applicant.extra {
		return t.queueFailure(errRevoked, 0)
	}
	begun := time.Now()
	if !t.turn.q.resume(t.ctx, t.turn, t.hangUp) {
		return t.gone()
	}
	t.rested = time.Since(begun) >= idleAfter
	return nil
}

// hangUp closes the connection of a transfer that goes on later. It does not count as a break.
func (t *transfer) hangUp() {
	t.closeCurrent()
	t.retry.gained, t.rested = fairProgress, false
}

// enterQueue waits for a turn at the endpoint.
func (t *transfer) enterQueue() error {
	at := t.pool.sites[t.ep]
	q := at.queue
	if t.turn != nil && (t.turn.q == at.queue || t.turn.q == at.small) {
		return nil
	}
	t.leaveQueue(false)
	patience, begun := t.pool.o.HeaderTimeout-queueMargin, time.Now()
	if left := time.Until(t.by) - queueMargin; left > 0 {
		patience = min(patience, left)
	}
	ok, background := true, t.applicant.isBackground()
	switch {
	case !t.cur.opened.IsZero() && !background: // its client has the beginning
		t.turn = q.grantNow(t.applicant)
	case t.applicant.extra:
		t.turn = q.try(t.applicant, q.limit*3/4) // while a quarter of them is not in use by clients
		ok = t.turn != nil
	case guard.Turns && !background && t.claim.size > 0 && t.claim.size <= smallBlob:
		if t.turn = q.try(t.applicant, q.limit); t.turn == nil {
			q = at.small
			t.turn, ok = q.wait(t.ctx, t.applicant, patience)
		}
	default:
		t.turn, ok = q.wait(t.ctx, t.applicant, patience)
	}
	if ok {
		return nil
	}
	err := context.Cause(t.ctx)
	if err == nil {
		_, waiting := q.load()
		err = &fault.QueueError{Endpoint: t.ep.Name, Most: q.limit, Waiting: waiting, Waited: time.Since(begun)}
	}
	return t.queueFailure(err, time.Since(begun))
}

func (t *transfer) queueFailure(err error, took time.Duration) error {
	step := fault.Step{Name: fault.StepQueue, Host: t.ep.Origin.String(), Took: took, Err: err}
	t.call.Trace().Add(step)
	return &fault.Failure{Err: err, Step: step}
}

// leaveQueue gives the turn back. Keep: the next part of the blob may have it.
func (t *transfer) leaveQueue(keep bool) {
	if t.turn != nil {
		t.turn.release(keep)
		t.turn = nil
	}
}
