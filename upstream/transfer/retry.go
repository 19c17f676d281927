package transfer

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

const (
	maxAttempts   = 8           // at each endpoint, without a byte in between
	firstAttempts = 3           // until the first byte: a client waits for the headers, and may have another registry to ask
	fairProgress  = 64 << 10    // bytes after which a break is answered at once: the connection breaks now and then
	longestWait   = time.Minute // of a Retry-After in the middle of a blob
)

var roundPause = backoff.Backoff{First: 200 * time.Millisecond, Most: 10 * time.Second}

// retry is what a transfer knows of its attempts.
type retry struct {
	attempts int                         // rounds since the last byte
	gained   int64                       // bytes since the last break
	breaks   int                         // in a row, at this endpoint, with little in between
	leave    bool                        // the endpoint is too slow, or sends wrong bytes
	done     map[*endpoint.Endpoint]bool // endpoints whose answer will not change
	pauses   int                         // in a row, without a byte
}

// advance records n bytes, and reports whether they complete a fair progress.
func (r *retry) advance(n int64) (fair bool) {
	fair = r.gained < fairProgress && r.gained+n >= fairProgress
	r.gained += n
	r.attempts = 0
	return fair
}

// begin opens the transfer. It is less patient than after a break: a client waits.
func (t *transfer) begin() error { return t.seek(nil, true) }

// reopen asks for the rest after a break: first the same endpoint, unless that one is bad.
func (t *transfer) reopen() error {
	r := &t.retry
	fair := r.gained >= fairProgress
	if r.gained > 0 {
		r.pauses = 0
	}
	if fair {
		r.breaks = 0
	}
	r.breaks++
	r.gained = 0
	last := t.ep
	if t.hasOthers(last) && (r.leave || !fair && r.breaks > 1) {
		r.leave, r.breaks = false, 0
		return t.seek(t.orderAfter(last, false), false)
	}
	r.leave = false
	if !fair {
		if r.attempts >= maxAttempts {
			return t.call.Decide()
		}
		if !t.pause() {
			return t.gone()
		}
	}
	return t.seek(t.orderAfter(last, true), false)
}

// hasOthers reports whether another endpoint may have the rest.
func (t *transfer) hasOthers(e *endpoint.Endpoint) bool {
	return slices.ContainsFunc(t.pool.endpoints, func(other *endpoint.Endpoint) bool {
		return other != e && !t.retry.done[other]
	})
}

// orderAfter is the order in which endpoints are asked after one that broke: that one first, or after the others that are
// ready.
func (t *transfer) orderAfter(broken *endpoint.Endpoint, first bool) []*endpoint.Endpoint {
	order, ready := endpoint.Order(t.pool.endpoints, endpoint.Blobs)
	at := slices.Index(order, broken)
	switch order = slices.Delete(order, at, at+1); {
	case first:
		ready = 0
	case at < ready:
		ready--
	default:
		ready = at
	}
	return slices.Insert(order, ready, broken)
}

// seek asks one endpoint after another until one sends the rest: a round in the given order, then, after a pause, rounds in
// their usual order. It ends when no endpoint is left whose answer may change, or after enough rounds. First: no byte has come
// yet.
func (t *transfer) seek(order []*endpoint.Endpoint, first bool) error {
	most := maxAttempts
	if first {
		most = firstAttempts
	}
	done := func(e *endpoint.Endpoint) bool { return t.retry.done[e] }
	for ; ; order = nil {
		if order == nil {
			order, _ = endpoint.Order(t.pool.endpoints, endpoint.Blobs)
			order = t.pool.senders.avoid(blobKey(t.applicant.repo, t.digest), order)
		}
		order = slices.DeleteFunc(order, done)
		if t.retry.attempts >= most || len(order) == 0 {
			return t.call.Decide()
		}
		t.retry.attempts++
		for i, e := range order {
			err := t.openAt(e, endpoint.Share(t.pool.o.HeaderTimeout, len(order)-1-i))
			switch {
			case err == nil:
				return nil
			case t.ctx.Err() != nil && first:
				return err
			case t.ctx.Err() != nil:
				return t.gone()
			case first && !t.call.Continue(err):
				return t.call.Decide()
			}
			t.retry.done[e] = !worthRepeating(err, first, t.applicant.extra)
		}
		if t.retry.attempts >= most || !slices.ContainsFunc(order, func(e *endpoint.Endpoint) bool { return !done(e) }) {
			return t.call.Decide()
		}
		if !t.pause() {
			if first {
				return t.call.Decide()
			}
			return t.gone()
		}
	}
}

