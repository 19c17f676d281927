package upstream

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
)

var noCredential auth.Credential

// grant is what a request shows to be let in.
type grant struct {
	value auth.Secret // of Authorization; zero: none
	key   tokenKey
	token *token          // nil for Basic
	bound endpoint.Origin // where it may be shown; zero: the endpoint
	sure  bool            // its way was shown by this repository, not inferred from another
	fresh bool            // the token was fetched just now
}

// authorize is the only place where a request gets credentials. They are bound to an origin; that a request leads
// elsewhere is a mistake of ours, and must not become a leak.
func authorize(req *http.Request, bound endpoint.Origin, value auth.Secret) error {
	if value.IsZero() {
		return nil
	}
	if to, ok := endpoint.OriginOf(req.URL); !ok || to != bound {
		return fmt.Errorf("credentials for %s must not go to %s", bound, to)
	}
	req.Header.Set("Authorization", value.Reveal())
	return nil
}

func basicAuth(c auth.Credential) auth.Secret {
	if c.Password.IsZero() && c.Username == "" {
		return auth.Secret{}
	}
	return auth.NewSecret("Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password.Reveal())))
}

// grant makes what is known of the endpoint and a credential into an Authorization. None where nobody has asked for
// one yet, so that the first request learns how the registry lets people in.
func (c *call) grant(ctx context.Context, cred auth.Credential) (grant, error) {
	w, sure, ok := c.ep.known.of(c.repository)
	switch {
	case !ok:
		return grant{}, nil
	case w.realm == "":
		return grant{value: basicAuth(cred), sure: sure}, nil
	}
	g := grant{sure: sure, key: tokenKey{
		endpoint: c.ep.Origin, realm: w.realm, service: w.service, scope: w.scopeOf(c.repository), who: identityOf(cred),
	}}
	core, ep, key := c.core, c.ep, g.key
	out, fresh := c.tokens.get(ctx, key, func(ctx context.Context) fetched { return core.fetchToken(ctx, ep, key, cred) })
	c.trace.Add(out.steps...)
	if out.err != nil {
		return g, c.atTokenService(w, out.err)
	}
	g.value, g.token, g.fresh = auth.NewSecret("Bearer "+out.token.value.Reveal()), out.token, fresh
	return g, nil
}

// atTokenService says where an error belongs that came while we waited for somebody else's token request.
func (c *call) atTokenService(w way, err error) error {
	if _, ok := errors.AsType[*fault.Failure](err); ok {
		return err
	}
	step := fault.Step{Name: fault.StepToken, Err: err}
	if u, perr := url.Parse(w.realm); perr == nil {
		o, _ := endpoint.OriginOf(u)
		step.Host = o.String()
	}
	c.trace.Add(step)
	return &fault.Failure{Err: err, Step: step}
}

// doubt is how old a token must be for "insufficient_scope" to mean that rights may have changed since.
const doubt = 10 * time.Second

// session is how far a request has come in being let in.
type session struct {
	cred       auth.Credential
	first      error // what our credential met, once we go on as nobody
	spent      error // what the one met that had nothing left, once we go on without it
	moved      bool  // to another of our credentials, after a refusal
	bare       bool  // ask without Authorization next, to be shown the way
	pending    error // why the token service that we inferred refused
	challenged bool  // the way was shown to us in this session
	relearned  bool
	renewed    bool // the token
	exchanged  bool // the credential, for another of its source
	waited     bool // for the end of a short pause
}

// send makes a request to the endpoint with what it takes to be let in. A 400, 401 or 403 that stays is an error.
//
//	no Authorization ──401──► learn the challenge, get a token, again
//	a token from the cache ──refused──► renew it once, again
//	our credential ──refused──► renew it once, again
//	                ──refused──► once as another of ours that fits the repository, where there is one
//	                ──refused──► once as nobody; if that is refused too, the refusal of ours is the error
//	nothing left of a limit, or 429 ──► as another of ours, else as nobody; who has nothing left is not asked
func (c *call) send(ctx context.Context, a endpoint.Request) (*http.Response, error) {
	s := session{cred: c.credential(ctx)}
	for {
		resp, again, err := c.try(ctx, &s, a)
		if !again {
			return resp, err
		}
	}
}

// try is one turn of send. again: the session has learned something.
func (c *call) try(ctx context.Context, s *session, a endpoint.Request) (resp *http.Response, again bool, err error) {
	p, ok, done := c.admit(ctx, s.cred, a)
	defer done()
	if !ok {
		if c.looks(ctx, s, a) || s.waits(ctx, p) {
			return nil, true, nil
		}
		again, err = c.saves(ctx, s, a, c.stopped(a, p))
		return nil, again, err
	}
	var g grant
	if !s.bare {
		if g, err = c.grant(ctx, s.cred); err != nil {
			if c.noToken(ctx, s, a, g, err) {
				return nil, true, nil
			}
			if r, refused := fault.RefusalIn(err); refused && s.cred.IsAnonymous() {
				c.closed(r.Status)
			}
			return nil, false, s.why(err)
		}
	}
	s.bare = false
	began := time.Now()
	resp, err = c.exchange(ctx, c.ep.Registry, a, g)
	if err != nil {
		return nil, false, s.why(err)
	}
	c.count(s.cred, g, a, resp, began)
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		f := c.refuse(resp)
		c.limited(s, a, f)
		again, err = c.saves(ctx, s, a, f)
		return nil, again, err
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		again, err = c.reconsider(ctx, s, a, g, c.refuse(resp))
		if !again {
			if s.cred.IsAnonymous() {
				c.closed(resp.StatusCode)
			}
			err = s.why(err)
		}
		return nil, again, err
	}
	c.ep.limits.Accepted(c.classOf(s.cred, a), began)
	c.accepted(*s, g, resp.StatusCode)
	return resp, false, nil
}

