package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
	"github.com/registrymirror/mirror/upstream/limit"
)

var noCredential auth.Credential

// Transport makes the requests of one operation to one endpoint, each with what the registry asks for. It is for one
// goroutine.
type Transport struct {
	chooser
	rootAsked bool     // what /v2/ asks for
	refused   []*token // new ones that the registry refused all the same
}

// Operation is what a Transport is for.
type Operation struct {
	Name  string       // of the repository, as clients know it; empty: none
	Trace *fault.Trace // takes the steps of each request
	// WithoutLogin says that under Options.Public the credential is not shown: the question is whether the repository is
	// public.
	WithoutLogin bool
	// RefusalStands says that a refusal of the credential is the error: neither another credential nor none is tried.
	RefusalStands bool
}

// New makes a Transport.
func (u *Upstream) New(ep *Known, as *Identity, op Operation) *Transport {
	op.RefusalStands = op.RefusalStands || as.Client
	return &Transport{chooser: chooser{up: u, ep: ep, as: as, op: op, repository: ep.Prefix + op.Name}}
}

// Follows says that the operation is made for another one at the same endpoint: what is known of tokens there holds here, too.
func (t *Transport) Follows(other *Transport) { t.refused = slices.Clone(other.refused) }

// result is the outcome of a request, with what an action needs to know of it.
type result struct {
	outcome
	resp    *http.Response // of accepted
	err     error
	status  int   // of the refusal
	grant   grant // that was refused
	refusal *fault.Failure
	pause   limit.Pause // of exhausted and pausing
	news    bool        // the challenge is not the one that was answered
}

// RoundTrip makes a request. A 400, 401, 403 or 429 that stays is an error. Its steps go to the trace.
func (t *Transport) RoundTrip(ctx context.Context, r endpoint.Request) (*http.Response, error) {
	s := &state{refusalStands: t.op.RefusalStands}
	s.use(t.current(ctx))
	for {
		res := t.try(ctx, s, r)
		for again := false; !again; {
			a := s.step(res.outcome)
			if a == finish {
				return t.finish(s, r, res)
			}
			s.tried[a] = true
			again = t.act(ctx, s, r, a, &res)
		}
	}
}

// try makes a request, unless a limit forbids it.
func (t *Transport) try(ctx context.Context, s *state, r endpoint.Request) result {
	pause, ok, done := t.admit(ctx, s.credential, r)
	defer done()
	switch {
	case !ok && time.Until(pause.Until) <= limit.ShortestPause && !pause.Reserved: // a client may have joined, for which nothing is reserved
		return result{outcome: pausing, pause: pause}
	case !ok:
		return result{outcome: exhausted, pause: pause}
	}
	var g grant
	if s.guessErr == nil {
		var err error
		if g, err = t.grant(ctx, s.credential); err != nil {
			return withoutToken(g, err)
		}
	}
	began := time.Now()
	resp, err := t.exchange(ctx, t.ep.Registry, r, g)
	if err != nil {
		return result{outcome: failed, err: err}
	}
	t.learnBudget(s.credential, g, r, resp, began)
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		f := t.Refuse(resp)
		if isCounted(s.credential) {
			cause := *f
			pause, stated := t.ep.Limits.Refused(classOf(s.credential, r), f.RetryAfter, &cause)
			f.RetryAfter, f.Assumed = pause, !stated
		}
		return result{outcome: limited, err: f}
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return t.whyRefused(ctx, s, r, g, t.Refuse(resp))
	}
	if isAfresh(ctx) && g.isEmpty() && resp.StatusCode < 400 {
		endpoint.Drain(resp.Body)
		err := &fault.UnprovenError{}
		t.op.Trace.Last().Err = err
		return result{outcome: failed, err: &fault.Failure{Err: err, Step: *t.op.Trace.Last(), Stage: r.Step}}
	}
	t.ep.Limits.Accepted(classOf(s.credential, r), began)
	t.noteAccepted(s, g, resp.StatusCode)
	return result{outcome: accepted, resp: resp}
}

// withoutToken is the outcome of a request for which there was no token.
func withoutToken(g grant, err error) result {
	res := result{outcome: failed, err: err, grant: g}
	r, refused := fault.RefusalIn(err)
	switch res.status = r.Status; {
	case !refused || r.Status >= 500 || r.Status == http.StatusTooManyRequests:
	case g.sure:
		res.outcome = loginRefused
	default:
		res.outcome = guessRefused
	}
	return res
}

