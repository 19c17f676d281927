package diagnose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream/fault"
)

// Explain says why a pull failed. A nil error has the zero Finding.
func Explain(err error) Finding {
	if err == nil {
		return Finding{}
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Finding
	}
	c := newDraft(err)
	// From the most specific fact to the least: content and names that the mirror checked itself, the answer of a server, the
	// errors of the network, and what the mirror or its client decided. The order of those of the network matters: a DNS timeout is a
	// timeout too, a refused proxy is a refused connection too, and a TLS alert comes as a network error.
	for _, read := range []func(){
		c.overloaded, c.noRoom, c.request, c.content, c.notSent, c.answer,
		c.dns, c.proxy, c.certificate, c.handshake, c.connection, c.timeout, c.broken,
		c.ended, c.sourceFailed, c.other,
	} {
		if read(); c.f.Reason != "" {
			break
		}
	}
	return c.finish()
}

// draft is a finding that is being made of the facts. Each of its methods that read one kind of error sets the reason if it is that.
type draft struct {
	facts
	f Finding
}

func newDraft(err error) *draft {
	c := &draft{facts: factsOf(err)}
	c.f = Finding{
		Upstream: c.upstream, Host: cmp.Or(strings.TrimSuffix(c.step.Host, ":443"), c.upstream), Stage: string(c.step.Name),
		Status: c.e.Status, RetryAfter: c.e.RetryAfter,
	}
	return c
}

func (c *draft) set(r Reason, format string, args ...any) {
	c.f.Reason, c.f.Summary = r, fmt.Sprintf(format, args...)
}

func (c *draft) remedy(format string, args ...any) { c.f.Remedy = fmt.Sprintf(format, args...) }

// alone sets the remedy for clients that cannot go on to the registry themselves: the login of the node does not help there.
func (c *draft) alone(format string, args ...any) { c.f.Alone = fmt.Sprintf(format, args...) }

func (c *draft) note(format string, args ...any) {
	c.f.Evidence = append(c.f.Evidence, fmt.Sprintf(format, args...))
}

