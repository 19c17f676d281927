package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
)

// The breaker of an endpoint. It decides about the order alone: an endpoint that is down is asked after the others, so
// it is never the breaker that fails a pull.
//
//	up ──► can't be reached, silent, or three stumbles in a row ──► down, for 1 s, 2 s ... 60 s
//	 ▲                                                               │
//	 └── a ping is answered, or a request that had no other way ◄────┘ each time that is over: a ping
const (
	stumbles    = 3           // in a row that are no chance any more
	firstDown   = time.Second // until the first ping
	longestDown = time.Minute
	steady      = time.Minute // of being up, after which the next time down is short again
)

// kind is what for an endpoint is asked: a registry may limit, and its CDN break, the one and not the other.
type kind int

const (
	documents kind = iota // manifests and lists, by GET or HEAD, and blobs by HEAD
	blobs
	kinds int = iota
)

// breaker is whether something works. The condition's lock guards it.
type breaker struct {
	down   time.Time // since when it does not; zero: it does
	until  time.Time // when to look again
	failed int       // times in a row
	level  int       // of the last time down: it gets longer
	up     time.Time // since when it works again
}

// fail notes a failure and reports whether it is down from now on.
func (b *breaker) fail(now time.Time, atOnce bool) (news bool) {
	b.failed++
	if !b.down.IsZero() || !atOnce && b.failed < stumbles {
		return false
	}
	if b.up.IsZero() || now.Sub(b.up) > steady {
		b.level = 0
	}
	b.down = now
	b.again(now)
	return true
}

// again has it looked at later than the last time.
func (b *breaker) again(now time.Time) {
	d := min(firstDown<<min(b.level, 10), longestDown)
	b.level++
	// Not all mirrors at the same moment.
	b.until = now.Add(d*3/4 + rand.N(d/2))
}

// works notes that it does, and reports whether that is news, after how long.
func (b *breaker) works(now time.Time) (news bool, after time.Duration) {
	b.failed = 0
	if b.down.IsZero() {
		return false, 0
	}
	after = now.Sub(b.down)
	b.down, b.up = time.Time{}, now
	return true, after
}

// condition is how an endpoint is.
type condition struct {
	mu       sync.Mutex // guards what follows; a leaf
	asked    bool
	served   bool // it has given something that it was asked for
	registry breaker
	bodies   breaker // of blobs, and whatever host they come from
	trial    bool    // somebody tries the bodies again
	limited  [kinds]time.Time
	probing  bool
	err      string // the last failure
	errAt    time.Time
}

// ready reports whether there is nothing against asking.
func (c *condition) ready(k kind, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.registry.down.IsZero() && !now.Before(c.limited[k]) &&
		(k != blobs || c.bodies.down.IsZero() || !now.Before(c.bodies.until))
}

// try says that an endpoint is about to be asked for a blob. Of those who come when its blobs have not worked for a
// while only the first finds it ready.
func (c *condition) try(patience time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); !c.bodies.down.IsZero() && !now.Before(c.bodies.until) {
		c.bodies.until, c.trial = now.Add(patience), true
	}
}

// EndpointState is a word for how an endpoint is.
type EndpointState string

// The states of an endpoint.
const (
	EndpointUnknown  EndpointState = "unknown"  // nobody has asked it yet
	EndpointUp       EndpointState = "up"       // it answers
	EndpointDegraded EndpointState = "degraded" // it answers, but not always, not for blobs, or it limits us
	EndpointOpen     EndpointState = "open"     // it is down: its breaker is open, and others are asked before it
)

// EndpointStatus is how an endpoint is.
type EndpointStatus struct {
	URL         string // with the prefix of repositories as a path
	State       EndpointState
	Since       time.Time // when the state became what it is; zero: not known
	LastError   string
	LastErrorAt time.Time
	Running     int            // blob transfers
	Waiting     int            // that wait for their turn
	Budgets     []limit.Budget // what it has said is left of its limits, the newest last
}

