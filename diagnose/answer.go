package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
)

// answer reads the answer of a server. The same status means different things at different steps: 403 is the
// firewall of a registry at its ping, a bad or an insufficient credential at its token service, and an egress filter
// at a blob host.
func (c *draft) answer() {
	switch s := c.e.Status; {
	case s >= 300 && s < 400 && c.e.Err == nil:
		c.set(UpstreamError, "%s answered %d to %s, which is not a valid answer", c.host, s, c.asked())
		c.remedy("check the endpoint of %s, then report it to its operator", c.up)
	case s < 400:
	case c.ofMirror():
	case s == 429:
		c.limited()
	case s >= 500:
		c.set(UpstreamError, "%s answered %d to %s%s", c.host, s, c.asked(), c.registryQuote())
		c.remedy("wait for %s to recover, then pull again", c.host)
	case (s == 404 || s == 410) && c.step.Name != fault.StepToken:
		c.missing()
	case c.step.Name == fault.StepBlobHost:
		c.blobHost()
	case s == 400 && c.says("HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS port"):
		c.set(HTTPSNotHTTP, "%s speaks HTTPS, and the endpoint of %s says http://", c.host, c.up)
		c.remedy("write its endpoint with https://")
	case s == 401, s == 403, s == 400 && c.withCredential() && c.hasCode("DENIED", "UNAUTHORIZED"):
		c.denied()
	case c.step.Name == fault.StepToken:
		c.set(TokenServiceRefused, "%s answered %d to the token request for %s%s", c.host, s, c.prefix()+c.e.Repository,
			c.quote())
		c.remedy("check the image's name and the endpoint of %s", c.up)
	case c.step.Name == fault.StepList && slices.Contains([]int{400, 413, 414, 416, 422, 431}, s):
		// The parameters are the client's: the number of entries, or the place to begin.
		c.set(BadRequest, "%s does not answer %s as it was asked, with %d%s", c.host, c.asked(), s, c.quote())
		c.f.Short = fmt.Sprintf("%s answered %d%s", c.host, s, c.quote())
		c.remedy("ask for fewer entries at a time, as n=100")
	default:
		c.set(UpstreamBlocked, "%s refuses %s with %d%s", c.host, c.asked(), s, c.quote())
		c.remedy("ask the operator of %s", c.up)
	}
}

// ofMirror reads the refusal of a further mirror, which its Mirror-Reason tells apart: it is that mirror's own, and the registry behind
// it need not have said anything. False: it is not a mirror's, or the mirror passes on what the registry has said.
func (c *draft) ofMirror() bool {
	s, reason := c.e.Status, Reason(c.e.MirrorReason)
	_, known := byReason[reason]
	switch {
	case reason == Loop && s >= 500:
		c.set(Loop, "the mirror's own request to %s came back to it", c.up)
		c.remedy("correct the endpoints of %s, of which %s leads to the mirror itself", c.up, c.host)
	case !known, s < 500 && reason.Class() == ClassMissing:
		return false
	case s == 403 && (reason == NotFoundOrNoAccess || reason == CredentialsMissing):
		c.set(NotFoundOrNoAccess, "%s, a mirror, has no credentials for %s/%s, which is private or doesn't exist", c.host, c.up, c.e.Repository)
		c.remedy("check tag and imagePullSecret, or give the mirror at %s a credential for it", c.host)
		c.alone("check the image's name, or give the mirror at %s a credential for it", c.host)
		c.f.Declined = !c.withCredential()
	case s >= 500:
		c.set(UpstreamError, "%s, a mirror, answered %d to %s (%s)%s", c.host, s, c.asked(), reason, c.mirrorQuote())
		c.remedy("see mirror failures at %s, and pull again when the cause is gone", c.host)
	case s == 401 && c.withCredential():
		c.set(CredentialsRejected, "%s, a mirror, rejects credential %s for %s%s", c.host, c.e.Credential.Name, c.asked(), c.mirrorQuote())
		c.remedy("renew credential %s of %s, or add its user to clients of the mirror at %s", c.e.Credential.Name, c.up, c.host)
	case s == 401:
		c.set(CredentialsMissing, "%s, a mirror, wants a login for %s", c.host, c.asked())
		c.remedy("set credentials for %s, or add a rule for anonymous clients to the mirror at %s", c.up, c.host)
		c.f.Declined = true
	default:
		c.set(UpstreamBlocked, "%s, a mirror, refuses %s with %d (%s)%s", c.host, c.asked(), s, reason, c.mirrorQuote())
		c.remedy("change the configuration of the mirror at %s: see mirror failures there", c.host)
	}
	return true
}

