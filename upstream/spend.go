package upstream

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
)

// Spare returns a context for work that nobody waits for: requests under it leave the part Options.Reserve of a limit to
// others, and fail as if the limit were reached.
func Spare(ctx context.Context) context.Context { return context.WithValue(ctx, spareKey{}, true) }

type spareKey struct{}

// sources are who we may be to the endpoint for the repository, in the order in which that is tried: of those that fit
// best the one with most left of its limits first, and behind all of them those that have nothing left or that the
// repository has refused lately. There is always one; a credential is never shown to another endpoint than its own.
func (c *call) sources() []auth.Source {
	s := auth.Anonymous
	switch {
	case c.as.own && c.ep.credential != nil:
		s = c.ep.credential
	case c.ep.IsRegistry:
		s = c.as.source
	}
	all := auth.All(s, c.name)
	if len(all) > 1 {
		type standing struct {
			back int
			left int64
		}
		of := make(map[string]standing, len(all))
		for _, x := range all {
			name := auth.Describe(x.Source).Name
			st := standing{left: c.ep.limits.Left(name)}
			if c.ep.limits.Exhausted(limit.Class{Credential: name, Method: http.MethodGet, Target: limit.TargetManifest}, 0) {
				st.back++
			}
			if c.health.wasDeclined(errand{name, c.repository}) {
				st.back += 2
			}
			of[name] = st
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

// source is who we are to the endpoint, for the repository.
func (c *call) source() auth.Source {
	if c.chosen == nil {
		c.choices = c.sources()
		c.chosen, c.choices = c.choices[0], c.choices[1:]
	}
	return c.chosen
}

// turns goes on as the next of our sources that has something left for what is asked. False: there is none.
func (c *call) turns(ctx context.Context, s *session, a endpoint.Request) bool {
	if s.cred.IsAnonymous() || c.anonymous() {
		return false
	}
	chosen, had, err := c.chosen, c.cred, c.sourceErr
	for len(c.choices) > 0 {
		c.chosen, c.choices = c.choices[0], c.choices[1:]
		cred := c.have(ctx, c.chosen.Credential)
		if cred.IsAnonymous() || c.spent(ctx, cred, a) {
			continue
		}
		s.cred = cred
		s.relearned, s.renewed, s.exchanged, s.pending = false, false, false, nil
		return true
	}
	c.chosen, c.cred, c.sourceErr = chosen, had, err // of whom the error is
	return false
}

func (c *call) classOf(cred auth.Credential, a endpoint.Request) limit.Class {
	return limit.Class{Credential: cred.Name, Method: a.Method, Target: string(a.Step)}
}

// counted reports whether we keep what a credential has left. Those of clients, which have no name, are their own business.
func counted(cred auth.Credential) bool { return cred.IsAnonymous() || cred.Name != "" }

// spent reports whether a credential has nothing left for what is asked.
func (c *call) spent(ctx context.Context, cred auth.Credential, a endpoint.Request) bool {
	return counted(cred) && c.ep.limits.Exhausted(c.classOf(cred, a), c.reserve(ctx))
}

// reserve is the part of limits that a request leaves to others.
func (c *call) reserve(ctx context.Context) float64 {
	if ctx.Value(spareKey{}) != nil {
		return c.o.Reserve
	}
	return 0
}

// admit is limit.Limits.Admit for a credential.
func (c *call) admit(ctx context.Context, cred auth.Credential, a endpoint.Request) (p limit.Pause, ok bool, done func()) {
	if !counted(cred) {
		return limit.Pause{}, true, func() {}
	}
	return c.ep.limits.Admit(c.classOf(cred, a), c.reserve(ctx))
}

// saves goes on without what has nothing left: as another of our sources, or as nobody. The error is why not.
func (c *call) saves(ctx context.Context, s *session, a endpoint.Request, f *fault.Failure) (again bool, err error) {
	if s.spent == nil || !s.cred.IsAnonymous() {
		s.spent = f
	}
	if c.turns(ctx, s, a) {
		return true, nil
	}
	if !s.cred.IsAnonymous() && !c.loyal && !c.spent(ctx, noCredential, a) {
		s.cred = noCredential
		s.relearned, s.renewed, s.pending = false, false, nil
		return true, nil
	}
	return false, s.why(f)
}

// waits lets a pause pass that is nearly over, once: those who come while a registry catches its breath need not fail.
func (s *session) waits(ctx context.Context, p limit.Pause) bool {
	d := time.Until(p.Until)
	if s.waited || d > limit.ShortestPause {
		return false
	}
	s.waited = true
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// stopped is the failure of a request that is not made: what was last said to one like it.
func (c *call) stopped(a endpoint.Request, p limit.Pause) *fault.Failure {
	host, _ := endpoint.OriginOf(a.URL)
	f := &fault.Failure{Stage: a.Step, Step: fault.Step{Name: a.Step, Host: host.String(), Err: fault.ErrNotAsked}}
	var refused bool
	if f.Refusal, refused = fault.RefusalIn(p.Cause); !refused {
		f.Refusal = fault.Refusal{Status: http.StatusTooManyRequests, Size: -1}
	}
	f.RetryAfter = max(time.Until(p.Until), time.Second)
	c.trace.Add(f.Step)
	return f
}

// limited takes in a 429.
func (c *call) limited(s *session, a endpoint.Request, f *fault.Failure) {
	if !counted(s.cred) {
		return
	}
	cause := *f
	d, stated := c.ep.limits.Refused(c.classOf(s.cred, a), f.RetryAfter, &cause)
	f.RetryAfter, f.Assumed = d, !stated
}

// looks asks by HEAD, which costs nothing where manifests are counted, whether there is more by now.
func (c *call) looks(ctx context.Context, s *session, a endpoint.Request) bool {
	if !counted(s.cred) || !c.ep.limits.RecheckDue(c.classOf(s.cred, a)) {
		return false
	}
	head := a
	head.Method = http.MethodHead
	resp, err := c.send(ctx, head)
	if err == nil {
		_ = resp.Body.Close()
	}
	return !c.spent(ctx, s.cred, a)
}

// why is the error of a session that has come to its end with err: what our credential met first, if it met something.
func (s *session) why(err error) error { return cmp.Or(s.first, cmp.Or(s.spent, err)) }

// count takes in what an answer says of our limits. Those of clients' own credentials are not kept.
func (c *call) count(cred auth.Credential, g grant, a endpoint.Request, resp *http.Response, began time.Time) {
	who := cred.Name
	if g.value.IsZero() {
		who = ""
	} else if who == "" && !cred.IsAnonymous() {
		return
	}
	spentOn := ""
	if resp.StatusCode == http.StatusOK && c.classOf(cred, a).Counted() {
		spentOn = c.name
	}
	b, crossed := c.ep.limits.Learn(resp.Header, who, spentOn, began)
	if !crossed {
		return
	}
	attrs := []any{
		"endpoint", c.ep.Name, "credential", cmp.Or(who, "anonymous"), "limit", b.Limit, "remaining", b.Remaining,
		"reset_at", b.MoreAt().UTC().Format(time.RFC3339),
	}
	if b.Remaining == 0 {
		c.o.Log.Warn("rate limit exhausted; serving cached content until it resets", attrs...)
		return
	}
	c.o.Log.Warn("rate limit nearly exhausted", attrs...)
}
