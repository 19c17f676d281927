package upstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/internal/coalesce"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
	"github.com/registrymirror/mirror/upstream/login"
)

// Missing or private? Most registries give an anonymous client the same answer for a private repository and for one that
// does not exist. One further question, a probe, can tell them apart at some registries:
//
//	the manifest  404, not of the name ──► the list of tags: it exists ► the tag is missing; 404 ► the repository is
//	the manifest  401, 403             ──► the list of tags, likewise; refused, too ► unknown
//	a token       401, "log in"        ──► a token without a scope: 401, "log in" ► no client is let in without a login
//
// Only a failure is followed by a probe. One runs for all calls that wait for its answer, which is valid for a while. There
// is none where a limit is reached, nor for a repository that has answered before.

const (
	// probePatience is how much longer a client waits for its error at most.
	probePatience = 2 * time.Second
	// probeLife is how long an answer is valid: as long as a 404 in the puller's memory, or a little longer.
	probeLife = 15 * time.Second
	// existsFor is how long a repository that has answered is not probed.
	existsFor = time.Hour
	// After maxUnknown answers in a row that did not decide, the last one less than unknownFor ago, the registry is not probed.
	maxUnknown = 3
	unknownFor = 10 * time.Minute
	// maxRunning probes run at once. A failure that comes while they are busy is reported without a probe.
	maxRunning = 8

	maxProbes  = 1024
	maxExists  = 16_384
	maxTagList = 1 << 20 // bytes of one page
)

// question is what a probe asks for: a registry whose answer to one question does not decide may decide another one.
type question string

const (
	askTags  question = "the list of tags, after a 404"
	askList  question = "the list of tags, after a refusal"
	askToken question = "a token without a scope"
)

// probes are those of one endpoint.
type probes struct {
	calls   coalesce.Group[probeKey, *fault.Probe]
	results bounded.Expiring[probeKey, *fault.Probe] // nil: the probe failed
	exists  bounded.Expiring[string, struct{}]       // by repository

	mu      sync.Mutex // guards unknown; a leaf
	unknown map[question]doubt
}

// doubt is how often in a row the answers to a question did not decide, and when that was last.
type doubt struct {
	times int
	last  time.Time
}

// probeKey says what is asked, and with which credential.
type probeKey struct {
	question   question
	repository string // empty: the question is about the endpoint
	reference  string // of askList, whose answer is about the tag
	credential any    // as login.Transport.CredentialKey has it
	withheld   bool
}

// noteExists records that a repository exists.
func (p *probes) noteExists(repository string) {
	p.exists.Put(repository, struct{}{}, existsFor, maxExists)
}

// get gives the result of a probe, which ask makes unless it is known. Nil: there is none.
func (p *probes) get(ctx context.Context, k probeKey, ask func() *fault.Probe) *fault.Probe {
	if k.question == askTags && p.exists.Has(k.repository) {
		return nil
	}
	if known, ok := p.results.Get(k); ok {
		return known
	}
	if !p.calls.Running(k) && !p.mayDecide(k.question) {
		return nil
	}
	result, _, _ := p.calls.Do(ctx, k, func(context.Context) (*fault.Probe, error) {
		if known, ok := p.results.Get(k); ok { // of a call that has just ended
			return known, nil
		}
		result := ask()
		p.note(k, result)
		return result, nil
	})
	return result
}

// mayDecide reports whether the answers to a question decide something here.
func (p *probes) mayDecide(q question) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unknown[q].times < maxUnknown || time.Since(p.unknown[q].last) >= unknownFor
}

// note takes in the result of a probe.
func (p *probes) note(k probeKey, result *fault.Probe) {
	p.results.Put(k, result, probeLife, maxProbes)
	if result == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if result.Verdict != fault.VerdictUnknown {
		delete(p.unknown, k.question)
		return
	}
	if p.unknown == nil {
		p.unknown = make(map[question]doubt)
	}
	p.unknown[k.question] = doubt{p.unknown[k.question].times + 1, time.Now()}
}

// addProbe probes further where an error does not say whether something is missing or private, and adds the result to the
// error. It takes two seconds at most.
func (c *call) addProbe(ctx context.Context, err error) error {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || !c.ep.IsRegistry || e.MirrorReason != "" || ctx.Err() != nil || !c.mayProbe(time.Now()) {
		return err
	}
	q, ok := c.questionAfter(e)
	if !ok {
		return err
	}
	k := probeKey{question: q, repository: c.repository, credential: c.login.CredentialKey(), withheld: c.login.Withheld()}
	switch q {
	case askToken:
		k = probeKey{question: q}
	case askList:
		k.reference = c.reference
	}
	ask := c.prober(q)
	e.Probe = c.ep.probes.get(ctx, k, func() (result *fault.Probe) {
		done := make(chan struct{})
		if c.background.start(func(ctx context.Context) {
			defer close(done)
			ctx, cancel := context.WithTimeoutCause(ctx, probePatience, &fault.PatienceError{After: probePatience})
			defer cancel()
			result = ask(ctx)
		}) {
			<-done
		}
		return result
	})
	return err
}

