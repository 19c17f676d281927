package diagnose

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream"
)

// Explain says why a pull failed. A nil error has the zero Finding.
func Explain(err error) Finding {
	if err == nil {
		return Finding{}
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Finding
	}
	c := newCase(err)
	// From the most specific fact to the least: what we detected ourselves, what a server answered, what the network
	// did, what our own clock did.
	for _, read := range []func(*facts) bool{
		(*facts).overloaded, (*facts).request, (*facts).content, (*facts).refusedByUs, (*facts).answer, (*facts).network, (*facts).ourselves,
		(*facts).sourceFailed,
	} {
		if read(c) {
			return c.finish()
		}
	}
	if c.e.Op != "" {
		c.set(UpstreamError, "the request to %s for %s failed: %s", c.host, c.full(), cause(err))
		c.remedy("check that the mirror can reach %s, then pull again", c.host)
		return c.finish()
	}
	c.set(InternalError, "the mirror failed: %s", err)
	c.remedy("look at the mirror's log and report what it says")
	return c.finish()
}

// facts is one error being read.
type facts struct {
	err  error
	e    *upstream.Error // zero where no upstream was involved
	step upstream.Step   // that broke
	up   string          // canonical name of the upstream, or words for it
	host string          // at which it broke, or words for it
	f    Finding
}

func newCase(err error) *facts {
	c := &facts{err: err, e: &upstream.Error{}}
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		c.e = e
	}
	c.step = c.e.Step()
	c.f.Upstream, c.f.Host, c.f.Stage, c.f.Status = c.e.Upstream, c.step.Host, string(c.step.Name), c.e.Status
	c.f.Host = strings.TrimSuffix(c.f.Host, ":443") // what everybody takes for granted
	c.f.RetryAfter = c.e.RetryAfter
	if e, ok := errors.AsType[*pull.TimeoutError](err); ok && c.e.Op == "" {
		c.e = &upstream.Error{Upstream: e.Ref.Host, Repository: e.Ref.Name, Reference: e.Ref.Tag}
		if e.Ref.Digest != "" {
			c.e.Reference = e.Ref.Digest.String()
		}
		c.f.Upstream = e.Ref.Host
	}
	if c.f.Host == "" {
		c.f.Host = c.f.Upstream
	}
	c.up, c.host = orElse(c.f.Upstream, "the upstream"), orElse(c.f.Host, "the upstream")
	return c
}

func (c *facts) set(r Reason, format string, args ...any) {
	c.f.Reason, c.f.Summary = r, fmt.Sprintf(format, args...)
}

func (c *facts) remedy(format string, args ...any) { c.f.Remedy = fmt.Sprintf(format, args...) }

// alone is remedy where clients have nowhere else to go: the node's own login opens nothing there.
func (c *facts) alone(format string, args ...any) { c.f.Alone = fmt.Sprintf(format, args...) }

func (c *facts) note(format string, args ...any) {
	c.f.Evidence = append(c.f.Evidence, fmt.Sprintf(format, args...))
}

// finish adds what every finding has and cleans its texts.
func (c *facts) finish() Finding {
	f := c.f
	f.Class = f.Reason.Class()
	f.Summary, f.Remedy, f.Alone = Clean(f.Summary), Clean(f.Remedy), Clean(f.Alone)
	if f.Short = Clean(f.Short); f.Short == "" {
		f.Short = c.short(f.Summary)
	}
	f.Evidence = append(f.Evidence, evidence(c.e)...)
	for i, e := range f.Evidence {
		f.Evidence[i] = Clean(e)
	}
	return f
}

// short is a summary without what was asked for and at which address: a client prints both beside it. Empty where it has
// neither, or goes on about the image.
func (c *facts) short(summary string) string {
	s := summary
	for _, thing := range []string{c.full(), c.what(), c.prefix() + orElse(c.e.Repository, "the image")} {
		for _, before := range []string{", needed for ", " for ", " to ", " while sending "} {
			words := before + Clean(thing)
			if i := strings.Index(s, words); i >= 0 && !strings.HasPrefix(s[i+len(words):], ",") {
				s = s[:i] + s[i+len(words):]
			}
		}
	}
	if s = strings.Replace(s, Clean(c.where()), Clean(c.host), 1); s == summary {
		return ""
	}
	return s
}

// image is the repository with its reference, as the upstream calls it.
func (c *facts) image() string { return named(c.e.Repository, c.e.Reference) }

// what is a noun phrase for what was asked for, to be used beside the upstream's name.
func (c *facts) what() string { return c.thing("") }

// full is the same beside the name of another host.
func (c *facts) full() string {
	if c.host == c.up || c.f.Upstream == "" {
		return c.thing("")
	}
	return c.thing(c.up + "/")
}

func (c *facts) thing(prefix string) string {
	switch {
	case c.e.Repository == "":
		return "the image"
	case c.e.Op == "blob":
		return "blob " + shortRef(c.e.Reference) + " of " + prefix + c.e.Repository
	case c.e.Op == "tags", c.e.Op == "referrers":
		return "the " + c.e.Op + " of " + prefix + c.e.Repository
	}
	return "the manifest of " + prefix + c.image()
}

// named writes a repository with a tag or a digest, which is shortened: 12 digits tell it from the others of an image.
func named(repository, reference string) string {
	alg, hex, isDigest := strings.Cut(reference, ":")
	switch {
	case reference == "":
		return repository
	case isDigest:
		return repository + "@" + alg + ":" + hex[:min(len(hex), 12)]
	}
	return repository + ":" + reference
}

func shortRef(digest string) string { return strings.TrimPrefix(named("", digest), "@") }

func short(d oci.Digest) string { return shortRef(d.String()) }

