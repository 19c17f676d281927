package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
)

// failure is how an endpoint failed a call, for the last time.
type failure struct {
	ep        *endpoint
	err       error
	step      Step
	chosen    auth.Source
	cred      auth.Credential
	sourceErr error
}

// plan is the order in which endpoints are asked: as they were given, those that are down or limit us behind the
// others. ready is how many are not.
func (c *core) plan(k kind) (order []*endpoint, ready int) {
	now := time.Now()
	var later []*endpoint
	for _, ep := range c.endpoints {
		if ep.condition.ready(k, now) {
			order = append(order, ep)
		} else {
			later = append(later, ep)
		}
	}
	return append(order, later...), len(order)
}

// anywhere asks one endpoint after another, until one has given it, or has said a no that is to be believed.
func anywhere[T any](ctx context.Context, c *call, ask func(ctx context.Context) (T, error)) (T, error) {
	order, _ := c.plan(documents)
	for i, ep := range order {
		c.at(ep)
		short, calm, end := hurried(ctx, c.share(len(order)-1-i))
		v, err := ask(short)
		calm()
		end()
		c.note(ctx, documents, err)
		if err == nil {
			return v, nil
		}
		c.failed(err)
		if ctx.Err() != nil || !c.goesOn(err) {
			break
		}
	}
	var none T
	return none, c.decide()
}

// goesOn reports whether another endpoint may do better than the one that has failed with err. A mirror of the registry
// may lack what the registry has, and not know us; the no of the registry itself is one, and what it keeps from us
// nobody else shall give us.
func (c *call) goesOn(err error) bool {
	if _, ok := errors.AsType[*QueueError](err); ok {
		return false // the time that somebody waits is over
	}
	if _, ok := errors.AsType[*memory.FullError](err); ok {
		return false // nor has the mirror room for what another one sends
	}
	if f, ok := errors.AsType[*fault](err); ok && f.stage == StepBlobHost {
		return true // the registry itself had agreed
	}
	if r, ok := refusalIn(err); ok && (r.status >= 500 || r.status == http.StatusTooManyRequests) {
		return true
	} else if ok {
		return !c.ep.itself
	}
	if e, ok := errors.AsType[*ContentError](err); ok && (e.Kind == ContentTooLarge || e.Kind == ContentNotManifest) {
		return !c.ep.itself
	}
	if _, ok := errors.AsType[*oci.ManifestError](err); ok {
		return !c.ep.itself
	}
	return true
}

// failed notes how the endpoint has failed.
func (c *call) failed(err error) {
	f := failure{ep: c.ep, err: err, chosen: c.chosen, cred: c.cred, sourceErr: c.sourceErr}
	if n := len(c.steps); n > 0 {
		if c.steps[n-1].Err == nil {
			c.steps[n-1].Err = err
		}
		f.step = c.steps[n-1]
	}
	if t, ok := errors.AsType[*fault](err); ok {
		f.step = t.step
	}
	c.failures = append(slices.DeleteFunc(c.failures, func(old failure) bool { return old.ep == c.ep }), f)
}

// decide is the error of a call that has failed everywhere: that of the registry itself, whatever its mirrors say, for
// they don't know. The call turns to the endpoint that it is from.
func (c *call) decide() error {
	if len(c.failures) == 0 {
		return nil
	}
	f := c.failures[len(c.failures)-1]
	for _, other := range c.failures {
		if other.ep.itself {
			f = other
		}
	}
	c.at(f.ep)
	c.chosen, c.cred, c.sourceErr = f.chosen, f.cred, f.sourceErr
	if f.step.Name != "" {
		c.lastIs(f.step)
	}
	return f.err
}

// patienceError says that an endpoint took too long, as there were others to ask.
type patienceError struct{ d time.Duration }

func (e *patienceError) Error() string {
	return fmt.Sprintf("no answer within %s", e.d.Round(time.Millisecond))
}

// Timeout is true, as net.Error has it.
func (e *patienceError) Timeout() bool { return true }

// Unwrap makes errors.Is(err, context.DeadlineExceeded) true.
func (e *patienceError) Unwrap() error { return context.DeadlineExceeded }

// share is how long an endpoint may take while there are others to ask after it: they share the time for which somebody
// waits. 0: as long as it takes.
func (c *core) share(others int) time.Duration {
	if others <= 0 {
		return 0
	}
	return c.o.HeaderTimeout / time.Duration(others+1)
}

// hurried ends a context after d, unless calm is called before. d of 0 never does.
func hurried(ctx context.Context, d time.Duration) (_ context.Context, calm func(), end context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	end = func() { cancel(nil) }
	if d == 0 {
		return ctx, func() {}, end
	}
	timer := time.AfterFunc(d, func() { cancel(&patienceError{d}) })
	return ctx, func() { timer.Stop() }, end
}