// State says how the endpoints are, in their order. It asks nobody.
func (r *Registry) State() []EndpointStatus {
	list := make([]EndpointStatus, len(r.endpoints))
	for i, ep := range r.endpoints {
		list[i] = ep.condition.status(time.Now())
		list[i].URL = ep.Name
		running, waiting := ep.small.length()
		list[i].Running, list[i].Waiting = ep.queue.length()
		list[i].Running, list[i].Waiting = list[i].Running+running, list[i].Waiting+waiting
		list[i].Budgets = ep.limits.All()
	}
	return list
}

// Served reports whether an endpoint has ever given something that it was asked for, so that the upstream is known to exist.
func (r *Registry) Served() bool {
	for _, ep := range r.endpoints {
		ep.condition.mu.Lock()
		served := ep.condition.served
		ep.condition.mu.Unlock()
		if served {
			return true
		}
	}
	return false
}

func (c *condition) status(now time.Time) EndpointStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := EndpointStatus{State: EndpointUp, LastError: c.err, LastErrorAt: c.errAt}
	switch {
	case !c.registry.down.IsZero():
		s.State, s.Since = EndpointOpen, c.registry.down
	case !c.asked:
		s.State = EndpointUnknown
	case !c.bodies.down.IsZero():
		s.State, s.Since = EndpointDegraded, c.bodies.down
	case c.registry.failed > 0, c.bodies.failed > 0, now.Before(c.limited[documents]), now.Before(c.limited[blobs]):
		s.State = EndpointDegraded
	default:
		if s.Since = c.registry.up; c.bodies.up.After(s.Since) {
			s.Since = c.bodies.up
		}
	}
	return s
}

// verdict is what the outcome of a request says about who was asked.
type verdict int

const (
	silent   verdict = iota // nothing: it was we who gave up
	answered                // a no is an answer
	limiting
	stumbled // which may be chance
	broken   // nobody gets through
)

// judge says what an error means for the endpoint. bodies: it is about blobs on their way.
func judge(ctx context.Context, k kind, err error) (v verdict, bodies bool) {
	f, _ := errors.AsType[*fault.Failure](err)
	bodies = k == blobs && f != nil &&
		(f.Stage == fault.StepBlobHost || f.Step.Name == fault.StepBlobHost || f.Step.Name == fault.StepBody)
	if f != nil && f.Redirected && f.Stage == fault.StepList {
		return answered, bodies // what it was sent to for a list is another host's affair
	}
	if r, ok := fault.RefusalIn(err); ok {
		switch {
		case r.Status == http.StatusTooManyRequests, r.Status == http.StatusServiceUnavailable && r.RetryAfter > 0:
			return limiting, bodies
		case r.Status >= 500 && r.Status != http.StatusNotImplemented:
			return stumbled, bodies
		}
		return answered, bodies
	}
	if _, ours := errors.AsType[*fault.QueueError](err); ours {
		return silent, bodies
	}
	if _, ours := errors.AsType[*memory.FullError](err); ours {
		return silent, bodies
	}
	_, impatient := errors.AsType[*fault.PatienceError](err)
	if !impatient && ctx.Err() != nil {
		return silent, bodies
	}
	if e, ok := errors.AsType[*fault.ContentError](err); ok {
		switch {
		case guard.Claim && e.Claimed:
			return answered, bodies
		case e.Kind == fault.ContentStalled, e.Kind == fault.ContentSlow:
			return broken, bodies
		case e.Kind == fault.ContentTooLarge, e.Kind == fault.ContentNotManifest:
			return answered, bodies
		}
		return stumbled, bodies
	}
	if _, ok := errors.AsType[*oci.ManifestError](err); ok {
		return answered, bodies
	}
	if _, ok := errors.AsType[*fault.AwayError](err); ok {
		return answered, bodies
	}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case err == nil:
		return answered, bodies
	case untrusted:
		return broken, bodies
	case fault.IsBroken(err), fault.IsPermanent(err):
		return stumbled, bodies
	}
	return broken, bodies
}

