package upstream

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/login"
)

// failure is how an endpoint has failed a call the last time.
type failure struct {
	ep    *target
	err   error
	step  fault.Step
	login *login.Transport
}

// anywhere asks one endpoint after another, until one has given what is asked for, or has refused in a way that is final.
func anywhere[T any](ctx context.Context, c *call, ask func(ctx context.Context) (T, error)) (T, error) {
	order, _ := endpoint.Order(c.asked(), endpoint.Documents)
	for i, ep := range order {
		c.at(ep)
		short, answered, end := endpoint.WithPatience(ctx, endpoint.Share(c.o.HeaderTimeout, len(order)-1-i))
		v, err := ask(short)
		answered()
		end()
		ep.Health.Record(ctx, endpoint.Documents, err)
		if err == nil {
			return v, nil
		}
		c.Failed(err)
		if ctx.Err() != nil || !c.Continue(err) {
			break
		}
	}
	var none T
	return none, c.Decide()
}

// asked are the endpoints that the call may ask.
func (c *call) asked() []*target {
	if !c.registry.identity.Client {
		return c.endpoints
	}
	return slices.DeleteFunc(slices.Clone(c.endpoints), func(ep *target) bool { return !ep.IsRegistry })
}

// Continue reports whether another endpoint may do better than the one that has failed with err. A mirror of the registry may lack
// content that the registry has, and not know our credential. A refusal of the registry itself is final: no other endpoint may
// give us content that the registry keeps from us.
func (c *call) Continue(err error) bool {
	refusal, refused := fault.RefusalIn(err)
	failure, _ := errors.AsType[*fault.Failure](err)
	content, _ := errors.AsType[*fault.ContentError](err)
	switch {
	case fault.Is[*fault.QueueError](err), fault.Is[*memory.FullError](err):
		return false // the time for which a client waits is over, or the mirror has no memory for the answer of another one either
	case failure != nil && failure.Stage == fault.StepBlobHost:
		return true // the registry itself had granted the request
	case refused && (refusal.Status >= 500 || refusal.Status == http.StatusTooManyRequests):
		return true
	case refused, fault.Is[*oci.ManifestError](err),
		content != nil && (content.Kind == fault.ContentTooLarge || content.Kind == fault.ContentNotManifest):
		return !c.ep.IsRegistry
	}
	return true
}

// Failed records how the endpoint has failed.
func (c *call) Failed(err error) {
	f := failure{ep: c.ep, err: err, login: c.login}
	if last := c.trace.Last(); last != nil {
		c.trace.Blame(err)
		f.step = *last
	}
	if t, ok := errors.AsType[*fault.Failure](err); ok {
		f.step = t.Step
	}
	c.failures = append(slices.DeleteFunc(c.failures, func(old failure) bool { return old.ep == c.ep }), f)
}

// Decide is the error of a call that has failed everywhere: that of the registry itself, if it was asked, since only its answer
// is authoritative. The call turns to the endpoint that the error is from.
func (c *call) Decide() error {
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
	c.login = f.login
	if f.step.Name != "" {
		c.trace.Decided(f.step)
	}
	return f.err
}
