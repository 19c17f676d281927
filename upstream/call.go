package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/guard"
)

// call is one operation of a caller: what is asked of which endpoint, as whom, and what was tried so far. It is for
// one goroutine.
type call struct {
	*core
	ep         *endpoint // that is being asked
	as         *Registry
	op         string
	name       string // of the repository, as our callers know it
	repository string // as the endpoint knows it
	reference  string
	steps      []Step
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
	c := &call{core: r.core, as: r, op: op, name: repository, reference: reference}
	c.at(r.endpoints[0])
	return c
}

// at turns to an endpoint.
func (c *call) at(ep *endpoint) {
	if c.ep != ep {
		c.ep, c.repository, c.cred, c.sourceErr, c.headed = ep, ep.prefix+c.name, noCredential, nil, false
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

// maxSteps bounds what a call remembers: a large blob over a bad line is asked for hundreds of times. The first
// steps show how it began, the last ones how it ended.
const maxSteps = 64

func (c *call) trace(steps ...Step) {
	for _, s := range steps {
		s.Endpoint = orElse(s.Endpoint, c.ep.name)
		c.steps = append(c.steps, s)
	}
	if over := len(c.steps) - maxSteps; over > 0 {
		c.steps = slices.Delete(c.steps, maxSteps/4, maxSteps/4+over)
	}
}

// fault is why a request failed: an answer that refuses (status is set), or err. Step is where.
type fault struct {
	refusal
	err   error
	step  Step
	stage StepName // what for the request was that never got an answer; else empty
	away  bool     // it was made to another host than the endpoint, where a redirect led
}

func (f *fault) Error() string {
	if f.err != nil {
		return f.err.Error()
	}
	return strings.TrimSpace(fmt.Sprintf("status %d %s", f.status, f.code))
}

func (f *fault) Unwrap() error { return f.err }

// refusalIn is the answer that an error stands for.
func refusalIn(err error) (refusal, bool) {
	if f, ok := errors.AsType[*fault](err); ok && f.status != 0 && f.err == nil {
		return f.refusal, true
	}
	return refusal{}, false
}

// wrap makes what ended the call into its *Error.
func (c *call) wrap(err error) error {
	if err == nil {
		return nil
	}
	e := &Error{
		Op: c.op, Upstream: c.o.Name, Repository: c.name, Reference: c.reference,
		Credential: c.status(), PublicOnly: c.withheld(), Open: c.open, Err: err,
	}
	if f, ok := errors.AsType[*fault](err); ok {
		e.Status, e.Code, e.Message, e.BodyKind = f.status, f.code, f.message, f.kind
		e.Challenge, e.RetryAfter, e.MirrorReason, e.Err = f.challenge, f.retryAfter, f.mirror, f.err
		if f.status == http.StatusTooManyRequests {
			if b, ok := c.ep.limits.Of(c.cred.Name); ok {
				e.Budget = &b
			}
		}
		c.lastIs(f.step)
	}
	if n := len(c.steps); n > 0 && c.steps[n-1].Err == nil {
		c.steps[n-1].Err = err
	}
	e.Steps = slices.Clone(c.steps)
	return e
}

// lastIs moves the step that decided to the end: after it somebody may have been asked as nobody, in vain.
func (c *call) lastIs(s Step) {
	at := -1
	for i, old := range c.steps {
		if old.Name == s.Name && old.Host == s.Host && old.Status == s.Status && old.Took == s.Took {
			at = i
		}
	}
	if at >= 0 {
		c.steps = slices.Delete(c.steps, at, at+1)
	}
	s.Endpoint = orElse(s.Endpoint, c.ep.name)
	c.steps = append(c.steps, s)
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
	ctx, cancel := context.WithTimeoutCause(ctx, sourcePatience, &patienceError{sourcePatience})
	defer cancel()
	cred, err := get(ctx)
	if err != nil {
		c.sourceErr, cred = err, noCredential
	} else {
		c.sourceErr = nil
	}
	c.cred = cred
	c.health.use(cred)
	if c.ep.itself && (c.ep.credential == nil || !c.as.own) {
		c.as.last.Store(&lastCredential{cred, err})
	}
	return cred
}

// exchange makes one request with a grant and notes what happened.
func (c *call) exchange(ctx context.Context, rt http.RoundTripper, a ask, g grant) (*http.Response, error) {
	req, err := c.request(a)
	if err != nil {
		return nil, &fault{err: err, step: Step{Name: a.step}}
	}
	if err := authorize(req, orElse(g.bound, c.ep.origin), g.value); err != nil {
		return nil, &fault{err: err, step: Step{Name: a.step}}
	}
	if g.token != nil {
		c.shown.add(g.token.value)
	}
	resp, steps, err := c.roundTrip(ctx, rt, req, a)
	c.trace(steps...)
	if err != nil {
		return nil, &fault{err: err, step: steps[len(steps)-1], stage: a.step}
	}
	return resp, nil
}

// refuse makes a failed answer a fault, and closes it.
func (c *call) refuse(resp *http.Response) *fault {
	defer resp.Body.Close()
	last := &c.steps[len(c.steps)-1] // of the exchange that gave the answer
	f := &fault{refusal: readRefusal(resp, c.secrets(), last.Name == StepToken)}
	last.Err = errors.New(f.Error())
	f.step, f.stage = *last, last.Name
	return f
}

// spill reads a body that nobody wants, as far as that costs less than a new connection, and closes it.
func spill(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxErrorBody)
	body.Close()
}