// note takes in how a request to the endpoint ended. What of it is news goes to the log.
func (c *call) note(ctx context.Context, k kind, err error) {
	v, bodies := judge(ctx, k, err)
	if v == silent {
		return
	}
	h, now := &c.ep.condition, time.Now()
	h.mu.Lock()
	var said []news
	h.asked, h.served = true, h.served || err == nil
	if v != answered {
		h.err, h.errAt = err.Error(), now
	}
	b := &h.registry
	if bodies {
		// Whatever became of the blob, the registry itself had answered.
		said = h.back(said, &h.registry, now)
		b = &h.bodies
	}
	switch v {
	case limiting:
		r, _ := fault.RefusalIn(err)
		if r.Assumed {
			r.RetryAfter = limit.DefaultPause
		}
		h.limited[k] = now.Add(min(cmp.Or(r.RetryAfter, limit.DefaultPause), limit.LongestTrust))
	case answered:
		said = h.back(said, b, now)
	default:
		if b.fail(now, v == broken) {
			said = append(said, news{what: h.nameOf(b), err: err})
		} else if bodies && h.trial {
			b.again(now)
		}
		h.trial = h.trial && !bodies
		if !h.registry.down.IsZero() {
			c.probe(c.ep)
		}
	}
	h.mu.Unlock()
	c.tell(c.ep, said)
}

// delivered notes that an endpoint sends blobs.
func (c *call) delivered() {
	h := &c.ep.condition
	h.mu.Lock()
	h.trial = false
	said := h.back(nil, &h.bodies, time.Now())
	h.mu.Unlock()
	c.tell(c.ep, said)
}

// news is what is told of an endpoint.
type news struct {
	what  string
	err   error // why it is down; nil: it is back
	after time.Duration
}

// back notes that something works. The lock is held.
func (c *condition) back(said []news, b *breaker, now time.Time) []news {
	if is, after := b.works(now); is {
		said = append(said, news{what: c.nameOf(b), after: after})
	}
	return said
}

func (c *condition) nameOf(b *breaker) string {
	if b == &c.bodies {
		return "blobs"
	}
	return "all"
}

// tell logs news of an endpoint.
func (c *core) tell(ep *target, said []news) {
	for _, n := range said {
		switch {
		case n.err == nil:
			c.o.Log.Info("an endpoint is back", "endpoint", ep.Name, "what", n.what, "after",
				n.after.Round(time.Millisecond))
		case len(c.endpoints) > 1:
			c.o.Log.Warn("an endpoint is down: others are asked before it", "endpoint", ep.Name, "what", n.what,
				"err", n.err)
		default:
			c.o.Log.Warn("the endpoint is down", "endpoint", ep.Name, "what", n.what, "err", n.err)
		}
	}
}

// probe has an endpoint that is down pinged until it answers. The only endpoint there is gets no pings: it is asked in
// any case. The condition's lock is held.
func (c *core) probe(ep *target) {
	h := &ep.condition
	if h.probing || len(c.endpoints) == 1 {
		return
	}
	h.probing = c.probes.start(func(ctx context.Context) {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			h.mu.Lock()
			if h.registry.down.IsZero() || ctx.Err() != nil {
				h.probing = false
				h.mu.Unlock()
				return
			}
			timer.Reset(time.Until(h.registry.until))
			h.mu.Unlock()
			select {
			case <-timer.C:
			case <-ctx.Done():
				continue
			}
			err := c.ping(ctx, ep)
			h.mu.Lock()
			var said []news
			switch now := time.Now(); {
			case err == nil:
				said = h.back(said, &h.registry, now)
			case ctx.Err() == nil:
				h.err, h.errAt = err.Error(), now
				if !h.registry.down.IsZero() {
					h.registry.again(now)
				}
			}
			h.mu.Unlock()
			c.tell(ep, said)
		}
	})
}

// background is work that ends with whoever owns it.
type background struct {
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex // guards closed; a leaf
	closed bool
}

func newBackground() *background {
	b := new(background)
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// start runs f, unless it is too late. It reports whether.
func (b *background) start(f func(ctx context.Context)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.wg.Go(func() { f(b.ctx) })
	return true
}

// close ends the work and waits for it.
func (b *background) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.wg.Wait()
}