// request reads what is wrong with the request itself.
func (c *facts) request() bool {
	if e, ok := errors.AsType[*route.UnknownError](c.err); ok {
		c.set(UnknownUpstream, "the mirror has no upstream named %s", e.Key)
		c.remedy("add %s to upstreams in the mirror's configuration, or pull from it directly", e.Key)
		c.alone("add %s to upstreams in the mirror's configuration", e.Key)
		if len(e.Have) > 0 {
			c.note("configured upstreams: %s", strings.Join(e.Have, ", "))
		}
		c.f.Host, c.f.Declined = e.Key, true
		return true
	}
	if e, ok := errors.AsType[*access.ForbiddenError](c.err); ok {
		c.forbidden(e)
		return true
	}
	if e, ok := errors.AsType[errcode.Error](c.err); ok {
		// The message ends with the way out, after its last semicolon.
		what, way := e.Message, "correct the image reference"
		if i := strings.LastIndex(what, "; "); i > 0 {
			what, way = what[:i], what[i+2:]
		}
		c.set(BadRequest, "%s", what)
		c.remedy("%s", way)
		return true
	}
	return false
}

// forbidden reads what our own rules say. A node that has somewhere else to go may do better there.
func (c *facts) forbidden(e *access.ForbiddenError) {
	c.set(ClientForbidden, "the mirror has no rule that lets clients pull %s", e.Repo)
	c.remedy("add a rule for it to the mirror's configuration")
	if e.Mirrored {
		c.remedy("add it to rules in the mirror's configuration, or give the pod an imagePullSecret of %s", e.Repo.Host)
		c.alone("add it to rules in the mirror's configuration")
	}
	c.f.Upstream, c.f.Host, c.f.Declined = e.Repo.Host, e.Repo.Host, e.Mirrored
}

// overloaded reads that the mirror had no memory for a document. What else is known of the trip is not why.
func (c *facts) overloaded() bool {
	e, ok := errors.AsType[*memory.FullError](c.err)
	if !ok {
		return false
	}
	c.set(Overloaded, "the mirror has as many large manifests and lists in memory as it may have")
	c.remedy("pull again in a moment; run more mirrors if it stays")
	c.note("%d bytes were wanted of %d, for %s", e.Need, e.Size, e.Waited.Round(time.Millisecond))
	return true
}

// ourselves reads what the mirror or its client decided.
func (c *facts) ourselves() bool {
	if e, ok := errors.AsType[*upstream.QueueError](c.err); ok {
		c.set(QueueTimeout, "%s waited %s for its turn: all %d transfers from %s are in use", c.full(),
			e.Waited.Round(time.Second), e.Most, c.host)
		c.f.Short = fmt.Sprintf("it waited %s: all %d transfers from %s are in use", e.Waited.Round(time.Second),
			e.Most, c.host)
		c.remedy("pull again, or raise maxTransfers of %s", c.up)
		c.note("%d others wait for a turn at %s", e.Waiting, e.Endpoint)
		return true
	}
	switch {
	case errors.Is(c.err, flight.ErrClosed):
		c.set(Stopping, "the mirror is stopping")
		c.remedy("pull again in a moment")
	case errors.Is(c.err, context.Canceled):
		c.set(ClientGone, "the client left before %s was there", c.what())
		c.remedy("look at the client for why it gave up")
	default:
		return false
	}
	return true
}

// evidence says what was tried, one step a line.
func evidence(e *upstream.Error) []string {
	var lines []string
	for i, s := range e.Steps {
		line := string(s.Name) + " " + s.Host
		if s.Addr != "" && s.Addr != s.Host {
			line += " (" + s.Addr + ")"
		}
		switch {
		case s.Status != 0:
			line += fmt.Sprintf(": status %d", s.Status)
		case s.Err != nil:
			line += ": " + cause(s.Err)
		default:
			line += ": ok"
		}
		if i == len(e.Steps)-1 && s.Status == e.Status {
			line += said(e)
		}
		if s.Took > 0 {
			line += " after " + s.Took.Round(time.Millisecond).String()
		}
		lines = append(lines, line)
	}
	if e.Status != 0 && e.Step().Status != e.Status {
		lines = append(lines, fmt.Sprintf("%s: status %d%s", e.Upstream, e.Status, said(e)))
	}
	if p := e.Probe; p != nil {
		lines = append(lines, fmt.Sprintf("also asked for the %s at %s: status %d, %s", p.Step.Name, p.Step.Host, p.Step.Status,
			shows[p.Verdict]))
	}
	if n := e.Credential.Name; n != "" {
		line := fmt.Sprintf("credential %s: %s", n, orElse(string(e.Credential.State), "state unknown"))
		if why := e.Credential.LastError; why != "" && e.Credential.State != "failing" { // that is in the summary
			line += "; " + strings.TrimPrefix(why, "credential "+n+": ")
		}
		lines = append(lines, line)
	}
	return lines
}

// shows is what further questions have shown.
var shows = map[upstream.Verdict]string{
	upstream.VerdictRepositoryMissing: "there is no such repository",
	upstream.VerdictTagMissing:        "the repository is there, the tag is not",
	upstream.VerdictLoginNeeded:       "nobody gets a token without a login",
	upstream.VerdictUntold:            "which does not tell either",
}

// said is what an answer said beside its status.
func said(e *upstream.Error) string {
	s := ""
	if e.Code != "" {
		s = " " + e.Code
	}
	if e.Message != "" {
		s += fmt.Sprintf(" %q", e.Message)
	}
	return s
}

// cause is the text of an error without the request that it belongs to, which is named beside it.
func cause(err error) string {
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		if e.Err == nil {
			return "no answer"
		}
		return cause(e.Err)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
