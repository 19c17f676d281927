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

// Status is the health of the credential that the requests were made with, zero for none.
func (t *Transport) Status() auth.Status {
	return t.up.standing.status(t.source(), t.credential, t.sourceErr)
}

// Credential is the name of the credential that the requests were made with; empty: none, or that of a client.
func (t *Transport) Credential() string { return t.credential.Name }

// Budget is what is left of the limits of that credential. False: the registry has not said.
func (t *Transport) Budget() (limit.Budget, bool) { return t.ep.Limits.Of(t.credential.Name) }

// SourceFailed reports whether the source of the credential failed.
func (t *Transport) SourceFailed() bool { return t.sourceErr != nil }

// CredentialKey is equal for requests that were made with the same credential.
func (t *Transport) CredentialKey() any { return identityOf(t.credential) }

// IsAnonymous reports whether the requests were made without a credential.
func (t *Transport) IsAnonymous() bool { return t.credential.IsAnonymous() }

// publicOnly reports whether the credential is for public repositories alone.
func (t *Transport) publicOnly() bool { return guard.Public && t.up.o.Public && t.as.Configured }

// Withheld reports whether our credential must not be shown for the repository, since it may be private.
func (t *Transport) Withheld() bool {
	return t.publicOnly() && !t.ep.IsPublic(t.repository)
}

// isAnonymous reports whether requests are made without a credential of ours.
func (t *Transport) isAnonymous() bool {
	return t.Withheld() || t.publicOnly() && t.op.WithoutLogin
}

// CouldLogIn reports whether the requests were made without a credential that is there, and may be shown for the repository.
func (t *Transport) CouldLogIn() bool {
	if !t.isAnonymous() || t.Withheld() {
		return false
	}
	s, ok := t.source().(auth.Credential)
	return !ok || !s.IsAnonymous()
}

// sources are the credentials that fit the repository, in the order in which they are tried: of those that fit best the one
// with most left of its limits first, and behind all of them those that have nothing left, or that the repository has
// refused lately. There is always one; no other endpoint is shown a credential of this one.
func (t *Transport) sources() []auth.Source {
	s := auth.Anonymous
	switch {
	case t.as.Configured && t.ep.source != nil:
		s = t.ep.source
	case t.ep.IsRegistry:
		s = t.as.Source
	}
	all := auth.All(s, t.op.Name)
	if len(all) > 1 {
		type order struct {
			back int // places behind the others
			left int64
		}
		of := make(map[string]order, len(all))
		for _, x := range all {
			name := auth.Describe(x.Source).Name
			o := order{left: t.ep.Limits.Left(name)}
			if t.ep.Limits.Exhausted(limit.Class{Credential: name, Method: http.MethodGet, Target: limit.TargetManifest}, 0) {
				o.back++
			}
			if t.up.standing.refusals.Has(purpose{name, t.repository}) {
				o.back += 2
			}
			of[name] = o
		}
		slices.SortStableFunc(all, func(a, b auth.Candidate) int {
			x, y := of[auth.Describe(a.Source).Name], of[auth.Describe(b.Source).Name]
			return cmp.Or(cmp.Compare(x.back, y.back), cmp.Compare(b.Rank, a.Rank), cmp.Compare(y.left, x.left))
		})
	}
	list := make([]auth.Source, 0, max(len(all), 1))
	for _, x := range all {
		list = append(list, x.Source)
	}
	if len(list) == 0 {
		list = append(list, auth.Anonymous)
	}
	return list
}

// source is the chosen one.
func (t *Transport) source() auth.Source {
	if t.chosen == nil {
		t.others = t.sources()
		t.chosen, t.others = t.others[0], t.others[1:]
	}
	return t.chosen
}

// sourcePatience is how long a request waits for a credential. What is public must not wait for a cloud that hangs.
const sourcePatience = 8 * time.Second

// current asks the source for its credential. A source that gives none is followed by the next one that fits; where none
// gives one the request is made anonymously: public images still work, and for the others the error says why there was none.
func (t *Transport) current(ctx context.Context) auth.Credential {
	if t.isAnonymous() {
		t.credential, t.sourceErr = noCredential, nil
		return noCredential
	}
	cred := t.get(ctx, t.source().Credential)
	chosen, err := t.chosen, t.sourceErr
	for cred.IsAnonymous() && len(t.others) > 0 {
		t.chosen, t.others = t.others[0], t.others[1:]
		cred = t.get(ctx, t.chosen.Credential)
	}
	if cred.IsAnonymous() {
		t.chosen, t.sourceErr = chosen, err
	}
	return cred
}

