package diagnose

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/upstream"
)

// answer reads what a server said with a status. The same status means different things at different steps: 403 is the
// firewall of a registry at its ping, a bad or an insufficient credential at its token service, and an egress filter
// at a blob host.
func (c *facts) answer() bool {
	switch s := c.e.Status; {
	case s >= 300 && s < 400 && c.e.Err == nil:
		c.set(UpstreamError, "%s answered %d to %s, which is no answer to that", c.host, s, c.asked())
		c.remedy("check the endpoint of %s, then tell its operator", c.up)
	case s < 400:
		return false
	case s == 429:
		return c.limited()
	case s >= 500 && c.e.MirrorReason == string(Loop):
		c.set(Loop, "the mirror's own request to %s came back to it", c.up)
		c.remedy("correct the endpoints of %s, of which %s leads to the mirror itself", c.up, c.host)
	case s >= 500:
		c.set(UpstreamError, "%s answered %d to %s%s", c.host, s, c.asked(), c.words())
		c.remedy("wait for %s to recover, then pull again", c.host)
	case s == 404, s == 410:
		return c.missing()
	case c.step.Name == upstream.StepBlobHost:
		return c.blobHost()
	case s == 400 && c.says("HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS port"):
		c.set(HTTPSNotHTTP, "%s speaks HTTPS, and the endpoint of %s says http://", c.host, c.up)
		c.remedy("write its endpoint with https://")
	case s == 401, s == 403, s == 400 && c.named() && c.code("DENIED", "UNAUTHORIZED"):
		return c.denied()
	case c.step.Name == upstream.StepToken:
		c.set(TokenServiceRefused, "%s answered %d to the token request for %s%s", c.host, s, c.prefix()+c.e.Repository,
			c.quote())
		c.remedy("check the image's name and the endpoint of %s", c.up)
	case c.step.Name == upstream.StepList && slices.Contains([]int{400, 413, 414, 416, 422, 431}, s):
		// What was asked is the client's: so many entries, or an odd place to begin.
		c.set(BadRequest, "%s does not answer %s as it was asked, with %d%s", c.host, c.asked(), s, c.quote())
		c.f.Short = fmt.Sprintf("%s answered %d%s", c.host, s, c.quote())
		c.remedy("ask for fewer entries at a time, as n=100")
	default:
		c.set(UpstreamBlocked, "%s refuses %s with %d%s", c.host, c.asked(), s, c.quote())
		c.remedy("ask the operator of %s", c.up)
	}
	return true
}

// denied reads a 401 or 403. Many registries give the same to a stranger whether an image is private or not there.
func (c *facts) denied() bool {
	switch {
	case c.step.Name == upstream.StepPing && c.e.Status == 403:
		c.set(UpstreamBlocked, "%s refuses the mirror's address%s", c.host, c.quote())
		c.remedy("allow the mirror's address in the firewall of %s", c.up)
		return true
	case c.e.BodyKind == upstream.BodyHTML && c.e.Challenge == "" && c.step.Name != upstream.StepToken:
		// Registries refuse in JSON. This is what stands before one: a firewall, a proxy, a portal.
		c.set(UpstreamBlocked, "%s answered %d to %s with a web page%s", c.host, c.e.Status, c.asked(), c.quote())
		c.remedy("check what stands before it: firewall, proxy, login page")
		return true
	case c.says("is not allowed access", "download blocking policy"):
		// Azure's firewall, which names the client's address; Artifactory's Xray. Another login would change nothing.
		c.set(UpstreamBlocked, "%s refuses %s with %d%s", c.host, c.asked(), c.e.Status, c.quote())
		c.remedy("ask the operator of %s, whose firewall or policy it is", c.up)
		return true
	case c.blobKept():
		c.set(UpstreamBlocked, "%s refuses %s with %d%s", c.host, c.asked(), c.e.Status, c.quote())
		c.f.Short = fmt.Sprintf("%s refuses the blob with %d%s", c.host, c.e.Status, c.quote())
		c.remedy("ask the operator of %s, whose policy or object store it is", c.up)
		return true
	case c.sourceFailed():
		return true
	case !c.named():
		return c.stranger()
	}
	cred := c.e.Credential
	switch {
	case c.decided():
	case c.noAccess():
		c.set(NotFoundOrNoAccess, "%s/%s doesn't exist, or credential %s may not pull it", c.up, c.e.Repository, cred.Name)
		c.remedy("check the image's name, then what credential %s may pull at %s", cred.Name, c.up)
	case cred.State == "expired", c.says("token has expired", "token is expired", "token expired"):
		c.set(CredentialsExpired, "credential %s of %s has expired%s", cred.Name, c.up, since(cred.Expires))
		c.remedy("renew credential %s", cred.Name)
	case cred.State == "rejected", c.step.Name == upstream.StepToken && c.e.Status == 401, c.basic(),
		c.says("authorization token is invalid"):
		c.set(CredentialsRejected, "%s rejects credential %s for %s%s", c.host, cred.Name, c.prefix()+c.e.Repository,
			c.quote())
		c.remedy("renew credential %s of %s", cred.Name, c.up)
	case c.step.Name != upstream.StepToken && c.e.Status == 403 && !c.says("may not exist") && !c.hides():
		c.set(UpstreamForbidden, "%s doesn't let credential %s pull %s%s", c.up, cred.Name, c.e.Repository, c.quote())
		c.remedy("give credential %s the right to pull it, at %s", cred.Name, c.up)
	default:
		c.set(NotFoundOrNoAccess, "%s/%s doesn't exist, or credential %s may not pull it", c.up, c.e.Repository, cred.Name)
		c.remedy("check the image's name, then what credential %s may pull at %s", cred.Name, c.up)
	}
	return true
}

