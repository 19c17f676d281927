package diagnose

import (
	"cmp"
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream/fault"
)

// facts are the facts of one error, and the words for them.
type facts struct {
	err      error
	e        *fault.Error // zero where no upstream was involved
	step     fault.Step   // that failed
	upstream string       // canonical name; empty where no upstream was involved
	up       string       // the same, or words for it
	host     string       // at which the pull failed, or words for it
}

func factsOf(err error) facts {
	c := facts{err: err, e: &fault.Error{}}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		c.e = e
	}
	c.step = c.e.Step()
	c.upstream = c.e.Upstream
	if e, ok := errors.AsType[*pull.TimeoutError](err); ok && c.e.Op == "" {
		c.e = &fault.Error{Upstream: e.Ref.Host, Repository: e.Ref.Name, Reference: e.Ref.Tag}
		if e.Ref.Digest != "" {
			c.e.Reference = e.Ref.Digest.String()
		}
		c.upstream = e.Ref.Host
	}
	host := strings.TrimSuffix(c.step.Host, ":443") // the default port is not named
	c.up, c.host = cmp.Or(c.upstream, "the upstream"), cmp.Or(host, c.upstream, "the upstream")
	return c
}

// image is the repository with its reference, as the upstream names it.
func (c *facts) image() string { return named(c.e.Repository, c.e.Reference) }

// what is a noun phrase for the content that was requested, for a sentence that names the upstream.
func (c *facts) what() string { return c.thing("") }

// full is the same for a sentence that names another host.
func (c *facts) full() string {
	if c.host == c.up || c.upstream == "" {
		return c.thing("")
	}
	return c.thing(c.up + "/")
}

func (c *facts) thing(prefix string) string {
	switch {
	case c.isPing() && prefix == "":
		return "a ping"
	case c.isPing():
		return "a ping of " + strings.TrimSuffix(prefix, "/")
	case c.e.Repository == "":
		return "the image"
	case c.e.Op == "blob":
		return "blob " + shortRef(c.e.Reference) + " of " + prefix + c.e.Repository
	case c.e.Op == "tags", c.e.Op == "referrers":
		return "the " + c.e.Op + " of " + prefix + c.e.Repository
	}
	return "the manifest of " + prefix + c.image()
}

// isPing reports that no image is involved: a check of an upstream asks whether a registry answers there.
func (c *facts) isPing() bool { return c.e.Op != "" && c.e.Repository == "" }

// again is what to do where the failure may have been of the moment.
func (c *facts) again() string {
	if c.isPing() {
		return "run mirror doctor again"
	}
	return "pull again"
}

// asked is a noun phrase for the request that was answered.
func (c *facts) asked() string {
	switch c.step.Name {
	case fault.StepToken:
		return "the token request for " + c.prefix() + c.e.Repository
	case fault.StepPing:
		return "a ping"
	}
	return c.full()
}

// prefix names the upstream before a repository where the sentence is about another host.
func (c *facts) prefix() string {
	if c.host == c.up {
		return ""
	}
	return c.up + "/"
}

// at is the host with the upstream that it serves.
func (c *facts) at() string {
	if c.host == c.up || strings.HasPrefix(c.host, c.up+":") || c.upstream == "" {
		return c.host
	}
	return c.host + " (" + c.up + ")"
}

// where is the host with the address that was tried.
func (c *facts) where() string {
	addr := c.step.Addr
	if e, ok := errors.AsType[*net.OpError](c.err); ok && addr == "" && e.Addr != nil {
		addr = e.Addr.String()
	}
	if addr == "" || addr == c.host {
		return c.host
	}
	return c.host + " (" + addr + ")"
}

