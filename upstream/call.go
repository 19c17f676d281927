package upstream

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// call is one operation of a caller: what is asked of which endpoint, as whom, and what was tried so far. It is for
// one goroutine.
type call struct {
	*core
	ep         *target // that is being asked
	as         *Registry
	op         string
	name       string // of the repository, as our callers know it
	repository string // as the endpoint knows it
	reference  string
	trace      *fault.Trace    // of what was tried
	chosen     auth.Source     // of those for the endpoint; nil: not yet
	choices    []auth.Source   // those behind it
	cred       auth.Credential // as it was when last asked for
	sourceErr  error           // why there is none
	headed     bool            // the endpoint was asked by HEAD
	pinged     bool            // its root was asked how it lets people in
	open       bool            // the endpoint had shown a manifest of the repository without a login, when the call turned to it
	plain      bool            // no login of ours is shown: the question is whether the repository is public
	loyal      bool            // our credential's no is enough: nobody is not asked for after it
	refused    []*token        // that were new, and no good all the same
	failures   []failure       // one for each endpoint that was asked in vain: the last
}

func (r *Registry) call(op, repository, reference string) *call {
	c := &call{core: r.core, as: r, op: op, name: repository, reference: reference, trace: new(fault.Trace)}
	c.at(r.endpoints[0])
	return c
}

// at turns to an endpoint.
func (c *call) at(ep *target) {
	if c.ep != ep {
		c.trace.Endpoint = ep.Name
		c.ep, c.repository, c.cred, c.sourceErr, c.headed = ep, ep.Prefix+c.name, noCredential, nil, false
		c.pinged, c.open = false, ep.public.has(c.repository, time.Now())
		c.chosen, c.choices = nil, nil
	}
}

// withheld reports whether our credential must not be shown for the repository, since it may be private.
func (c *call) withheld() bool {
	return guard.Public && c.o.Public && c.as.own && !c.ep.public.has(c.repository, time.Now())
}

// anonymous reports whether the call goes without a credential of ours.
func (c *call) anonymous() bool {
	return c.withheld() || guard.Public && c.plain && c.o.Public && c.as.own
}

// wrap makes what ended the call into its *Error.
func (c *call) wrap(err error) error {
	if err == nil {
		return nil
	}
	e := &fault.Error{
		Op: c.op, Upstream: c.o.Name, Repository: c.name, Reference: c.reference,
		Credential: c.status(), PublicOnly: c.withheld(), Open: c.open, Err: err,
	}
	if f, ok := errors.AsType[*fault.Failure](err); ok {
		e.Status, e.Code, e.Message, e.BodyKind = f.Status, f.Code, f.Message, f.BodyKind
		e.Challenge, e.RetryAfter, e.MirrorReason, e.Err = f.Challenge, f.RetryAfter, f.Mirror, f.Err
		if f.Status == http.StatusTooManyRequests {
			if b, ok := c.ep.limits.Of(c.cred.Name); ok {
				e.Budget = &b
			}
		}
		c.trace.Decided(f.Step)
	}
	c.trace.Blame(err)
	e.Steps = slices.Clone(c.trace.Steps)
	return e
}

// status is the credential of the call as it stands, zero for none.
func (c *call) status() auth.Status {
	return c.health.status(c.source(), c.cred, c.sourceErr)
}

// sourcePatience is how long a request waits for a credential. What is public must not wait for a cloud that hangs.
const sourcePatience = 8 * time.Second

// credential asks the source who we are now. A source that gives none is followed by the next that fits; where none gives
// one we are nobody: public images still work, and for the others the error says why we had none.
func (c *call) credential(ctx context.Context) auth.Credential {
	if c.anonymous() {
		c.cred, c.sourceErr = noCredential, nil
		return noCredential
	}
	cred := c.have(ctx, c.source().Credential)
	chosen, err := c.chosen, c.sourceErr
	for cred.IsAnonymous() && len(c.choices) > 0 {
		c.chosen, c.choices = c.choices[0], c.choices[1:]
		cred = c.have(ctx, c.chosen.Credential)
	}
	if cred.IsAnonymous() {
		c.chosen, c.sourceErr = chosen, err
	}
	return cred
}

// another asks for something better than a credential that was refused, and gives the same where there is none.
func (c *call) another(ctx context.Context, refused auth.Credential) auth.Credential {
	return c.have(ctx, func(ctx context.Context) (auth.Credential, error) {
		return auth.Renew(ctx, c.source(), refused)
	})
}

func (c *call) have(ctx context.Context, get func(context.Context) (auth.Credential, error)) auth.Credential {
	ctx, cancel := context.WithTimeoutCause(ctx, sourcePatience, &fault.PatienceError{After: sourcePatience})
	defer cancel()
	cred, err := get(ctx)
	if err != nil {
		c.sourceErr, cred = err, noCredential
	} else {
		c.sourceErr = nil
	}
	c.cred = cred
	c.health.use(cred)
	if c.ep.IsRegistry && (c.ep.credential == nil || !c.as.own) {
		c.as.last.Store(&lastCredential{cred, err})
	}
	return cred
}

// exchange makes one request with a grant and notes what happened.
func (c *call) exchange(ctx context.Context, rt http.RoundTripper, a endpoint.Request, g grant) (*http.Response, error) {
	req, err := c.ep.NewRequest(a)
	if err != nil {
		return nil, &fault.Failure{Err: err, Step: fault.Step{Name: a.Step}}
	}
	if err := authorize(req, cmp.Or(g.bound, c.ep.Origin), g.value); err != nil {
		return nil, &fault.Failure{Err: err, Step: fault.Step{Name: a.Step}}
	}
	if g.token != nil {
		c.shown.add(g.token.value)
	}
	resp, steps, err := c.ep.RoundTrip(ctx, rt, req, a)
	c.trace.Add(steps...)
	if err != nil {
		return nil, &fault.Failure{Err: err, Step: steps[len(steps)-1], Stage: a.Step}
	}
	return resp, nil
}

// refuse makes a failed answer a fault, and closes it.
func (c *call) refuse(resp *http.Response) *fault.Failure {
	defer resp.Body.Close()
	last := c.trace.Last() // of the exchange that gave the answer
	f := &fault.Failure{Refusal: fault.ReadRefusal(resp, c.secrets(), last.Name == fault.StepToken)}
	last.Err = errors.New(f.Error())
	f.Step, f.Stage = *last, last.Name
	return f
}