// whyRefused tells what of a request the registry refused, and learns from a challenge.
func (t *Transport) whyRefused(ctx context.Context, s *state, r endpoint.Request, g grant, f *fault.Failure) result {
	res := result{outcome: failed, err: f, status: f.Status, grant: g, refusal: f}
	if f.Status == http.StatusUnauthorized && t.readChallenge(ctx, s, g, f, &res) {
		return res
	}
	// Without a body a 400 or 403 does not say why: a HEAD is repeated by GET.
	mute := r.Method == http.MethodHead && f.Status != http.StatusUnauthorized
	switch {
	case g.isEmpty():
		if len(f.Challenges) == 0 && f.Status != http.StatusForbidden {
			res.outcome = unchallenged
		}
	case mute, f.Status == http.StatusBadRequest && !isExpired(f.Refusal):
	case g.token != nil:
		if g.fresh {
			t.refused = append(t.refused, g.token)
		}
		res.outcome = tokenRefused
	case f.Status == http.StatusUnauthorized, isExpired(f.Refusal):
		res.outcome = loginRefused
	default:
		res.outcome = rightsRefused
	}
	return res
}

// readChallenge learns from the challenge of a 401. It reports whether the challenge decides the outcome.
func (t *Transport) readChallenge(ctx context.Context, s *state, g grant, f *fault.Failure, res *result) bool {
	sc, ok, err := t.ep.choose(t.repository, f.Challenges, !g.isEmpty())
	if e, wrong := errors.AsType[*fault.RealmError](err); wrong {
		f.Step = fault.Step{Name: fault.StepToken, Host: e.Host, Err: err}
		if e.Host == "" {
			f.Step.Host = t.ep.Origin.String()
		}
		f.Err = err
		t.op.Trace.Add(f.Step)
		return true
	}
	if !ok {
		return false
	}
	if g.isEmpty() && sc.realm == "" && t.publicOnly() {
		// A registry that asks for a password refuses requests without one: ours must not be shown to one that has just
		// refused the repository to an anonymous request.
		t.noteClosed(f.Status)
		s.use(t.current(ctx))
	}
	guessErr := s.guessErr
	s.guessErr = nil
	res.news = t.ep.schemes.learn(t.repository, sc, guessErr != nil)
	switch {
	case guessErr != nil && !res.news: // it is the right token service, and its refusal stands
		s.tried[answerChallenge] = true
		res.outcome, res.err = loginRefused, guessErr
		return true
	case g.isEmpty() && (sc.realm != "" || s.phase != asAnonymous):
		res.outcome = challenged
		return true
	}
	return false
}

// act carries out an action. False: it has changed nothing.
func (t *Transport) act(ctx context.Context, s *state, r endpoint.Request, a action, res *result) bool {
	switch a {
	case recheckLimit:
		return t.recheckLimit(ctx, s, r)
	case waitForReset:
		return backoff.Wait(ctx, time.Until(res.pause.Until))
	case answerChallenge:
		t.op.Trace.Last().Err = nil // as it should be: the registry has said what it asks for
		return true
	case answerNewChallenge:
		return res.news
	case askAtRoot:
		return t.askAtRoot(ctx, s)
	case askWithoutLogin:
		s.guessErr = res.err
		return true
	case renewToken:
		return t.renewToken(res.grant, res.refusal)
	case renewCredential:
		return t.renewCredential(ctx, s)
	case noteFailedRenewal:
		t.up.standing.failedRenewals.Put(purpose{s.credential.Name, t.repository}, struct{}{}, noRenewalFor, maxRemembered)
		return false
	case leaveRefused:
		t.leaveRefused(ctx, s, r, res.err)
		return true
	case leaveExhausted:
		return t.leaveExhausted(ctx, s, r, res)
	}
	return false
}

// finish is how RoundTrip ends.
func (t *Transport) finish(s *state, r endpoint.Request, res result) (*http.Response, error) {
	if res.outcome == accepted {
		return res.resp, nil
	}
	if s.phase == asAnonymous {
		t.noteClosed(res.status)
	}
	return nil, s.reason(t.errorOf(s, r, &res))
}

// errorOf is the error of a result. That of a request which was not made is what was said before to one like it.
func (t *Transport) errorOf(s *state, r endpoint.Request, res *result) error {
	if res.err == nil {
		res.err = t.notAsked(s.credential, r, res.pause)
	}
	return res.err
}