// get gets a credential of the chosen source.
func (t *Transport) get(ctx context.Context, from func(context.Context) (auth.Credential, error)) auth.Credential {
	ctx, cancel := context.WithTimeoutCause(ctx, sourcePatience, &fault.PatienceError{After: sourcePatience})
	defer cancel()
	cred, err := from(ctx)
	t.sourceErr = err
	if err != nil {
		cred = noCredential
	}
	t.credential = cred
	t.up.uses(cred)
	if t.ep.IsRegistry && (t.ep.source == nil || !t.as.Configured) {
		t.as.latest.Store(&latest{cred, err})
	}
	return cred
}

// renewCredential gets another credential of the source of the one that was refused. False: there is none.
func (t *Transport) renewCredential(ctx context.Context, s *state) bool {
	if t.up.standing.failedRenewals.Has(purpose{s.credential.Name, t.repository}) {
		s.tried.add(noteFailedRenewal)
		return false
	}
	old := s.credential
	cred := t.get(ctx, func(ctx context.Context) (auth.Credential, error) { return auth.Renew(ctx, t.source(), old) })
	if cred.IsAnonymous() || identityOf(cred) == identityOf(old) {
		t.credential = old // that is the one that was refused
		s.tried.add(noteFailedRenewal)
		return false
	}
	if t.up.standing.renewed(cred) {
		t.up.o.Log.Info("renewed a refused credential", "credential", cred.Name)
	}
	s.renew(cred)
	return true
}

// next goes on with the next of our credentials that has something left. False: there is none.
func (t *Transport) next(ctx context.Context, s *state, r endpoint.Request) bool {
	if s.phase == asAnonymous || t.isAnonymous() {
		return false
	}
	chosen, had, err := t.chosen, t.credential, t.sourceErr
	for len(t.others) > 0 {
		t.chosen, t.others = t.others[0], t.others[1:]
		cred := t.get(ctx, t.chosen.Credential)
		if cred.IsAnonymous() || t.isExhausted(ctx, cred, r) {
			continue
		}
		s.use(cred)
		return true
	}
	t.chosen, t.credential, t.sourceErr = chosen, had, err // which the error is about
	return false
}

// Spare returns a context for work that can wait: requests under it leave the part Options.Reserve of a limit to others, and
// fail as if the limit were reached.
func Spare(ctx context.Context) context.Context { return context.WithValue(ctx, spareKey{}, true) }

type spareKey struct{}

// reserve is the part of limits that a request leaves to others.
func (t *Transport) reserve(ctx context.Context) float64 {
	if ctx.Value(spareKey{}) != nil {
		return t.up.o.Reserve
	}
	return 0
}

func classOf(cred auth.Credential, r endpoint.Request) limit.Class {
	return limit.Class{Credential: cred.Name, Method: r.Method, Target: string(r.Step)}
}

// isCounted reports whether we keep what a credential has left. Those of clients, which have no name, are their own business.
func isCounted(cred auth.Credential) bool { return cred.IsAnonymous() || cred.Name != "" }

// isExhausted reports whether a credential has nothing left for a request.
func (t *Transport) isExhausted(ctx context.Context, cred auth.Credential, r endpoint.Request) bool {
	return isCounted(cred) && t.ep.Limits.Exhausted(classOf(cred, r), t.reserve(ctx))
}

// admit is limit.Limits.Admit for a credential.
func (t *Transport) admit(ctx context.Context, cred auth.Credential, r endpoint.Request) (p limit.Pause, ok bool, done func()) {
	if !isCounted(cred) {
		return limit.Pause{}, true, func() {}
	}
	return t.ep.Limits.Admit(classOf(cred, r), t.reserve(ctx))
}

// notAsked is the failure of a request that is not made: what was said last to one like it.
func (t *Transport) notAsked(r endpoint.Request, p limit.Pause) *fault.Failure {
	host, _ := endpoint.OriginOf(r.URL)
	f := &fault.Failure{Stage: r.Step, Step: fault.Step{Name: r.Step, Host: host.String(), Err: fault.ErrNotAsked}}
	var refused bool
	if f.Refusal, refused = fault.RefusalIn(p.Cause); !refused {
		f.Refusal = fault.Refusal{Status: http.StatusTooManyRequests, Size: -1}
	}
	f.RetryAfter = max(time.Until(p.Until), time.Second)
	t.op.Trace.Add(f.Step)
	return f
}

// pause records a 429.
func (t *Transport) pause(cred auth.Credential, r endpoint.Request, f *fault.Failure) {
	if !isCounted(cred) {
		return
	}
	cause := *f
	d, stated := t.ep.Limits.Refused(classOf(cred, r), f.RetryAfter, &cause)
	f.RetryAfter, f.Assumed = d, !stated
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
	if g.isEmpty() {
		name = ""
	} else if !isCounted(cred) {
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