// short is a summary without the requested content and the address: a client prints both beside it. Empty where the summary
// has neither, or says more about the image.
func (c *facts) short(summary string) string {
	s := summary
	for _, thing := range []string{c.full(), c.what(), c.prefix() + cmp.Or(c.e.Repository, "the image")} {
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

// atBlobHost reports that the failing connection was to the host to which a blob's redirect leads.
func (c *facts) atBlobHost() bool {
	return c.step.Name == fault.StepBlobHost || c.step.For == fault.StepBlobHost
}

// dialing reports whether connecting failed, as against a connection that was made.
func (c *facts) dialing() bool {
	if e, ok := errors.AsType[*net.OpError](c.err); ok {
		return e.Op == "dial"
	}
	return c.step.Name == fault.StepDial
}

// proxyVariable names the variable of the environment that sets the proxy for the request.
func (c *facts) proxyVariable() string {
	purpose := cmp.Or(c.step.For, c.step.Name)
	switch {
	case !strings.HasPrefix(c.step.Endpoint, "http://"): // it leads to no http:// address
		return "HTTPS_PROXY"
	case purpose == fault.StepToken, purpose == fault.StepBlobHost: // where it leads to may be https://
		return "HTTP_PROXY or HTTPS_PROXY"
	}
	return "HTTP_PROXY"
}

// withCredential reports that the request was made with a credential.
func (c *facts) withCredential() bool { return c.e.Credential.Name != "" || c.e.Credential.Kind != "" }

// wantsPassword reports a challenge for a password: a registry that sends it knows no anonymous access at all.
func (c *facts) wantsPassword() bool {
	scheme, _, _ := strings.Cut(c.e.Challenge, " ")
	return c.e.Status == 401 && strings.EqualFold(scheme, "Basic")
}

// aboutRepository reports that the refusal is about this repository, and not about the credential. Harbor says so beside a
// challenge for a password, which it sends with each 401.
func (c *facts) aboutRepository() bool { return c.says("unauthorized to access repository") }

// hidesMissing reports that the upstream answers 403 for content that does not exist, too: Google's registries do.
func (c *facts) hidesMissing() bool {
	host := c.up
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, ".pkg.dev")
}

// keepsBlob reports that a registry refuses a blob with words of its own, and not for want of a login: it has shown the
// image's manifest without one, or an object store behind it answered. Artifactory's Xray and expired signatures are such.
func (c *facts) keepsBlob() bool {
	return c.e.Op == "blob" && c.e.Status == 403 && !c.withCredential() && c.e.Challenge == "" && c.e.Message != "" &&
		(c.e.Open || c.e.BodyKind == fault.BodyXML)
}

// probed reports whether a further request has shown v.
func (c *facts) probed(v fault.Verdict) bool { return c.e.Probe != nil && c.e.Probe.Verdict == v }

func (c *facts) hasCode(codes ...string) bool { return slices.Contains(codes, c.e.Code) }

// says looks for phrases in the message of the registry, for cases that its status and code do not separate.
func (c *facts) says(phrases ...string) bool {
	message := strings.ToLower(c.e.Message)
	for _, p := range phrases {
		if strings.Contains(message, strings.ToLower(p)) {
			return true
		}
	}
	return false
}

// quote is the message of the server, for the end of a sentence.
func (c *facts) quote() string {
	if c.e.Message == "" {
		return ""
	}
	return ": " + text.Cut(c.e.Message, 120)
}

// registryQuote is quote where a registry wrote the message; a web page says no more than its status.
func (c *facts) registryQuote() string {
	switch c.e.BodyKind {
	case fault.BodyErrors, fault.BodyDetails, fault.BodyMessage:
		return c.quote()
	}
	return ""
}

// ownID ends a sentence of a mirror.
var ownID = regexp.MustCompile(` \[[0-9a-f]{8}\]$`)

// mirrorQuote is the cause in the message of a further mirror. Its remedy and its id are that mirror's, and ours follow.
func (c *facts) mirrorQuote() string {
	cause, _, _ := strings.Cut(c.e.Message, "; ")
	if cause = ownID.ReplaceAllString(cause, ""); cause == "" {
		return ""
	}
	return ": " + text.Cut(cause, 120)
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

// named writes a repository with a tag or a digest. A digest is shortened: 12 digits separate it from the others of an image.
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