// askAtRoot learns what the registry asks for from its answer at /v2/, where it refuses a request without a challenge: a
// proxy repository of a Nexus says so there alone. False: nothing was learnt, or there is no credential to answer with.
func (t *Transport) askAtRoot(ctx context.Context, s *state) bool {
	if _, _, known := t.ep.schemes.of(t.repository); known || t.rootAsked || s.phase == asAnonymous {
		return false
	}
	t.rootAsked = true
	resp, err := t.Ping(ctx)
	if err != nil {
		return false
	}
	if resp.StatusCode != http.StatusUnauthorized {
		endpoint.Drain(resp.Body)
		return false
	}
	f := t.Refuse(resp)
	sc, ok, err := t.ep.choose(t.repository, f.Challenges, false)
	if err != nil || !ok {
		return false
	}
	t.op.Trace.Last().Err = nil // as it should be: the registry has said what it asks for
	t.ep.schemes.learn(t.repository, sc, false)
	s.tried[answerChallenge] = true
	return true
}

// recentToken is the age below which a token has the rights of now: "insufficient_scope" then is not for its age.
const recentToken = 10 * time.Second

// renewToken makes room for a newer token, if that may do better than the one that was refused.
func (t *Transport) renewToken(g grant, f *fault.Failure) bool {
	// To the GET that repeats a HEAD a token is as new as it was to the HEAD.
	if slices.Contains(t.refused, g.token) || f.Status != http.StatusUnauthorized && !isExpired(f.Refusal) {
		return false
	}
	if c, ok := header.FindChallenge(f.Challenges, "bearer"); ok && c.Params["error"] == "insufficient_scope" &&
		time.Since(g.token.fetched) < recentToken {
		return false
	}
	t.up.tokens.drop(g.key, g.token)
	return true
}

// isExpired reports whether a refusal is about the age of a token or password: ECR answers 403 and public ECR 400 where
// others answer 401.
func isExpired(r fault.Refusal) bool {
	return r.Says("expired", "authorization token is invalid", "reauthenticate")
}

// leaveRefused goes on with another credential of ours, or anonymously, after the current one was refused with err.
func (t *Transport) leaveRefused(ctx context.Context, s *state, r endpoint.Request, err error) {
	f, _ := errors.AsType[*fault.Failure](err)
	switch {
	case f == nil:
	case f.Says("has expired", "is expired", "token expired"): // not GitLab's "incorrect, expired, or improperly scoped"
		t.noteProblem(auth.StateExpired, f)
	case f.Status == http.StatusUnauthorized && (f.Step.Name == fault.StepToken || !t.ep.givesTokens(t.repository)),
		isExpired(f.Refusal):
		t.noteProblem(auth.StateRejected, f)
	}
	t.up.standing.refusals.Put(purpose{s.credential.Name, t.repository}, struct{}{}, refusedFor, maxRemembered)
	if s.phase == asFirst && t.next(ctx, s, r) {
		s.phase = asOther
		return
	}
	s.refusedErr = err
	s.use(noCredential)
}

// leaveExhausted goes on with another credential of ours that has something left, or anonymously. False: nothing is left
// there either.
func (t *Transport) leaveExhausted(ctx context.Context, s *state, r endpoint.Request, res *result) bool {
	s.exhaustedErr = t.errorOf(s, r, res)
	if t.next(ctx, s, r) {
		return true
	}
	if t.op.RefusalStands || t.isExhausted(ctx, noCredential, r) {
		return false
	}
	s.use(noCredential)
	return true
}

// noteAccepted records what an answer says about our credential.
func (t *Transport) noteAccepted(s *state, g grant, status int) {
	if status >= 400 {
		return
	}
	if s.phase == asAnonymous {
		t.ep.public.answers.Put(struct{}{}, struct{}{}, publicFor, 1)
	}
	if f, _ := errors.AsType[*fault.Failure](s.refusedErr); f != nil { // an anonymous request may do more than ours
		t.noteProblem(auth.StateRejected, f)
	} else if !g.isEmpty() && s.phase != asAnonymous {
		t.up.standing.accepted(s.credential, t.repository)
	}
}

