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
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
	"github.com/registrymirror/mirror/upstream/login"
)

// Missing or private? Most registries answer a stranger the same for what is private and for what is not there. Some can
// be made to say more, by one further question at most:
//
//	the manifest  404, not of the name ──► the list of tags: there ► the tag is missing; 404 ► the repository is
//	the manifest  401, 403             ──► the list of tags, likewise; refused, too ► it can't be told
//	a token       401, "log in"        ──► a token for nothing: 401, "log in" ► nobody is let in without a login
//
// A question is asked after a failure alone, by one of all who wait for its answer, which stands for a while. It is not
// asked where a limit is reached, nor of a repository that has answered before.

const (
	// probePatience is how much longer a client waits for its error at most.
	probePatience = 2 * time.Second
	// probeFor is how long an answer stands. It is that of a 404 in the puller's memory, or a little more.
	probeFor = 15 * time.Second
	// existsFor is how long a repository that has answered is not asked about.
	existsFor = time.Hour
	// stumpedBy in a row that did not tell, the last one stumpedFor ago at most: this registry doesn't.
	stumpedBy  = 3
	stumpedFor = 10 * time.Minute

	// maxInquiries go on at once. Whose failure comes in between is told without.
	maxInquiries = 8

	maxProbes  = 1024
	maxExists  = 16_384
	maxTagList = 1 << 20 // bytes of one page
)

// inquiries are the further questions of one endpoint.
type inquiries struct {
	mu      sync.Mutex // guards what follows; a leaf
	m       map[inquiry]*probing
	running int
	exists  map[string]time.Time // until when repositories are taken for there
	untold  map[question]int     // in a row
	lastOne map[question]time.Time
}

// question is a kind of question: what a registry does not tell to one it may to another.
type question string

const (
	askTags  question = "the list of tags, after a 404"
	askList  question = "the list of tags, after a refusal"
	askToken question = "a token for nothing"
)

// inquiry is what is asked, as whom.
type inquiry struct {
	question   question
	repository string // empty: of the endpoint
	reference  string // of askList, whose answer is about the tag
	who        any    // as login.Transport has it
	withheld   bool
}

// probing is a question that was put. Once done is closed the others don't change.
type probing struct {
	done  chan struct{}
	probe *fault.Probe // nil: nothing came of it
	until time.Time
}

// known notes that a repository is there.
func (q *inquiries) known(repository string, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.exists == nil || len(q.exists) >= maxExists {
		q.exists = make(map[string]time.Time)
	}
	q.exists[repository] = now.Add(existsFor)
}

// join gives the question that somebody has put already. first: nobody has. Nil: it is not worth asking.
func (q *inquiries) join(k inquiry, now time.Time) (p *probing, first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if k.question == askTags && now.Before(q.exists[k.repository]) {
		return nil, false
	}
	if p, ok := q.m[k]; ok {
		select {
		case <-p.done:
			if now.Before(p.until) {
				return p, false
			}
		default:
			return p, false
		}
	}
	if q.untold[k.question] >= stumpedBy && now.Sub(q.lastOne[k.question]) < stumpedFor {
		return nil, false
	}
	if q.running >= maxInquiries {
		return nil, false
	}
	if len(q.m) >= maxProbes {
		for old, p := range q.m {
			select {
			case <-p.done:
				delete(q.m, old)
			default:
			}
		}
	}
	if q.m == nil {
		q.m = make(map[inquiry]*probing)
	}
	p = &probing{done: make(chan struct{})}
	q.m[k] = p
	q.running++
	return p, true
}

// settle ends a question with its answer.
func (q *inquiries) settle(k inquiry, p *probing, answer *fault.Probe, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	p.probe, p.until = answer, now.Add(probeFor)
	if q.untold == nil {
		q.untold, q.lastOne = make(map[question]int), make(map[question]time.Time)
	}
	if answer != nil && answer.Verdict == fault.VerdictUnknown {
		q.untold[k.question]++
		q.lastOne[k.question] = now
	} else if answer != nil {
		q.untold[k.question] = 0
	}
	close(p.done)
}