// pause waits before the endpoints are asked again, for as long as they ask for. False: the context has ended.
func (t *transfer) pause() bool {
	least := longestWait
	for _, e := range t.pool.endpoints {
		if wait, failed := t.call.RetryAfter(e); failed && !t.retry.done[e] {
			least = min(least, wait)
		}
	}
	t.retry.pauses++
	wait := roundPause.After(t.retry.pauses)
	return backoff.Wait(t.ctx, max(backoff.Between(wait/2, wait*3/2), least))
}

// worthRepeating reports whether asking the endpoint again may help. First: no byte has come yet, and a client waits: then only
// a broken connection or a failing server is asked again. Extra: it is a further connection for the blob.
func worthRepeating(err error, first, extra bool) bool {
	if fault.Is[*fault.QueueError](err) {
		return false
	}
	if r, ok := fault.RefusalIn(err); ok {
		f, _ := errors.AsType[*fault.Failure](err)
		return refusalMayChange(r, f.Step.Name == fault.StepBlobHost, first)
	}
	if e, ok := errors.AsType[*fault.ContentError](err); ok {
		return !extra && (!first || e.Kind == fault.ContentRange || e.Kind == fault.ContentStalled)
	}
	return !fault.IsPermanent(err) && (!first || fault.IsBroken(err))
}

// refusalMayChange reports whether a refusal may be another one next time. Elsewhere: it came from a host that the registry
// redirected to, where a signed URL may have expired.
func refusalMayChange(r fault.Refusal, elsewhere, first bool) bool {
	switch {
	case r.RetryAfter > longestWait, first && r.RetryAfter > time.Second:
		return false
	case r.Status >= 500:
		return r.Status != http.StatusNotImplemented
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden:
		return elsewhere || !first
	case r.Status == http.StatusBadRequest:
		return elsewhere
	case r.Status == http.StatusNotFound, r.Status == http.StatusGone:
		return elsewhere && !first
	case r.Status == http.StatusRequestTimeout, r.Status == http.StatusTooEarly,
		r.Status == http.StatusTooManyRequests, r.Status == http.StatusRequestedRangeNotSatisfiable:
		return !first
	}
	return false
}

const (
	rateTime  = time.Minute // of waiting for bytes, in which
	leastRate = 60 << 10    // bytes must come
)

// rate watches how fast bytes come, by the time that is spent waiting for the upstream alone. A connection that brings a
// byte now and then never stalls, and never finishes.
type rate struct {
	waited time.Duration // since the rate was last judged
	bytes  int64         // that came in that time
	slow   int           // times in a row that there were too few
}

// add records bytes that came, and the wait for them. Its error says that the rate is too low.
func (r *rate) add(n int, waited time.Duration) error {
	r.waited += waited
	r.bytes += int64(n)
	if r.waited < rateTime {
		return nil
	}
	came, in := r.bytes, r.waited
	r.bytes, r.waited = 0, 0
	if came >= leastRate {
		r.slow = 0
		return nil
	}
	r.slow++
	return &fault.ContentError{
		Kind: fault.ContentSlow, Want: fmt.Sprintf("%d bytes in %s", leastRate, rateTime),
		Got: fmt.Sprintf("%d bytes in %s", came, in.Round(time.Second)),
	}
}