// noteProblem records that our credential was refused, and logs it once.
func (t *Transport) noteProblem(state auth.State, f *fault.Failure) {
	reason := strings.TrimSpace(fmt.Sprintf("%s answered %d %s %s", f.Step.Host, f.Status, f.Code, f.Message))
	old := t.up.standing.status(t.source(), t.Credential, nil)
	if state == auth.StateRejected && old.State == auth.StateExpired {
		state = auth.StateExpired
	}
	if news := t.up.standing.rejected(t.Credential, state, reason); news && t.Credential.Name != "" { // clients' have no name
		t.up.o.Log.Warn("credential refused; continuing without it",
			"credential", t.Credential.Name, "state", state, "error", reason)
	}
}

// Bare makes one request without any login, over rt.
func (t *Transport) Bare(ctx context.Context, rt http.RoundTripper, r endpoint.Request) (*http.Response, error) {
	return t.exchange(ctx, rt, r, grant{})
}

// Ping asks for /v2/ without any login.
func (t *Transport) Ping(ctx context.Context) (*http.Response, error) {
	return t.Bare(ctx, t.ep.Registry, endpoint.Request{
		Step: fault.StepPing, Method: http.MethodGet, URL: t.ep.At("/v2/", ""), Reach: endpoint.ReachAny,
	})
}

// exchange makes one request with a grant.
func (t *Transport) exchange(ctx context.Context, rt http.RoundTripper, r endpoint.Request, g grant) (*http.Response, error) {
	req, err := t.ep.NewRequest(r)
	if err != nil {
		return nil, &fault.Failure{Err: err, Step: fault.Step{Name: r.Step}}
	}
	bound := g.bound
	if bound == (endpoint.Origin{}) {
		bound = t.ep.Origin
	}
	if err := authorize(req, bound, g.value); err != nil {
		return nil, &fault.Failure{Err: err, Step: fault.Step{Name: r.Step}}
	}
	if g.token != nil {
		t.up.shown.add(auth.Credential{Identity: g.token.value}, maxShown)
	}
	resp, steps, err := t.ep.RoundTrip(ctx, rt, req, r)
	t.op.Trace.Add(steps...)
	if err != nil {
		return nil, &fault.Failure{Err: err, Step: steps[len(steps)-1], Stage: r.Step}
	}
	return resp, nil
}

// Refuse makes the answer to the latest request a failure, and closes it.
func (t *Transport) Refuse(resp *http.Response) *fault.Failure {
	defer resp.Body.Close()
	last := t.op.Trace.Last()
	f := &fault.Failure{Refusal: fault.ReadRefusal(resp, t.up.Secrets(), last.Name == fault.StepToken)}
	last.Err = errors.New(f.Error())
	f.Step, f.Stage = *last, last.Name
	return f
}

// Elsewhere makes a request over rt where a redirect has led to another registry, a vanity host's for instance, whose answer,
// with status 401, is resp. Where the operator has named that registry, in redirectHosts, and its token service, in authHosts,
// the request is made again with a token that was got without a login: ours is for the endpoint alone. Otherwise the error is
// an *AwayError, or the refusal where it is not a registry's. It closes resp.
func (t *Transport) Elsewhere(ctx context.Context, rt http.RoundTripper, r endpoint.Request, resp *http.Response) (*http.Response, error) {
	here, _ := endpoint.OriginOf(r.URL)
	f := t.Refuse(resp)
	bearer, ok := header.FindChallenge(f.Challenges, "bearer")
	if _, basic := header.FindChallenge(f.Challenges, "basic"); !ok && !basic {
		return nil, f
	}
	away := &fault.AwayError{From: t.ep.Origin.String(), To: here.String()}
	u, err := t.ep.Policy.Realm(t.ep.Origin, r.URL, bearer.Params["realm"])
	if to, rerr := r.URL.Parse(bearer.Params["realm"]); ok && rerr == nil {
		at, _ := endpoint.OriginOf(to)
		away.Realm = text.Line(at.String(), 100)
	}
	if !ok || err != nil || guard.Away && !t.ep.Policy.RedirectHosts.Has(here) {
		f.Err = away
		return nil, f
	}
	sc := scheme{realm: u.String(), service: bearer.Params["service"], scope: bearer.Params["scope"]}
	if len(sc.scope) > maxScope || sc.scope == "" {
		sc.scope = scheme{}.scopeOf(t.repository)
	}
	g := grant{bound: here, key: tokenKey{endpoint: here, scheme: sc, credential: identityOf(noCredential)}}
	t.op.Trace.Last().Err = nil // as it should be: the registry has said what it asks for
	if g, err = t.withToken(ctx, g, noCredential); err != nil {
		return nil, err
	}
	return t.exchange(ctx, rt, r, g)
}
