package endpoint

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
)

// Kind separates requests that may fail apart: a registry may limit the one, or its CDN break for the other alone.
type Kind int

// The kinds of requests.
const (
	Documents Kind = iota // manifests and lists, by GET or HEAD, and blobs by HEAD
	Blobs
	kinds int = iota
)

// State is a word for the health of an endpoint.
type State string

// The states of an endpoint.
const (
	StateUnknown  State = "unknown"  // it has not been asked yet
	StateUp       State = "up"       // it answers
	StateDegraded State = "degraded" // it answers, but not always, not for blobs, or it limits us
	StateOpen     State = "open"     // it is down: its breaker is open, and other endpoints are asked first
)

// Status is the health of an endpoint at a moment.
type Status struct {
	URL         string // with the prefix of repositories as a path
	State       State
	Since       time.Time // when the state began; zero: not known
	LastError   string
	LastErrorAt time.Time
	Running     int            // blob transfers
	Waiting     int            // blob transfers that wait for their turn
	Budgets     []limit.Budget // what it has said is left of its limits, the newest last
}

// Health is whether an endpoint works, as its last requests have shown. It decides about the order of endpoints alone: an
// endpoint that is down is asked after the others, so a pull never fails because of a breaker. It is safe for concurrent use.
type Health struct {
	Endpoint string // its name, for the log
	// Only says that the upstream has no other endpoint. Then it is not pinged: it is asked in any case.
	Only bool
	Log  *slog.Logger
	Ping func(context.Context) error
	// Start runs a function in the background, until its context ends. It reports whether it did.
	Start func(func(context.Context)) bool

	mu       sync.Mutex // guards the following fields; a leaf
	asked    bool
	served   bool // it has given something that it was asked for
	registry breaker
	bodies   breaker          // of blobs, from any host
	trial    bool             // one request tries blobs again
	limited  [kinds]time.Time // until when requests of a kind are limited
	pinging  bool
	corrupt  int       // blobs in a row that did not have their digest
	wrongAt  time.Time // when the last one of them came
	err      string    // the last failure
	errAt    time.Time
}

// Ready reports whether an endpoint is to be asked in its place, and not after the others.
func (h *Health) Ready(k Kind, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.registry.down.IsZero() && !now.Before(h.limited[k]) &&
		(k != Blobs || h.bodies.down.IsZero() || !now.Before(h.bodies.nextTry))
}

// TryBlobs says that a blob is about to be asked for. While blobs are down, the first request after each pause is a trial: for
// patience, other requests do not find the endpoint ready.
func (h *Health) TryBlobs(patience time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); !h.bodies.down.IsZero() && !now.Before(h.bodies.nextTry) {
		h.bodies.nextTry, h.trial = now.Add(patience), true
	}
}

// Served reports whether the endpoint has ever given something that it was asked for.
func (h *Health) Served() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.served
}

// Status is the health at a moment. URL, Running, Waiting and Budgets are for the caller to fill in.
func (h *Health) Status(now time.Time) Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Status{State: StateUp, LastError: h.err, LastErrorAt: h.errAt}
	switch {
	case !h.registry.down.IsZero():
		s.State, s.Since = StateOpen, h.registry.down
	case !h.asked:
		s.State = StateUnknown
	case !h.bodies.down.IsZero():
		s.State, s.Since = StateDegraded, h.bodies.down
	case h.registry.failures > 0, h.bodies.failures > 0, now.Before(h.limited[Documents]), now.Before(h.limited[Blobs]):
		s.State = StateDegraded
	default:
		if s.Since = h.registry.up; h.bodies.up.After(s.Since) {
			s.Since = h.bodies.up
		}
	}
	return s
}

// Reset makes the endpoint ready to be asked, whatever has failed before.
func (h *Health) Reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.registry, h.bodies, h.trial, h.corrupt = breaker{}, breaker{}, false, 0
	h.limited = [kinds]time.Time{}
}