// inquire asks further where an error does not say whether something is missing or kept from us, and adds what came of
// it to the error. It takes two seconds at most.
func (c *call) inquire(ctx context.Context, err error) error {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || !c.ep.IsRegistry || e.MirrorReason != "" || ctx.Err() != nil || !c.may(time.Now()) {
		return err
	}
	q, ok := c.questionAfter(e)
	if !ok {
		return err
	}
	k := inquiry{question: q, repository: c.repository, who: c.login.Who(), withheld: c.login.Withheld()}
	switch q {
	case askToken:
		k = inquiry{question: q}
	case askList:
		k.reference = c.reference
	}
	p, first := c.ep.inquiries.join(k, time.Now())
	if p == nil {
		return err
	}
	if first {
		ask := c.inquirer(q)
		if !c.probes.start(func(ctx context.Context) {
			ctx, cancel := context.WithTimeoutCause(ctx, probePatience, &fault.PatienceError{After: probePatience})
			defer cancel()
			c.ep.inquiries.settle(k, p, ask(ctx), time.Now())
		}) {
			c.ep.inquiries.settle(k, p, nil, time.Now())
		}
	}
	select {
	case <-p.done:
		e.Probe = p.probe
	case <-ctx.Done():
	}
	return err
}

// may reports whether the endpoint has requests to spare.
func (c *call) may(now time.Time) bool {
	if !c.ep.Health.Ready(endpoint.Documents, now) {
		return false
	}
	for _, b := range c.ep.Limits.All() {
		if b.Remaining == 0 && b.Credential == c.login.Credential() && now.Before(cmp.Or(b.Reset, b.At.Add(max(b.Window, time.Minute)))) {
			return false
		}
	}
	return true
}

// questionAfter is what to ask after a failure. False: it says enough.
func (c *call) questionAfter(e *fault.Error) (question, bool) {
	step := e.Step().Name
	switch {
	case e.Err != nil, c.login.SourceFailed(), e.BodyKind == fault.BodyHTML,
		e.Credential.State == auth.StateExpired, e.Credential.State == auth.StateRejected:
		return "", false
	case e.Status == http.StatusNotFound || e.Status == http.StatusGone:
		// That a digest is missing says enough: who has it got it from somewhere.
		ok := step == fault.StepManifest && e.Code != "NAME_UNKNOWN" && e.Code != "TAG_EXPIRED" && !isDigest(e.Reference)
		return askTags, ok
	case e.Status != http.StatusUnauthorized && e.Status != http.StatusForbidden:
		return "", false
	case step == fault.StepToken:
		// "Authentication required", which is not "denied".
		ok := c.login.AsksForTokens() && e.Status == http.StatusUnauthorized && e.Code == "UNAUTHORIZED" &&
			c.login.IsAnonymous() && !c.ep.AnswersAnonymously()
		return askToken, ok
	case step == fault.StepManifest:
		scheme := ""
		if all := header.ParseChallenges([]string{e.Challenge}); len(all) > 0 {
			scheme = all[0].Scheme
		}
		// A registry that wants a password of everybody has nothing to show to nobody.
		return askList, scheme != "basic" && !isDigest(e.Reference) && e.Code != ""
	}
	return "", false
}

// inquirer makes what puts a question. It runs apart from the call, which may end before.
func (c *call) inquirer(q question) func(context.Context) *fault.Probe {
	p := c.as.callAs(login.Operation{Name: c.name, RefusalStands: true}, "tags", "")
	p.at(c.ep)
	p.login.Follows(c.login)
	if q == askToken {
		return p.tokenForNothing
	}
	tag, named := c.reference, q == askList
	return func(ctx context.Context) *fault.Probe { return p.tagsTell(ctx, tag, named) }
}

// tagsTell asks for the list of tags. named: it matters whether it has the tag.
func (c *call) tagsTell(ctx context.Context, tag string, named bool) *fault.Probe {
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
			(r.Code == "NAME_UNKNOWN" || r.Code == "NOT_FOUND"): // the latter is Harbor's
			return &fault.Probe{Verdict: fault.VerdictRepositoryMissing, Step: f.Step}
		case r.Status >= 500 || r.Status == http.StatusTooManyRequests:
			return nil
		}
		return &fault.Probe{Verdict: fault.VerdictUnknown, Step: f.Step}
	}
	step := *c.trace.Last()
	_, more := header.NextLink(resp.Header.Values("Link"), resp.url)
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
	c.ep.inquiries.known(c.repository, time.Now())
	return &fault.Probe{Verdict: fault.VerdictTagMissing, Step: step}
}

// tokenForNothing asks, as nobody, for a token without a scope.
func (c *call) tokenForNothing(ctx context.Context) *fault.Probe {
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