// blobKept reports that a registry keeps a blob back with words of its own, and not for want of a login: it has shown the image's
// manifest without one, or what speaks is an object store behind it. Artifactory's Xray and expired signatures are such.
func (c *facts) blobKept() bool {
	return c.e.Op == "blob" && c.e.Status == 403 && !c.named() && c.e.Challenge == "" && c.e.Message != "" &&
		(c.e.Open || c.e.BodyKind == upstream.BodyXML)
}

// stranger reads a refusal of a request without a credential: the node's own may do better, so it is declined.
func (c *facts) stranger() bool {
	c.f.Declined = true
	if c.decided() {
		return true
	}
	c.remedy("check tag and imagePullSecret, or give the mirror a credential for %s", c.up)
	c.alone("check the image's name, or give the mirror a credential for %s", c.up)
	if c.e.PublicOnly { // where the mirror has one, it is not for this
		c.remedy("check tag and imagePullSecret; under access: public the mirror pulls only public images")
		c.alone("check the image's name, or set access: rules for %s and a rule: under access: public the mirror pulls only "+
			"public images", c.up)
	}
	if c.basic() && !c.noAccess() || c.says("please login", "please log in") || c.told(upstream.VerdictLoginNeeded) {
		c.set(CredentialsMissing, "%s wants a login, and the mirror has no credentials for %s/%s", c.up, c.up, c.e.Repository)
		return true
	}
	c.set(NotFoundOrNoAccess, "the mirror has no credentials for %s/%s, which is private or doesn't exist", c.up,
		c.e.Repository)
	return true
}

// sourceFailed reads a credential that could not be had at all.
func (c *facts) sourceFailed() bool {
	cred := c.e.Credential
	if cred.State != "failing" {
		return false
	}
	name, kind := "the credential", orElse(cred.Kind, "source")
	if cred.Name != "" {
		name = "credential " + cred.Name
	}
	why := strings.TrimPrefix(orElse(cred.LastError, "no details"), name+": ")
	c.set(CredentialSourceFailed, "%s of %s can't be fetched: %s", name, c.up, why)
	c.f.Short = name + ": " + Cut(why, 64)
	c.remedy("correct its source (%s), or the credentials of %s in the mirror's configuration", kind, c.up)
	return true
}

func (c *facts) missing() bool {
	switch {
	case c.step.Name == upstream.StepToken:
		c.set(TokenServiceRefused, "%s answered %d to the token request for %s%s", c.host, c.e.Status,
			c.prefix()+c.e.Repository, c.quote())
		c.remedy("check the image's name and the endpoint of %s", c.up)
	case c.code("NAME_UNKNOWN"), c.e.Op == "tags", c.told(upstream.VerdictRepositoryMissing):
		c.noRepository()
	case c.e.Op == "blob":
		c.set(DigestNotFound, "%s has no blob %s", c.up, named(c.e.Repository, c.e.Reference))
		c.remedy("pull the tag again; if it still fails, push the image again")
	case strings.Contains(c.e.Reference, ":"):
		c.set(DigestNotFound, "%s has no %s", c.up, c.image())
		c.remedy("check the digest; what was pushed over a tag may have been deleted")
	case c.code("TAG_EXPIRED"):
		c.set(TagNotFound, "%s let the tag %s expire", c.up, c.image())
		c.remedy("choose a tag that exists, or push this one again")
	default:
		c.set(TagNotFound, "%s has no %s", c.up, c.image())
		c.remedy("check the image's name and tag")
	}
	return true
}

func (c *facts) noRepository() {
	c.set(RepositoryNotFound, "%s has no repository %s", c.up, c.e.Repository)
	c.remedy("check the image's name")
}

// told reports what a further question has shown.
func (c *facts) told(v upstream.Verdict) bool { return c.e.Probe != nil && c.e.Probe.Verdict == v }

// decided reads a refusal after which a further question has shown that something is missing.
func (c *facts) decided() bool {
	switch {
	case c.told(upstream.VerdictRepositoryMissing):
		c.noRepository()
	case c.told(upstream.VerdictTagMissing):
		c.set(TagNotFound, "%s has no %s among the tags that it lists", c.up, c.image())
		c.remedy("check the image's tag")
	default:
		return false
	}
	return true
}