// noToken decides what follows a token that was not to be had. False: nothing.
func (c *call) noToken(ctx context.Context, s *session, a endpoint.Request, g grant, err error) bool {
	r, refused := fault.RefusalIn(err)
	switch {
	case !refused || r.Status >= 500 || r.Status == http.StatusTooManyRequests:
		return false
	case !g.sure && !s.challenged && s.pending == nil:
		s.bare, s.pending = true, err
		return true
	case c.exchanges(ctx, s):
		return true
	case !s.cred.IsAnonymous() && !c.loyal:
		c.forsake(ctx, s, a, err)
		return true
	}
	return false
}

// exchanges turns to another credential of the source after the one that we have was refused. False: there is none.
func (c *call) exchanges(ctx context.Context, s *session) bool {
	if s.first != nil || s.cred.IsAnonymous() {
		return false
	}
	e := errand{s.cred.Name, c.repository}
	switch {
	case s.exchanged:
		c.health.inVain(e)
		return false
	case c.health.wasInVain(e):
		return false
	}
	s.exchanged = true
	next := c.another(ctx, s.cred)
	if next.IsAnonymous() || identityOf(next) == identityOf(s.cred) {
		c.cred = s.cred // that is the one that has failed
		return false
	}
	if c.health.renewed(next) {
		c.o.Log.Info("credential was refused, and renewed", "credential", next.Name)
	}
	s.cred = next
	s.renewed, s.pending = false, nil
	return true
}

// reconsider decides what follows a refusal of the registry. False: the error it returns.
func (c *call) reconsider(ctx context.Context, s *session, a endpoint.Request, g grant, f *fault.Failure) (bool, error) {
	if f.Status == http.StatusUnauthorized {
		again, err := c.reread(ctx, s, a, g, f)
		if again || err != nil {
			return again, err
		}
	}
	if g.value.IsZero() && len(f.Challenges) == 0 && f.Status != http.StatusForbidden && c.asksAtRoot(ctx, s) {
		return true, nil
	}
	// Without a body a 400 or 403 says nothing. Who asks by HEAD asks again by GET.
	mute := a.Method == http.MethodHead && f.Status != http.StatusUnauthorized
	if g.value.IsZero() || mute || f.Status == http.StatusBadRequest && !stale(f.Refusal) {
		return false, f
	}
	switch {
	case g.token == nil && (f.Status == http.StatusUnauthorized || stale(f.Refusal)) && c.exchanges(ctx, s):
		return true, nil
	case g.token != nil && c.renewable(s, g, f):
		s.renewed = true
		return true, nil
	}
	if s.cred.IsAnonymous() || c.loyal {
		return false, f
	}
	c.forsake(ctx, s, a, f)
	return true, nil
}

// asksAtRoot learns how the registry lets people in from its answer at /v2/, where it refuses our request without a challenge.
// A proxy repository of a Nexus says so there alone. False: nothing was learnt, or there is no credential that it would be
// good for.
func (c *call) asksAtRoot(ctx context.Context, s *session) bool {
	if _, _, known := c.ep.known.of(c.repository); known || c.pinged || s.cred.IsAnonymous() {
		return false
	}
	c.pinged = true
	a := endpoint.Request{Step: fault.StepPing, Method: http.MethodGet, URL: c.ep.At("/v2/", ""), Reach: endpoint.ReachAny}
	resp, err := c.exchange(ctx, c.ep.Registry, a, grant{})
	if err != nil {
		return false
	}
	if resp.StatusCode != http.StatusUnauthorized {
		endpoint.Drain(resp.Body)
		return false
	}
	f := c.refuse(resp)
	w, ok, err := c.ep.choose(c.repository, f.Challenges, false)
	if err != nil || !ok {
		return false
	}
	c.trace.Last().Err = nil // as it should be: we asked, and were told how
	c.ep.known.learn(c.repository, w, false)
	s.challenged = true
	return true
}

