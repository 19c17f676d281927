package login

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
)

// Identity is with which credential a registry is asked.
type Identity struct {
	Source auth.Source
	// Configured says that Source is the configured one: endpoints with a credential of their own use that instead.
	Configured bool
	// Client says that Source is a client's own login: a refusal of it is the error.
	Client bool

	latest atomic.Pointer[latest]
}

// latest is what the source gave when it was asked last.
type latest struct {
	credential auth.Credential
	err        error
}

// Status is the health of the credential, zero for none.
func (u *Upstream) Status(as *Identity) auth.Status {
	if l := as.latest.Load(); l != nil {
		return u.standing.status(as.Source, l.credential, l.err)
	}
	return auth.Describe(as.Source) // it was not asked yet
}

// chooser chooses with which credential the requests of one operation to one endpoint are made.
type chooser struct {
	up         *Upstream
	ep         *Known
	as         *Identity
	op         Operation
	repository string // as the endpoint knows it

	chosen     auth.Source     // of the sources that fit; nil: not yet
	others     []auth.Source   // that may follow it, the best first
	Credential auth.Credential // with which the requests were made, as chosen gave it last
	SourceErr  error           // why it gave none
}

// Status is the health of the credential that the requests were made with, zero for none.
func (c *chooser) Status() auth.Status {
	return c.up.standing.status(c.source(), c.Credential, c.SourceErr)
}

// Budget is what is left of the limits of that credential. False: the registry has not said.
func (c *chooser) Budget() (limit.Budget, bool) { return c.ep.Limits.Of(c.Credential.Name) }

// CredentialKey is equal for requests that were made with the same credential.
func (c *chooser) CredentialKey() any { return identityOf(c.Credential) }

// publicOnly reports whether the credential is for public repositories alone.
func (c *chooser) publicOnly() bool { return guard.Public && c.up.o.Public && c.as.Configured }

// Withheld reports whether our credential must not be shown for the repository, since it may be private.
func (c *chooser) Withheld() bool {
	return c.publicOnly() && !c.ep.IsPublic(c.repository)
}

// isAnonymous reports whether requests are made without a credential of ours.
func (c *chooser) isAnonymous() bool {
	return c.Withheld() || c.publicOnly() && c.op.WithoutLogin
}

// CouldLogIn reports whether the requests were made without a credential that is there, and may be shown for the repository.
func (c *chooser) CouldLogIn() bool {
	if !c.isAnonymous() || c.Withheld() {
		return false
	}
	s, ok := c.source().(auth.Credential)
	return !ok || !s.IsAnonymous()
}

// sources are the credentials that fit the repository, in the order in which they are tried: of those that fit best the one
// with most left of its limits first, and behind all of them those that have nothing left, or that the repository has
// refused lately. There is always one; no other endpoint is shown a credential of this one.
func (c *chooser) sources() []auth.Source {
	s := auth.Anonymous
	switch {
	case c.as.Configured && c.ep.Source != nil:
		s = c.ep.Source
	case c.ep.IsRegistry:
		s = c.as.Source
	}
	all := auth.All(s, c.op.Name)
	if len(all) > 1 {
		type order struct {
			back int // places behind the others
			left int64
		}
		of := make(map[string]order, len(all))
		for _, x := range all {
			name := auth.Describe(x.Source).Name
			o := order{left: c.ep.Limits.Left(name)}
			if c.ep.Limits.Exhausted(limit.Class{Credential: name, Method: http.MethodGet, Target: limit.TargetManifest}, 0) {
				o.back++
			}
			if c.up.standing.refusals.Has(purpose{name, c.repository}) {
				o.back += 2
			}
			of[name] = o
		}
		slices.SortStableFunc(all, func(a, b auth.Candidate) int {
			x, y := of[auth.Describe(a.Source).Name], of[auth.Describe(b.Source).Name]
			return cmp.Or(cmp.Compare(x.back, y.back), cmp.Compare(b.Rank, a.Rank), cmp.Compare(y.left, x.left))
		})
	}
	var list []auth.Source
	for _, x := range all {
		list = append(list, x.Source)
	}
	if len(list) == 0 {
		return []auth.Source{auth.Anonymous}
	}
	return list
}