// Record takes in how a request to the endpoint ended, and logs what changed.
func (h *Health) Record(ctx context.Context, k Kind, err error) {
	o, bodies := judge(ctx, k, err)
	if o == inconclusive {
		return
	}
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked, h.served = true, h.served || err == nil
	if o != answered {
		h.err, h.errAt = err.Error(), now
	}
	b := &h.registry
	if bodies {
		h.succeeded(&h.registry, now) // the registry itself had answered
		b = &h.bodies
	}
	switch o {
	case limited:
		h.limited[k] = now.Add(limitedFor(err))
	case answered:
		h.succeeded(b, now)
	default:
		if !h.failed(b, now, o == unreachable, err) && bodies && h.trial {
			b.delay(now)
		}
		h.trial = h.trial && !bodies
		if !h.registry.down.IsZero() {
			h.startPings()
		}
	}
}

// limitedFor is how long an endpoint is asked after the others because of a 429 or 503.
func limitedFor(err error) time.Duration {
	r, _ := fault.RefusalIn(err)
	if r.Assumed || r.RetryAfter == 0 {
		return limit.DefaultPause
	}
	return min(r.RetryAfter, limit.LongestTrust)
}

// Delivered records that the endpoint sends blobs.
func (h *Health) Delivered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trial = false
	h.succeeded(&h.bodies, time.Now())
}

// corruptFor is how long after a corrupt blob another one is the next in a row. The blobs that were right in between are not
// known here: their readers report wrong ones alone.
const corruptFor = 10 * time.Minute

// Corrupt records that a blob from the endpoint did not have its digest. A third one in a row opens the breaker of blobs, and
// each further one opens it again.
func (h *Health) Corrupt(err error) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.wrongAt) > corruptFor {
		h.corrupt = 0
	}
	h.corrupt++
	h.wrongAt = now
	h.err, h.errAt = err.Error(), now
	if h.corrupt >= maxFailures {
		h.failed(&h.bodies, now, true, err)
	}
}

// succeeded records that something works. The lock is held, so that the log has the changes in their order.
func (h *Health) succeeded(b *breaker, now time.Time) {
	if closed, downFor := b.succeed(now); closed {
		h.Log.Info("endpoint is up again", "endpoint", h.Endpoint, "component", h.nameOf(b), "down_for", downFor.Round(time.Millisecond))
	}
}

// failed records a failure, and reports whether it opened the breaker. The lock is held.
func (h *Health) failed(b *breaker, now time.Time, severe bool, err error) (opened bool) {
	if opened = b.fail(now, severe); opened {
		event := "endpoint is down; other endpoints are asked first"
		if h.Only {
			event = "endpoint is down"
		}
		h.Log.Warn(event, "endpoint", h.Endpoint, "component", h.nameOf(b), "error", err)
	}
	return opened
}

func (h *Health) nameOf(b *breaker) string {
	if b == &h.bodies {
		return "blobs"
	}
	return "registry"
}

// startPings pings an endpoint that is down until it answers. The lock is held.
func (h *Health) startPings() {
	if !h.pinging && !h.Only {
		h.pinging = h.Start(h.pingUntilUp)
	}
}

func (h *Health) pingUntilUp(ctx context.Context) {
	for nextTry, down := h.nextPing(ctx); down; nextTry, down = h.nextPing(ctx) {
		if backoff.Wait(ctx, time.Until(nextTry)) {
			h.pinged(ctx, h.Ping(ctx))
		}
	}
}

// nextPing is when to ping next. False: it is up again, or the context has ended, and no pings follow.
func (h *Health) nextPing(ctx context.Context) (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pinging = !h.registry.down.IsZero() && ctx.Err() == nil
	return h.registry.nextTry, h.pinging
}

func (h *Health) pinged(ctx context.Context, err error) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil:
		h.succeeded(&h.registry, now)
	case ctx.Err() == nil:
		h.err, h.errAt = err.Error(), now
		if !h.registry.down.IsZero() {
			h.registry.delay(now)
		}
	}
}