// mayProbe reports whether the endpoint is well and has requests left.
func (c *call) mayProbe(now time.Time) bool {
	if !c.ep.Health.Ready(endpoint.Documents, now) {
		return false
	}
	for _, b := range c.ep.Limits.All() {
		if b.Remaining == 0 && b.Credential == c.login.Credential.Name && now.Before(cmp.Or(b.Reset, b.At.Add(max(b.Window, time.Minute)))) {
			return false
		}
	}
	return true
}

// questionAfter is the question to ask after a failure. False: the failure says enough.
func (c *call) questionAfter(e *fault.Error) (question, bool) {
	step := e.Step().Name
	switch {
	case e.Err != nil, c.login.SourceErr != nil, e.BodyKind == fault.BodyHTML,
		e.Credential.State == auth.StateExpired, e.Credential.State == auth.StateRejected:
		return "", false
	case e.Status == http.StatusNotFound || e.Status == http.StatusGone:
		// A digest that is missing needs no question: the client got the digest from somewhere.
		ok := step == fault.StepManifest && e.Code != "NAME_UNKNOWN" && e.Code != "TAG_EXPIRED" && !isDigest(e.Reference)
		return askTags, ok
	case e.Status != http.StatusUnauthorized && e.Status != http.StatusForbidden:
		return "", false
	case step == fault.StepToken:
		// "Authentication required", which is not "denied".
		ok := c.login.AsksForTokens() && e.Status == http.StatusUnauthorized && e.Code == "UNAUTHORIZED" &&
			c.login.Credential.IsAnonymous() && !c.ep.AnswersAnonymously()
		return askToken, ok
	case step == fault.StepManifest:
		scheme := ""
		if all := header.ParseChallenges([]string{e.Challenge}); len(all) > 0 {
			scheme = all[0].Scheme
		}
		// A registry that asks each client for a password shows nothing to an anonymous one.
		return askList, scheme != "basic" && !isDigest(e.Reference) && e.Code != ""
	}
	return "", false
}

// prober makes the function that asks a question. It runs apart from the call, which may end before.
func (c *call) prober(q question) func(context.Context) *fault.Probe {
	p := c.registry.callAs(login.Operation{Name: c.how.Name, RefusalStands: true}, "tags", "")
	p.at(c.ep)
	p.login.Follows(c.login)
	if q == askToken {
		return p.probeToken
	}
	tag, named := c.reference, q == askList
	return func(ctx context.Context) *fault.Probe { return p.probeTags(ctx, tag, named) }
}

// probeTags asks for the list of tags. Named says that it matters whether the tag is in it.
func (c *call) probeTags(ctx context.Context, tag string, named bool) *fault.Probe {
	query := url.Values{"n": {strconv.Itoa(maxPage)}}
	if !named {
		query.Set("n", "1")
	}
	a := endpoint.Request{
		Step: fault.StepList, Method: http.MethodGet, URL: c.ep.At("/v2/"+c.repository+"/tags/list", query.Encode()),
		Header: http.Header{"Accept": {"application/json"}},
	}
	resp, err := c.follow(ctx, a)
	if err != nil {
		f, _ := errors.AsType[*fault.Failure](err)
		r, refused := fault.RefusalIn(err)
		switch {
		case !refused || f.Step.Name != fault.StepList && f.Step.Name != fault.StepToken:
			return nil
		case (r.Status == http.StatusNotFound || r.Status == http.StatusGone) && r.BodyKind == fault.BodyErrors &&
			(r.Code == "NAME_UNKNOWN" || r.Code == "NOT_FOUND"): // Harbor sends the latter
			return &fault.Probe{Verdict: fault.VerdictRepositoryMissing, Step: f.Step}
		case r.Status >= 500 || r.Status == http.StatusTooManyRequests:
			return nil
		}
		return &fault.Probe{Verdict: fault.VerdictUnknown, Step: f.Step}
	}
	step := *c.trace.Last()
	_, more := header.NextLink(resp.Header.Values("Link"), resp.URL)
	b, err := c.document(ctx, resp, paper{
		what: "a list of tags", limit: maxTagList, cost: func(n int64) int64 { return 8 * n }, // short names
	})
	var doc struct {
		Tags []string `json:"tags"`
	}
	switch {
	case err != nil || json.Unmarshal(b, &doc) != nil:
		return nil
	case named && (more || slices.Contains(doc.Tags, tag)):
		return &fault.Probe{Verdict: fault.VerdictUnknown, Step: step}
	}
	c.ep.probes.noteExists(c.repository)
	return &fault.Probe{Verdict: fault.VerdictTagMissing, Step: step}
}

// probeToken asks anonymously for a token without a scope.
func (c *call) probeToken(ctx context.Context) *fault.Probe {
	err := c.login.TokenWithoutScope(ctx)
	step := fault.Step{Name: fault.StepToken}
	if last := c.trace.Last(); last != nil {
		step = *last
	}
	r, refused := fault.RefusalIn(err)
	switch {
	case refused && r.Status == http.StatusUnauthorized && r.Code == "UNAUTHORIZED":
		return &fault.Probe{Verdict: fault.VerdictLoginNeeded, Step: step}
	case refused && (r.Status >= 500 || r.Status == http.StatusTooManyRequests), err != nil && !refused:
		return nil
	}
	return &fault.Probe{Verdict: fault.VerdictUnknown, Step: step}
}