// source is the chosen one.
func (c *chooser) source() auth.Source {
	if c.chosen == nil {
		c.others = c.sources()
		c.chosen, c.others = c.others[0], c.others[1:]
	}
	return c.chosen
}

// sourcePatience is how long a request waits for a credential. What is public must not wait for a cloud that hangs.
const sourcePatience = 8 * time.Second

// current asks the source for its credential. A source that gives none is followed by the next one that fits; where none
// gives one the request is made anonymously: public images still work, and for the others the error says why there was none.
func (c *chooser) current(ctx context.Context) auth.Credential {
	if c.isAnonymous() {
		c.Credential, c.SourceErr = noCredential, nil
		return noCredential
	}
	cred := c.get(ctx, c.source().Credential)
	chosen, err := c.chosen, c.SourceErr
	for cred.IsAnonymous() && len(c.others) > 0 {
		cred = c.getOther(ctx)
	}
	if cred.IsAnonymous() {
		c.chosen, c.SourceErr = chosen, err
	}
	return cred
}

// getOther chooses the next of the other sources, and gets its credential.
func (c *chooser) getOther(ctx context.Context) auth.Credential {
	c.chosen, c.others = c.others[0], c.others[1:]
	return c.get(ctx, c.chosen.Credential)
}

// get gets a credential of the chosen source.
func (c *chooser) get(ctx context.Context, from func(context.Context) (auth.Credential, error)) auth.Credential {
	ctx, cancel := context.WithTimeoutCause(ctx, sourcePatience, &fault.PatienceError{After: sourcePatience})
	defer cancel()
	cred, err := from(ctx)
	c.SourceErr = err
	if err != nil {
		cred = noCredential
	}
	c.Credential = cred
	c.up.uses(cred)
	if c.ep.IsRegistry && (c.ep.Source == nil || !c.as.Configured) {
		c.as.latest.Store(&latest{cred, err})
	}
	return cred
}

// renewCredential gets another credential of the source of the one that was refused. False: there is none.
func (c *chooser) renewCredential(ctx context.Context, s *state) bool {
	if c.up.standing.failedRenewals.Has(purpose{s.credential.Name, c.repository}) {
		s.tried[noteFailedRenewal] = true
		return false
	}
	old := s.credential
	cred := c.get(ctx, func(ctx context.Context) (auth.Credential, error) { return auth.Renew(ctx, c.source(), old) })
	if cred.IsAnonymous() || identityOf(cred) == identityOf(old) {
		c.Credential = old // that is the one that was refused
		s.tried[noteFailedRenewal] = true
		return false
	}
	if c.up.standing.renewed(cred) {
		c.up.o.Log.Info("renewed a refused credential", "credential", cred.Name)
	}
	s.renew(cred)
	return true
}

// next goes on with the next of our credentials that has something left. False: there is none.
func (c *chooser) next(ctx context.Context, s *state, r endpoint.Request) bool {
	if s.phase == asAnonymous || c.isAnonymous() {
		return false
	}
	chosen, had, err := c.chosen, c.Credential, c.SourceErr
	for len(c.others) > 0 {
		cred := c.getOther(ctx)
		if cred.IsAnonymous() || c.isExhausted(ctx, cred, r) {
			continue
		}
		s.use(cred)
		return true
	}
	c.chosen, c.Credential, c.SourceErr = chosen, had, err // which the error is about
	return false
}

// Spare returns a context for work that can wait: requests under it leave the part Options.Reserve of a limit to others. Those that
// are not made for that fail with a *fault.ReserveError.
func Spare(ctx context.Context) context.Context { return context.WithValue(ctx, spareKey{}, true) }

// IsSpare reports whether a context is one of Spare.
func IsSpare(ctx context.Context) bool { return ctx.Value(spareKey{}) != nil }

type spareKey struct{}