func (c *facts) limited() bool {
	who := "anonymous pulls from the mirror's address"
	if n := c.e.Credential.Name; n != "" {
		who = "credential " + n
	}
	switch {
	case c.says("data limit exceeded"):
		c.set(DataLimited, "%s limits how many bytes a month %s may get", c.up, who)
		c.f.Short = fmt.Sprintf("%s limits how many bytes a month %s", c.up, strings.TrimSuffix(who, " from the mirror's address")+" may get")
		c.remedy("give the mirror a credential for %s, with a larger allowance", c.up)
	case c.up == "docker.io" && c.e.BodyKind == upstream.BodyText:
		// Docker Hub answers its pull limit in JSON and its abuse limit, which paid accounts have too, in plain text.
		c.set(AbuseLimited, "docker.io gets too many requests a minute from the mirror's address")
		c.remedy("wait%s, and find who else at this address uses docker.io", c.wait())
	default:
		c.set(RateLimited, "%s limits %s, and the limit is reached", c.up, who)
		c.remedy("wait%s, or give the mirror a credential for %s with a higher limit", c.wait(), c.up)
		if b := c.e.Budget; b != nil && b.Spent.Elsewhere > b.Limit/2 {
			c.remedy("wait%s, or find who else pulls from %s %s, and let them use the mirror", c.wait(), c.up, shared(b))
		}
		c.budget()
	}
	return true
}

// budget notes what the registry has said of the limit.
func (c *facts) budget() {
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

// spent notes who has spent the limit.
func (c *facts) spent(b *upstream.Budget) {
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

// shared is what others have in common with us where they spend the same limit.
func shared(b *upstream.Budget) string {
	if b.Credential != "" {
		return "with the account of credential " + b.Credential
	}
	return "at the mirror's address"
}

// shortly is a duration without zeros: 6h and not 6h0m0s.
func shortly(d time.Duration) string {
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// blobHost reads a refusal by the host that the registry sent us to for a blob, with a signed URL that was fresh.
func (c *facts) blobHost() bool {
	c.set(UpstreamBlocked, "%s answered %d to %s, which %s granted", c.host, c.e.Status, c.what(), c.up)
	c.remedy("allow %s in the egress filter or proxy of the mirror", c.host)
	if c.e.BodyKind == upstream.BodyXML {
		c.set(UpstreamBlocked, "object store %s answered %d %s to %s, which %s granted", c.host, c.e.Status,
			c.e.Code, c.what(), c.up)
		c.remedy("check the clock of the mirror's machine, and policies for %s (VPC endpoint)", c.host)
	}
	return true
}

// asked is what the answer was an answer to.
func (c *facts) asked() string {
	switch c.step.Name {
	case upstream.StepToken:
		return "the token request for " + c.prefix() + c.e.Repository
	case upstream.StepPing:
		return "a ping"
	}
	return c.full()
}

// prefix names the upstream where another host is the subject.
func (c *facts) prefix() string {
	if c.host == c.up {
		return ""
	}
	return c.up + "/"
}

// named reports that the request was made with a credential.
func (c *facts) named() bool { return c.e.Credential.Name != "" || c.e.Credential.Kind != "" }

// basic reports a challenge for a password: who sends it knows no anonymous access at all.
func (c *facts) basic() bool {
	scheme, _, _ := strings.Cut(c.e.Challenge, " ")
	return c.e.Status == 401 && strings.EqualFold(scheme, "Basic")
}

// noAccess reports that the answer is about this repository, and not about who asks. Harbor says so beside a challenge for
// a password, which it sends with each 401.
func (c *facts) noAccess() bool { return c.says("unauthorized to access repository") }

// hides reports that the upstream gives 403 for what does not exist too: Google's registries do.
func (c *facts) hides() bool {
	host := c.up
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, ".pkg.dev")
}

func (c *facts) code(codes ...string) bool {
	return slices.Contains(codes, c.e.Code)
}

// says looks for words of the registry in what it wrote, for cases in which its status and code do not tell.
func (c *facts) says(phrases ...string) bool {
	text := strings.ToLower(c.e.Message)
	for _, p := range phrases {
		if strings.Contains(text, strings.ToLower(p)) {
			return true
		}
	}
	return false
}

// quote appends what the server said.
func (c *facts) quote() string {
	if c.e.Message == "" {
		return ""
	}
	return ": " + Cut(c.e.Message, 120)
}

// words is quote where a registry speaks; a web page says no more than its status.
func (c *facts) words() string {
	switch c.e.BodyKind {
	case upstream.BodyErrors, upstream.BodyDetails, upstream.BodyMessage:
		return c.quote()
	}
	return ""
}

// wait is how long to wait, where that is worth saying: seconds are over before the sentence is read.
func (c *facts) wait() string {
	if c.e.RetryAfter < 5*time.Second {
		return ""
	}
	if b := c.e.Budget; b != nil && b.Reset.IsZero() && b.Window > 0 && b.Remaining == 0 {
		return " up to " + shortly(c.e.RetryAfter) // a window slides: some of it comes back before
	}
	return " " + shortly(c.e.RetryAfter)
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf(" on %s", t.UTC().Format("2006-01-02 15:04 UTC"))
}
