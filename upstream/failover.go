package upstream

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// failure is how an endpoint failed a call, for the last time.
type failure struct {
	ep        *target
	err       error
	step      fault.Step
	chosen    auth.Source
	cred      auth.Credential
	sourceErr error
}

// plan is the order in which endpoints are asked: as they were given, those that are down or limit us behind the
// others. ready is how many are not.
func (c *core) plan(k kind) (order []*target, ready int) {
	now := time.Now()
	var later []*target
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
	if _, ok := errors.AsType[*fault.QueueError](err); ok {
		return false // the time that somebody waits is over
	}
	if _, ok := errors.AsType[*memory.FullError](err); ok {
		return false // nor has the mirror room for what another one sends
	}
	if f, ok := errors.AsType[*fault.Failure](err); ok && f.Stage == fault.StepBlobHost {
		return true // the registry itself had agreed
	}
	if r, ok := fault.RefusalIn(err); ok && (r.Status >= 500 || r.Status == http.StatusTooManyRequests) {
		return true
	} else if ok {
		return !c.ep.IsRegistry
	}
	if e, ok := errors.AsType[*fault.ContentError](err); ok && (e.Kind == fault.ContentTooLarge || e.Kind == fault.ContentNotManifest) {
		return !c.ep.IsRegistry
	}
	if _, ok := errors.AsType[*oci.ManifestError](err); ok {
		return !c.ep.IsRegistry
	}
	return true
}

// failed notes how the endpoint has failed.
func (c *call) failed(err error) {
	f := failure{ep: c.ep, err: err, chosen: c.chosen, cred: c.cred, sourceErr: c.sourceErr}
	if last := c.trace.Last(); last != nil {
		c.trace.Blame(err)
		f.step = *last
	}
	if t, ok := errors.AsType[*fault.Failure](err); ok {
		f.step = t.Step
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
		if other.ep.IsRegistry {
			f = other
		}
	}
	c.at(f.ep)
	c.chosen, c.cred, c.sourceErr = f.chosen, f.cred, f.sourceErr
	if f.step.Name != "" {
		c.trace.Decided(f.step)
	}
	return f.err
}

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
	timer := time.AfterFunc(d, func() { cancel(&fault.PatienceError{After: d}) })
	return ctx, func() { timer.Stop() }, end
}