// Afresh returns a context for requests that prove the right of a login: a token from before a time does not count, since it may
// outlive the right, and neither does an answer to a request without the login, which is an *UnprovenError.
func Afresh(ctx context.Context, since time.Time) context.Context {
	return context.WithValue(ctx, afreshKey{}, since)
}

func isAfresh(ctx context.Context) bool { return ctx.Value(afreshKey{}) != nil }

type afreshKey struct{}

// reserve is the part of limits that a request leaves to others.
func (c *chooser) reserve(ctx context.Context) float64 {
	if IsSpare(ctx) {
		return c.up.o.Reserve
	}
	return 0
}

func classOf(cred auth.Credential, r endpoint.Request) limit.Class {
	return limit.Class{Credential: cred.Name, Method: r.Method, Target: string(r.Step)}
}

// isCounted reports whether we keep what a credential has left. Those of clients, which have no name, are their own business.
func isCounted(cred auth.Credential) bool { return cred.IsAnonymous() || cred.Name != "" }

func (c *chooser) isExhausted(ctx context.Context, cred auth.Credential, r endpoint.Request) bool {
	return isCounted(cred) && c.ep.Limits.Exhausted(classOf(cred, r), c.reserve(ctx))
}

// admit is limit.Limits.Admit for a credential.
func (c *chooser) admit(ctx context.Context, cred auth.Credential, r endpoint.Request) (p limit.Pause, ok bool, done func()) {
	if !isCounted(cred) {
		return limit.Pause{}, true, func() {}
	}
	return c.ep.Limits.Admit(classOf(cred, r), c.reserve(ctx))
}

// notAsked is the failure of a request that is not made with a credential: what was said last to one like it, or that the rest of
// the limit is reserved.
func (t *Transport) notAsked(cred auth.Credential, r endpoint.Request, p limit.Pause) *fault.Failure {
	host, _ := endpoint.OriginOf(r.URL)
	f := &fault.Failure{Stage: r.Step, Step: fault.Step{Name: r.Step, Host: host.String(), Err: fault.ErrNotAsked}}
	var refused bool
	if f.Refusal, refused = fault.RefusalIn(p.Cause); !refused {
		f.Refusal = fault.Refusal{Status: http.StatusTooManyRequests, Size: -1}
	}
	f.RetryAfter = max(time.Until(p.Until), time.Second)
	if p.Reserved {
		f.Err = &fault.ReserveError{Credential: cred.Name, Until: p.Until}
		f.Step.Err = f.Err
	}
	t.op.Trace.Add(f.Step)
	return f
}

// recheckLimit asks by HEAD, which costs nothing where manifests are counted, whether there is more by now.
func (t *Transport) recheckLimit(ctx context.Context, s *state, r endpoint.Request) bool {
	if !isCounted(s.credential) || !t.ep.Limits.RecheckDue(classOf(s.credential, r)) {
		return false
	}
	head := r
	head.Method = http.MethodHead
	if resp, err := t.RoundTrip(ctx, head); err == nil {
		_ = resp.Body.Close()
	}
	return !t.isExhausted(ctx, s.credential, r)
}

// learnBudget takes in what an answer says of our limits. Those of clients' own credentials are not kept.
func (t *Transport) learnBudget(cred auth.Credential, g grant, r endpoint.Request, resp *http.Response, began time.Time) {
	name := cred.Name
	switch {
	case g.isEmpty():
		name = ""
	case !isCounted(cred):
		return
	}
	repository := ""
	if resp.StatusCode == http.StatusOK && classOf(cred, r).Counted() {
		repository = t.op.Name
	}
	b, crossed := t.ep.Limits.Learn(resp.Header, name, repository, began)
	if !crossed {
		return
	}
	attrs := []any{
		"endpoint", t.ep.Name, "credential", cmp.Or(name, "anonymous"), "limit", b.Limit, "remaining", b.Remaining,
		"reset_at", b.MoreAt().UTC().Format(time.RFC3339),
	}
	if b.Remaining == 0 {
		t.up.o.Log.Warn("rate limit exhausted; serving cached content until it resets", attrs...)
		return
	}
	t.up.o.Log.Warn("rate limit nearly exhausted", attrs...)
}
