package doctor

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// upstreamPatience is how long the examination of one upstream takes at most.
const upstreamPatience = 20 * time.Second

// The areas of the checks of a mirror.
const (
	AreaConfig     = "config"
	AreaListener   = "listener"
	AreaAdmin      = "admin"
	AreaData       = "data"
	AreaState      = "state"
	AreaFiles      = "open-files"
	AreaProxy      = "proxy"
	AreaWebhooks   = "webhooks"
	AreaKubernetes = "kubernetes"
	AreaVersion    = "version"
	AreaHardening  = "hardening" // the items of the checklist in SECURITY.md
	AreaUpstream   = "upstream"
)

// MirrorReport is what the checks of a mirror have shown.
type MirrorReport struct {
	OK      bool      `json:"ok"` // nothing is broken; there may be warnings
	At      string    `json:"at"` // where the checks ran: "mirror" for the running one, "here" where none answers
	Version string    `json:"version"`
	Began   time.Time `json:"began"`
	Took    Duration  `json:"took"`
	Checks  []Check   `json:"checks"`
}

// Check is one check of a mirror.
type Check struct {
	Area   string `json:"area"`
	Name   string `json:"name,omitempty"` // of an upstream, a webhook, a listener
	State  State  `json:"state"`
	Detail string `json:"detail"`           // one line: the result, or the cause
	Remedy string `json:"remedy,omitempty"` // of one that is broken or warns
	Steps  []Step `json:"steps,omitempty"`  // of an upstream
}

// Judge says by the checks whether something is broken.
func (r *MirrorReport) Judge() {
	r.OK = !slices.ContainsFunc(r.Checks, func(c Check) bool { return c.State == Broken })
}

// Finish ends a report.
func (r *MirrorReport) Finish() {
	r.Judge()
	r.Took = Duration(time.Since(r.Began))
	r.Began = At(r.Began)
}

// Upstream examines a registry without an image: each endpoint's name, connection, TLS, /v2/ and clock. ref is a tag of it that was
// pulled before: one HEAD of it, which no limit counts, also shows token, credential and limits. Without a tag none is asked for. own
// says that clients pull with their own logins, and the mirror has none: a tag that it may not read is not a fault then.
func Upstream(ctx context.Context, name string, r *upstream.Registry, ref oci.Ref, own bool) Check {
	ctx, cancel := context.WithTimeout(ctx, upstreamPatience)
	defer cancel()
	c := Check{Area: AreaUpstream, Name: name, State: OK}
	x := &examination{Report: &Report{}}
	if own {
		x.own = ref.Repo
	}
	var seen sync.Map
	endpoints, end, err := r.Inspect(func(host string, s tls.ConnectionState) { seen.Store(host, s.PeerCertificates) })
	if err != nil {
		f := diagnose.Explain(err)
		c.State, c.Detail, c.Remedy = Broken, f.Summary, f.Remedy
		return c
	}
	defer end()
	well := 0
	for _, ep := range endpoints {
		w := &walker{examination: x, ep: ep, repository: ref.Name, reference: ref.Tag, seen: &seen}
		if w.ping(ctx) && (ref.Tag == "" || w.resolves(ctx)) {
			well++
		}
	}
	c.Steps = x.Steps
	c.sum(x, well, len(endpoints))
	return c
}

// sum says what the steps mean for the upstream.
func (c *Check) sum(x *examination, well, all int) {
	for _, s := range c.Steps {
		if s.State == Warning && c.State == OK {
			c.State, c.Detail, c.Remedy = Warning, s.Detail, s.Remedy
		}
	}
	switch {
	case well == 0:
		c.State = Broken
	case well < all:
		c.State = Warning
	case c.State == OK:
		c.Detail = "answers"
		if all > 1 {
			c.Detail = "all endpoints answer"
		}
	}
	if x.Failure != nil {
		c.Detail, c.Remedy = x.Failure.Summary, x.Failure.Remedy
	}
}

// resolves asks what a tag means, as the check of a tag does. A tag that is gone says nothing against the registry.
func (w *walker) resolves(ctx context.Context) bool {
	a := w.ep.Attempt("resolve", w.repository, w.reference)
	err := a.Resolve(ctx)
	detail := "of the tag of an earlier pull"
	if err != nil {
		switch w.explain(err).Reason {
		case diagnose.TagNotFound, diagnose.NotFoundOrNoAccess, diagnose.RepositoryNotFound:
			detail, err = "the tag of an earlier pull is gone, or not for us", nil
		case diagnose.ClientLoginMissing:
			detail, err = "the tag of an earlier pull needs a client's own login, and the mirror has none (access: client)", nil
		default:
		}
	}
	if !w.tell(a, err, func(s *Step) { s.Detail = detail }) {
		return false
	}
	if c := a.Credential(); c.Name != "" {
		s := Step{Host: w.ep.Host()}
		s.credential(c)
		w.say(stepCredential, s, nil)
	}
	if list := w.ep.Budgets(); len(list) > 0 {
		s := Step{Host: w.ep.Host()}
		s.limits(list)
		w.say(stepLimit, s, nil)
	}
	return true
}