// finish adds what every finding has and cleans its texts.
func (c *draft) finish() Finding {
	c.fixed()
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

// request reads a mistake in the request itself.
func (c *draft) request() {
	if e, ok := errors.AsType[*route.UnknownError](c.err); ok {
		c.set(UnknownUpstream, "the mirror has no upstream named %s", e.Key)
		c.remedy("add %s to upstreams in the mirror's configuration, or pull from it directly", e.Key)
		c.alone("add %s to upstreams in the mirror's configuration", e.Key)
		if len(e.Have) > 0 {
			c.note("configured upstreams: %s", strings.Join(e.Have, ", "))
		}
		c.f.Host, c.f.Declined = e.Key, true
		return
	}
	if e, ok := errors.AsType[*access.ForbiddenError](c.err); ok {
		c.forbidden(e)
		return
	}
	if e, ok := errors.AsType[*access.LoginError](c.err); ok {
		c.loginMissing(e)
		return
	}
	if e, ok := errors.AsType[*access.RefusedError](c.err); ok {
		c.set(ClientLoginRefused, "%s doesn't let the client's login pull %s, or has no such image", e.Repo.Host, e.Repo.Name)
		c.remedy("check the image's name, then what this login may pull at %s", e.Repo.Host)
		if e.Remembered {
			c.note("the registry was not asked: it has just refused this login, or several of this user")
		}
		c.f.Upstream, c.f.Host, c.f.Declined = e.Repo.Host, e.Repo.Host, e.Mirrored
		return
	}
	if e, ok := errors.AsType[*access.BlockedError](c.err); ok {
		c.blocked(e)
		return
	}
	if e, ok := errors.AsType[*identity.RefusedError](c.err); ok {
		c.login(e)
		return
	}
	if e, ok := errors.AsType[*pull.HeldError](c.err); ok {
		c.held(e)
		return
	}
	if e, ok := errors.AsType[*pull.ImageError](c.err); ok {
		c.set(UnsupportedImage, "%s", e)
		c.remedy("push the image again with a current tool")
		c.f.Upstream, c.f.Host = e.Ref.Host, e.Ref.Host
		return
	}
	if e, ok := errors.AsType[errcode.Error](c.err); ok {
		what, way := wayOut(e.Message, "correct the image reference")
		c.set(BadRequest, "%s", what)
		c.remedy("%s", way)
		return
	}
}

// forbidden reads a refusal by the rules of the mirror. A node that can go on to the registry itself may do better there.
func (c *draft) forbidden(e *access.ForbiddenError) {
	who := cmp.Or(called(e.Who), "clients")
	c.set(ClientForbidden, "the mirror has no rule that lets %s pull %s", who, e.Repo)
	if e.Who != "" {
		c.f.Short = "the mirror has no rule that lets " + who + " pull it"
		c.note("rules lack {who: [%q], pull: [%q]}", string(e.Who), e.Repo.String())
	}
	if e.Note != "" {
		c.note("%s", e.Note)
	}
	way := wayToRead(e)
	c.remedy("%s", way)
	if e.Mirrored {
		c.remedy("%s, or give the pod an imagePullSecret of %s", way, e.Repo.Host)
		c.alone("%s", way)
	}
	c.f.Upstream, c.f.Host, c.f.Declined = e.Repo.Host, e.Repo.Host, e.Mirrored
}

// called is a client in a sentence; empty: it is anonymous.
func called(who client.Identity) string {
	switch kind, name := who.Kind(); kind {
	case "user", "node":
		return kind + " " + name
	case "sa":
		return "service account " + name
	}
	return ""
}

// wayToRead is how a client that a rule lacks comes to read. One that is anonymous may only have to say which client it is.
func wayToRead(e *access.ForbiddenError) string {
	switch kind, _ := e.Who.Kind(); {
	case kind == "user":
		return fmt.Sprintf("add a rule for %s to the mirror's configuration, or log in as a user that a rule names", e.Who)
	case kind != "":
		return fmt.Sprintf("add a rule for %s to the mirror's configuration", e.Who)
	case e.Mirrored && e.Note != "" && (e.Logins || e.Certificates):
		return "correct the certificate or the Authorization header that hosts.toml gives the node for the mirror"
	case e.Mirrored && e.Certificates:
		return "give the node a certificate of the mirror (client in hosts.toml), or add a rule for anonymous clients"
	case e.Mirrored && e.Logins:
		return "give the node a login to the mirror (Authorization in hosts.toml), or add a rule for anonymous clients"
	case !e.Mirrored && e.Logins:
		return "log in to the mirror: docker login, podman login, or an imagePullSecret for the mirror's host"
	case !e.Mirrored && e.Certificates:
		return "give the client a certificate of the mirror (client.cert and client.key in certs.d)"
	case e.Mirrored:
		return "add it to rules in the mirror's configuration"
	}
	return "add a rule for it to the mirror's configuration"
}

// loginMissing reads that a registry needs a login which neither the client nor the mirror has.
func (c *draft) loginMissing(e *access.LoginError) {
	c.f.Upstream, c.f.Host, c.f.Declined = e.Repo.Host, e.Repo.Host, e.Mirrored
	switch {
	case e.Background:
		c.set(ClientLoginMissing, "%s wants a login for %s, and under access: client the mirror has none", e.Repo.Host, e.Repo.Name)
		c.f.Short = "access: client gives the mirror no login for it"
		c.remedy("let clients pull it, or set access: rules for %s, with credentials and a rule", e.Repo.Host)
	case e.Insecure:
		c.set(ClientLoginMissing, "%s wants a login for %s, which the mirror takes over TLS alone", e.Repo.Host, e.Repo.Name)
		c.f.Short = e.Repo.Host + " wants a login, which the mirror takes over TLS alone"
		c.remedy("set tls.cert and tls.key of the mirror, and https:// in the node's configuration; a mirror on the node itself needs neither")
	default:
		c.set(ClientLoginMissing, "%s wants a login for %s, and the client has sent the mirror none", e.Repo.Host, e.Repo.Name)
		if e.Who.IsByLogin() {
			c.set(ClientLoginMissing, "%s wants a login for %s, and the client has sent that of %s at the mirror, not one of %s", e.Repo.Host, e.Repo.Name,
				called(e.Who), e.Repo.Host)
		}
		if e.Unusable {
			c.set(ClientLoginMissing, "%s wants a login for %s, and the client has sent the mirror something other than a user and password",
				e.Repo.Host, e.Repo.Name)
		}
		c.remedy("give the pod an imagePullSecret of %s, or check the image's name", e.Repo.Host)
		if !e.Mirrored {
			c.remedy("log in to the mirror with user and password of %s, or check the image's name", e.Repo.Host)
		}
	}
}

// blocked reads that the registry may not be asked for a name.
func (c *draft) blocked(e *access.BlockedError) {
	c.set(BlockedByPolicy, "the mirror never asks %s for %s (upstreams.%s.%s)", e.Repo.Host, e.Repo.Name, e.Repo.Host, e.Setting)
	c.f.Short = fmt.Sprintf("the mirror never asks %s for this name (%s)", e.Repo.Host, e.Setting)
	c.remedy("correct the image's name, or change %s in the mirror's configuration", e.Setting)
	c.note("%s", e)
	c.f.Upstream, c.f.Host, c.f.Declined = e.Repo.Host, e.Repo.Host, e.Mirrored
}

// login reads that a login is not one of the mirror's.
func (c *draft) login(e *identity.RefusedError) {
	of, beside := "", "this user"
	if e.User != "" && fault.Tidy(e.User, len(e.User)) == e.User { // else it holds a secret
		of, beside = " of user "+e.User, "user "+e.User
	}
	what := "this password" + of
	account := e.Method == identity.ByAccount
	if account {
		what = "this service account's token"
	}
	switch e.Result {
	case identity.Limited:
		c.set(LoginRefused, "the mirror does not check %s now, after many wrong ones", what)
		if c.remedy("wait a minute, and log in with the right password"); account {
			c.remedy("pull again in a minute; stop the client that sends wrong tokens from this address")
		}
	case identity.Unavailable:
		c.set(LoginRefused, "the mirror can't check %s now", what)
		if c.remedy("pull again in a moment; if it stays, see the mirror's log"); account {
			c.remedy("pull again in a moment; if it stays, see whether the mirror reaches the API server of the cluster")
		}
	default:
		if !account { // a client sends either in the same place
			what = "this password or token" + of
		}
		c.set(LoginRefused, "the mirror does not accept %s", what)
		switch e.Method {
		case identity.ByAccount:
			c.remedy("mount a new token of the service account, for the audience that the mirror's clients.kubernetes names")
		case identity.ByToken:
			c.remedy("log in to the mirror with a token of its clients.tokens; mirror token new makes one")
		case identity.ByPassword, identity.ByCertificate:
			c.remedy("log in to the mirror again, or correct the imagePullSecret for it")
		}
		switch {
		case account: // its remedy fits
		case e.Detail == identity.TokenExpired:
			c.set(LoginRefused, "the mirror does not accept this token%s, which has expired", of)
			c.remedy("log in to the mirror with a new token; mirror token new makes one")
		case e.Detail == identity.TokenOfAnother:
			c.set(LoginRefused, "the mirror does not accept this token beside %s", beside)
			c.remedy("log in to the mirror with the name of the token as the user")
		case e.Detail == identity.SpaceAtEnd:
			c.set(LoginRefused, "the mirror does not accept %s, which ends in a line end or another space", what)
			c.remedy("make the login for the mirror again without it: printf, not echo")
		}
	}
	if e.Detail != "" {
		c.note("%s", e.Detail)
	}
	if e.Err != nil {
		c.note("%s", e.Err)
	}
}

// held reads that no digest of a tag is old enough to be served.
func (c *draft) held(e *pull.HeldError) {
	from := e.Until.UTC().Format(time.RFC3339)
	c.set(TooNew, "%s:%s is held back: the mirror knows no digest of it for minAge (%s) yet", e.Ref.Repo, e.Ref.Tag, shortly(e.MinAge))
	c.f.Short = fmt.Sprintf("the mirror knows no digest of the tag for minAge (%s) yet", shortly(e.MinAge))
	c.remedy("pull it from %s on, or pull it by digest", from)
	if e.Latest != "" {
		c.note("the registry's digest is %s", e.Latest)
	}
	c.f.Upstream, c.f.Host = e.Ref.Host, e.Ref.Host
}

// fixed adds that a tag may be served with one digest alone, which is not to be had.
func (c *draft) fixed() {
	e, ok := errors.AsType[*pull.FixedError](c.err)
	if !ok {
		return
	}
	name, d := fmt.Sprintf("%s:%s", e.Ref.Repo, e.Ref.Tag), e.Choice.Digest
	gone := c.f.Reason == DigestNotFound
	switch e.Choice.Hold {
	case catalog.HeldByPin:
		c.note("the mirror has pinned %s to %s", name, d)
		if gone {
			c.remedy("remove the pin of %s, or pin it to another digest: see mirror tags pins", name)
		}
	case catalog.HeldByMinAge, catalog.HeldUnknown:
		c.note("%s has %s now, which is younger than minAge; until then it is served with %s", name, e.Choice.Latest, d)
	case catalog.HeldByImmutable, catalog.NotHeld:
		c.note("%s must not move (tags.immutable): it is served with its first digest, %s", name, d)
		if gone {
			c.remedy("push it there again, or pin the tag to another digest: mirror tags pin %s@DIGEST", name)
		}
	}
}

// overloaded reads that the mirror had no memory for a document. Other facts of the request are not the cause then.
func (c *draft) overloaded() {
	e, ok := errors.AsType[*memory.FullError](c.err)
	if !ok {
		return
	}
	c.set(Overloaded, "the mirror has as many large manifests and lists in memory as it may have")
	c.remedy("pull again in a moment; run more mirrors if it stays")
	c.note("%d bytes were wanted of %d, for %s", e.Need, e.Size, e.Waited.Round(time.Millisecond))
}

// noRoom reads that the cache could not store content. No pull fails by that: only a pull ahead of time has this error.
func (c *draft) noRoom() {
	text := roomError(c.err)
	if text == "" {
		return
	}
	what, way := wayOut(text, "look for the disk's own error in the mirror's log")
	c.set(NoRoom, "the cache has no room: %s", what)
	c.remedy("%s", way)
}

// roomError is the message of the cache alone; empty: the error has none.
func roomError(err error) string {
	if e, ok := errors.AsType[*cache.NoRoomError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*cache.DiskError](err); ok {
		return e.Error()
	}
	return ""
}

// wayOut divides a message from its way out, which is after its last semicolon. A message without one gets the other way.
func wayOut(text, other string) (what, way string) {
	if i := strings.LastIndex(text, "; "); i > 0 {
		return text[:i], text[i+2:]
	}
	return text, other
}

// other is the finding of an error that no other method reads.
func (c *draft) other() {
	if c.e.Op == "" {
		c.set(InternalError, "the mirror failed: %s", c.err)
		c.remedy("look at the mirror's log and report what it says")
		return
	}
	c.set(UpstreamError, "the request to %s for %s failed: %s", c.host, c.full(), cause(c.err))
	c.remedy("check that the mirror can reach %s, then pull again", c.host)
}

// ended reads that the mirror or its client ended the request.
func (c *draft) ended() {
	if e, ok := errors.AsType[*fault.QueueError](c.err); ok {
		c.set(QueueTimeout, "%s waited %s for its turn: all %d transfers from %s are in use", c.full(),
			e.Waited.Round(time.Second), e.Most, c.host)
		c.f.Short = fmt.Sprintf("it waited %s: all %d transfers from %s are in use", e.Waited.Round(time.Second),
			e.Most, c.host)
		c.remedy("pull again, or raise maxTransfers of %s", c.up)
		c.note("%d others wait for a turn at %s", e.Waiting, e.Endpoint)
		return
	}
	switch {
	case errors.Is(c.err, flight.ErrClosed):
		c.set(Stopping, "the mirror is stopping")
		c.remedy("pull again in a moment")
	case errors.Is(c.err, context.Canceled):
		c.set(ClientGone, "the client left before %s was there", c.what())
		c.remedy("look at the client for why it gave up")
	}
}

// evidence has the steps of the request, one a line.
func evidence(e *fault.Error) []string {
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
			line += errorText(e)
		}
		if s.Took > 0 {
			line += " after " + s.Took.Round(time.Millisecond).String()
		}
		lines = append(lines, line)
	}
	if e.Status != 0 && e.Step().Status != e.Status {
		lines = append(lines, fmt.Sprintf("%s: status %d%s", e.Upstream, e.Status, errorText(e)))
	}
	if p := e.Probe; p != nil {
		lines = append(lines, fmt.Sprintf("also asked for the %s at %s: status %d, %s", p.Step.Name, p.Step.Host, p.Step.Status,
			verdicts[p.Verdict]))
	}
	if n := e.Credential.Name; n != "" {
		line := fmt.Sprintf("credential %s: %s", n, cmp.Or(string(e.Credential.State), "state unknown"))
		if why := e.Credential.LastError; why != "" && e.Credential.State != "failing" { // that is in the summary
			line += "; " + strings.TrimPrefix(why, "credential "+n+": ")
		}
		lines = append(lines, line)
	}
	return lines
}

// verdicts describe the result of a further request.
var verdicts = map[fault.Verdict]string{
	fault.VerdictRepositoryMissing: "there is no such repository",
	fault.VerdictTagMissing:        "the repository is there, the tag is not",
	fault.VerdictLoginNeeded:       "the registry gives no token without a login",
	fault.VerdictUnknown:           "which does not decide it either",
}

// errorText is the code and message of an answer.
func errorText(e *fault.Error) string {
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
	if e, ok := errors.AsType[*fault.Error](err); ok {
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