// denied reads a 401 or 403. Without a login many registries answer the same for a private and for a missing image.
func (c *draft) denied() {
	cred := c.e.Credential
	switch {
	case c.step.Name == fault.StepPing && c.e.Status == 403:
		c.set(UpstreamBlocked, "%s refuses the mirror's address%s", c.host, c.quote())
		c.remedy("allow the mirror's address in the firewall of %s", c.up)
	case c.e.BodyKind == fault.BodyHTML && c.e.Challenge == "" && c.step.Name != fault.StepToken:
		// Registries refuse in JSON. A web page is of a firewall, a proxy or a portal before the registry.
		c.set(UpstreamBlocked, "%s answered %d to %s with a web page%s", c.host, c.e.Status, c.asked(), c.quote())
		c.remedy("check what stands before it: firewall, proxy, login page")
	case c.says("is not allowed access", "download blocking policy"):
		// Azure's firewall, which names the client's address; Artifactory's Xray. Another login would change nothing.
		c.set(UpstreamBlocked, "%s refuses %s with %d%s", c.host, c.asked(), c.e.Status, c.quote())
		c.remedy("ask the operator of %s, whose firewall or policy it is", c.up)
	case c.keepsBlob():
		c.set(UpstreamBlocked, "%s refuses %s with %d%s", c.host, c.asked(), c.e.Status, c.quote())
		c.f.Short = fmt.Sprintf("%s refuses the blob with %d%s", c.host, c.e.Status, c.quote())
		c.remedy("ask the operator of %s, whose policy or object store it is", c.up)
	case cred.State == "failing":
		c.sourceFailed()
	case !c.withCredential():
		c.anonymous()
	case c.decided():
	case c.aboutRepository():
		c.set(NotFoundOrNoAccess, "%s/%s doesn't exist, or credential %s may not pull it", c.up, c.e.Repository, cred.Name)
		c.remedy("check the image's name, then what credential %s may pull at %s", cred.Name, c.up)
	case cred.State == "expired", c.says("token has expired", "token is expired", "token expired"):
		c.set(CredentialsExpired, "credential %s of %s has expired%s", cred.Name, c.up, since(cred.Expires))
		c.remedy("renew credential %s", cred.Name)
	case cred.State == "rejected", c.step.Name == fault.StepToken && c.e.Status == 401, c.wantsPassword(),
		c.says("authorization token is invalid"):
		c.set(CredentialsRejected, "%s rejects credential %s for %s%s", c.host, cred.Name, c.prefix()+c.e.Repository,
			c.quote())
		c.remedy("renew credential %s of %s", cred.Name, c.up)
	case c.step.Name != fault.StepToken && c.e.Status == 403 && !c.says("may not exist") && !c.hidesMissing():
		c.set(UpstreamForbidden, "%s doesn't let credential %s pull %s%s", c.up, cred.Name, c.e.Repository, c.quote())
		c.remedy("give credential %s the right to pull it, at %s", cred.Name, c.up)
	default:
		c.set(NotFoundOrNoAccess, "%s/%s doesn't exist, or credential %s may not pull it", c.up, c.e.Repository, cred.Name)
		c.remedy("check the image's name, then what credential %s may pull at %s", cred.Name, c.up)
	}
}

