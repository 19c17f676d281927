package upstream

import (
	"errors"
	"net/http"
	"slices"

	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/login"
)

// call is one operation of a caller: what is asked of which endpoint, and what was tried so far. It is for one goroutine.
type call struct {
	*core
	ep         *target // that is being asked
	login      *login.Transport
	registry   *Registry
	op         string
	how        login.Operation
	trace      *fault.Trace // of what was tried
	repository string       // as the endpoint knows it
	reference  string
	open       bool                   // the endpoint had shown a manifest of the repository without a login, when the call turned to it
	failures   []failure              // the last one of each endpoint that was asked
	known      func(host string) bool // redirects to which hosts are not followed; nil: all are
}

func (r *Registry) call(op, repository, reference string) *call {
	return r.callAs(login.Operation{Name: repository}, op, reference)
}

func (r *Registry) callAs(how login.Operation, op, reference string) *call {
	how.Trace = new(fault.Trace)
	c := &call{core: r.core, registry: r, op: op, how: how, trace: how.Trace, reference: reference}
	c.at(c.asked()[0])
	return c
}

// at turns to an endpoint.
func (c *call) at(ep *target) {
	if c.ep != ep {
		c.trace.Endpoint = ep.Name
		c.ep, c.repository = ep, ep.Prefix+c.how.Name
		c.login, c.open = c.logins.New(ep.Known, c.registry.identity, c.how), ep.IsPublic(c.repository)
	}
}

// Wrap makes what ended the call into its *fault.Error.
func (c *call) Wrap(err error) error {
	if err == nil {
		return nil
	}
	e := &fault.Error{
		Op: c.op, Upstream: c.o.Name, Repository: c.how.Name, Reference: c.reference,
		Credential: c.login.Status(), PublicOnly: c.login.Withheld(), Open: c.open, Err: err,
	}
	if f, ok := errors.AsType[*fault.Failure](err); ok {
		e.Status, e.Code, e.Message, e.BodyKind = f.Status, f.Code, f.Message, f.BodyKind
		e.Challenge, e.RetryAfter, e.MirrorReason, e.Err = f.Challenge, f.RetryAfter, f.Mirror, f.Err
		if f.Status == http.StatusTooManyRequests {
			if b, ok := c.login.Budget(); ok {
				e.Budget = &b
			}
		}
		c.trace.Decided(f.Step)
	}
	if r, ok := errors.AsType[*fault.ReserveError](err); ok {
		r.Upstream = c.o.Name
	}
	c.trace.Blame(err)
	e.Steps = slices.Clone(c.trace.Steps)
	return e
}