// reread learns from the challenges of a 401. True: ask again with what was learned.
func (c *call) reread(ctx context.Context, s *session, a endpoint.Request, g grant, f *fault.Failure) (bool, error) {
	w, ok, err := c.ep.choose(c.repository, f.Challenges, !g.value.IsZero())
	if e, wrong := errors.AsType[*fault.RealmError](err); wrong {
		step := fault.Step{Name: fault.StepToken, Host: cmp.Or(e.Host, c.ep.Origin.String()), Err: err}
		c.trace.Add(step)
		f.Err, f.Step = err, step
		return false, f
	}
	if !ok {
		return false, nil
	}
	if g.value.IsZero() && w.realm == "" && c.o.Public && c.as.own && guard.Public {
		// No login is a part of Basic's way, and without one the registry refuses: our own must not be the answer to that.
		c.closed(f.Status)
		s.cred = c.credential(ctx)
	}
	pending := s.pending
	s.pending = nil
	news := c.ep.known.learn(c.repository, w, pending != nil)
	switch {
	case pending != nil && !news: // the way was right, and the token service's no was meant
		s.challenged = true
		if s.cred.IsAnonymous() {
			return false, pending
		}
		if !c.exchanges(ctx, s) {
			c.forsake(ctx, s, a, pending)
		}
		return true, nil
	case g.value.IsZero() && !s.challenged && (w.realm != "" || !s.cred.IsAnonymous()):
		s.challenged = true
		c.trace.Last().Err = nil // as it should be: we asked, and were told how
		return true, nil
	case !g.value.IsZero() && news && !s.relearned:
		s.relearned = true
		return true, nil
	}
	return false, nil
}

// stale reports whether a refusal is about a token or password that is no longer good: ECR says 403 and public ECR
// 400 where others say 401.
func stale(r fault.Refusal) bool {
	return r.Says("expired", "authorization token is invalid", "reauthenticate")
}

// renewable reports whether a newer token than the one that was refused may do better, and makes way for it.
func (c *call) renewable(s *session, g grant, f *fault.Failure) bool {
	if g.fresh {
		c.refused = append(c.refused, g.token)
	}
	// To the GET that repeats a HEAD a token is as new as it was to the HEAD.
	if s.renewed || slices.Contains(c.refused, g.token) || f.Status != http.StatusUnauthorized && !stale(f.Refusal) {
		return false
	}
	if c, ok := header.FindChallenge(f.Challenges, "bearer"); ok && c.Params["error"] == "insufficient_scope" &&
		time.Since(g.token.fetched) < doubt {
		return false
	}
	c.tokens.drop(g.key, g.token)
	return true
}

// forsake goes on as another of our credentials, once, or as nobody, after ours was refused.
func (c *call) forsake(ctx context.Context, s *session, a endpoint.Request, err error) {
	f, _ := errors.AsType[*fault.Failure](err)
	switch {
	case f == nil:
	case f.Says("has expired", "is expired", "token expired"): // not GitLab's "incorrect, expired, or improperly scoped"
		c.ails(auth.StateExpired, f)
	case f.Status == http.StatusUnauthorized && (f.Step.Name == fault.StepToken || !c.tokenWise()), stale(f.Refusal):
		c.ails(auth.StateRejected, f)
	}
	c.health.declined(errand{s.cred.Name, c.repository})
	if !s.moved && c.turns(ctx, s, a) {
		s.moved = true
		return
	}
	s.first, s.cred = err, noCredential
	s.relearned, s.renewed, s.pending = false, false, nil // how people are let in, if it was shown, is the same for nobody
}

// tokenWise reports whether the registry works with tokens: then its own 401 is about rights, not about passwords.
func (c *call) tokenWise() bool {
	w, _, ok := c.ep.known.of(c.repository)
	return ok && w.realm != ""
}

// accepted notes what an answer says about our credential.
func (c *call) accepted(s session, g grant, status int) {
	if status < 400 && s.cred.IsAnonymous() {
		c.ep.public.answered(time.Now())
	}
	switch f, _ := errors.AsType[*fault.Failure](s.first); {
	case status >= 400:
	case f != nil: // nobody may what our credential may not: it is no good
		c.ails(auth.StateRejected, f)
	case !g.value.IsZero() && !s.cred.IsAnonymous():
		c.health.clear(s.cred, c.repository)
	}
}

// ails notes that our credential is no good, and says so once.
func (c *call) ails(state auth.State, f *fault.Failure) {
	why := strings.TrimSpace(fmt.Sprintf("%s answered %d %s %s", f.Step.Host, f.Status, f.Code, f.Message))
	if old := c.health.status(c.source(), c.cred, nil); state == auth.StateRejected && old.State == auth.StateExpired {
		state = auth.StateExpired
	}
	if news := c.health.mark(c.cred, state, why); news && c.cred.Name != "" { // those of clients have no name
		c.o.Log.Warn("credential refused, going on without it", "credential", c.cred.Name,
			"state", state, "err", why)
	}
}