// anonymous reads a refusal of a request without a credential: that of the node may do better, so the mirror declines.
func (c *draft) anonymous() {
	c.f.Declined = true
	if c.decided() {
		return
	}
	c.remedy("check tag and imagePullSecret, or give the mirror a credential for %s", c.up)
	c.alone("check the image's name, or give the mirror a credential for %s", c.up)
	if c.e.PublicOnly { // a credential of the mirror is not used then
		c.remedy("check tag and imagePullSecret; under access: public the mirror pulls only public images")
		c.alone("check the image's name, or set access: rules for %s and a rule: under access: public the mirror pulls only "+
			"public images", c.up)
	}
	switch {
	case c.wantsPassword() && !c.aboutRepository(), c.says("please login", "please log in"), c.probed(fault.VerdictLoginNeeded):
		c.set(CredentialsMissing, "%s wants a login, and the mirror has no credentials for %s/%s", c.up, c.up, c.e.Repository)
	default:
		c.set(NotFoundOrNoAccess, "the mirror has no credentials for %s/%s, which is private or doesn't exist", c.up, c.e.Repository)
	}
}

// sourceFailed reads that the source of the credential failed.
func (c *draft) sourceFailed() {
	cred := c.e.Credential
	if cred.State != "failing" {
		return
	}
	name, kind := "the credential", cmp.Or(cred.Kind, "source")
	if cred.Name != "" {
		name = "credential " + cred.Name
	}
	why := strings.TrimPrefix(cmp.Or(cred.LastError, "no details"), name+": ")
	c.set(CredentialSourceFailed, "%s of %s can't be fetched: %s", name, c.up, why)
	c.f.Short = name + ": " + text.Cut(why, 64)
	c.remedy("correct its source (%s), or the credentials of %s in the mirror's configuration", kind, c.up)
}

func (c *draft) missing() {
	switch {
	case c.hasCode("NAME_UNKNOWN"), c.e.Op == "tags", c.probed(fault.VerdictRepositoryMissing):
		c.noRepository()
	case c.e.Op == "blob":
		c.set(DigestNotFound, "%s has no blob %s", c.up, named(c.e.Repository, c.e.Reference))
		c.remedy("pull the tag again; if it still fails, push the image again")
	case strings.Contains(c.e.Reference, ":"):
		c.set(DigestNotFound, "%s has no %s", c.up, c.image())
		c.remedy("check the digest; what was pushed over a tag may have been deleted")
	case c.hasCode("TAG_EXPIRED"):
		c.set(TagNotFound, "%s let the tag %s expire", c.up, c.image())
		c.remedy("choose a tag that exists, or push this one again")
	default:
		c.set(TagNotFound, "%s has no %s", c.up, c.image())
		c.remedy("check the image's name and tag")
	}
}

func (c *draft) noRepository() {
	c.set(RepositoryNotFound, "%s has no repository %s", c.up, c.e.Repository)
	c.remedy("check the image's name")
}

// decided reads a refusal after which a further request has shown that the repository or tag is missing.
func (c *draft) decided() bool {
	switch {
	case c.probed(fault.VerdictRepositoryMissing):
		c.noRepository()
	case c.probed(fault.VerdictTagMissing):
		c.set(TagNotFound, "%s has no %s among the tags that it lists", c.up, c.image())
		c.remedy("check the image's tag")
	default:
		return false
	}
	return true
}

func (c *draft) limited() {
	whose := "anonymous pulls from the mirror's address"
	if n := c.e.Credential.Name; n != "" {
		whose = "credential " + n
	}
	switch {
	case c.says("data limit exceeded"):
		c.set(DataLimited, "%s has a monthly download quota for %s, and it is used up", c.up, whose)
		c.f.Short = fmt.Sprintf("%s has a monthly download quota for %s", c.up, strings.TrimSuffix(whose, " from the mirror's address"))
		c.remedy("give the mirror a credential for %s, with a larger allowance", c.up)
	case c.up == "docker.io" && c.e.BodyKind == fault.BodyText:
		// Docker Hub answers its pull limit in JSON and its abuse limit, which paid accounts have too, in plain text.
		c.set(AbuseLimited, "docker.io gets too many requests a minute from the mirror's address")
		c.remedy("wait%s, and find the other users of docker.io at this address", c.wait())
	case fault.Is[*fault.ReserveError](c.err):
		c.set(RateLimited, "%s limits %s, and the rest of the limit is kept for pulls of clients", c.up, whose)
		c.remedy("wait%s, or make rateLimitReserve of %s smaller", c.wait(), c.up)
		c.budget()
	default:
		c.set(RateLimited, "%s limits %s, and the limit is reached", c.up, whose)
		c.remedy("wait%s, or give the mirror a credential for %s with a higher limit", c.wait(), c.up)
		if b := c.e.Budget; b != nil && b.Spent.Elsewhere > b.Limit/2 {
			c.remedy("wait%s, or find the other clients that pull from %s %s, and let them use the mirror", c.wait(), c.up, shared(b))
		}
		c.budget()
	}
}

// budget notes the limit as the registry reported it.
func (c *draft) budget() {
	b := c.e.Budget
	if b == nil {
		return
	}
	text := fmt.Sprintf("%s said%s: %d left", c.up, since(b.At), b.Remaining)
	if b.Limit >= 0 {
		text = fmt.Sprintf("%s said%s: %d of %d left", c.up, since(b.At), b.Remaining, b.Limit)
	}
	if b.Window > 0 {
		text += fmt.Sprintf(", window %s", shortly(b.Window))
	}
	if b.Source != "" {
		text += ", counted for " + b.Source
	}
	if !b.Reset.IsZero() {
		text += ", more" + since(b.Reset)
	}
	c.note("%s", text)
	c.spent(b)
}

// spent notes which pulls have used up the limit.
func (c *draft) spent(b *limit.Budget) {
	const named = 3
	s := b.Spent
	if s.Since.IsZero() {
		return
	}
	text := fmt.Sprintf("this mirror has spent %d of it since%s", s.Requests, strings.TrimPrefix(since(s.Since), " on"))
	var parts []string
	rest := s.Requests
	for _, use := range s.By[:min(len(s.By), named)] {
		parts = append(parts, fmt.Sprintf("%d for %s", use.Requests, use.Repository))
		rest -= use.Requests
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("%d for others", rest))
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	if s.Elsewhere > 0 {
		text += fmt.Sprintf("; %d were spent elsewhere %s", s.Elsewhere, shared(b))
	}
	c.note("%s", text)
}

// shared is the property that other clients which use up the limit share with the mirror.
func shared(b *limit.Budget) string {
	if b.Credential != "" {
		return "with the account of credential " + b.Credential
	}
	return "at the mirror's address"
}

// shortly is a duration to the second, without zeros at its end: 6h and not 6h0m0s.
func shortly(d time.Duration) string { return text.Duration(d.Round(time.Second)) }

// blobHost reads a refusal by the host to which the registry redirected a blob request, with a fresh signed URL.
func (c *draft) blobHost() {
	c.set(UpstreamBlocked, "%s answered %d to %s, which %s granted", c.host, c.e.Status, c.what(), c.up)
	c.remedy("allow %s in the egress filter or proxy of the mirror", c.host)
	if c.e.BodyKind == fault.BodyXML {
		c.set(UpstreamBlocked, "object store %s answered %d %s to %s, which %s granted", c.host, c.e.Status,
			c.e.Code, c.what(), c.up)
		c.remedy("check the clock of the mirror's machine, and policies for %s (VPC endpoint)", c.host)
	}
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf(" on %s", t.UTC().Format("2006-01-02 15:04 UTC"))
}
