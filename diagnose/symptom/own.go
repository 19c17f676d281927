package symptom

import (
	"regexp"

	"github.com/registrymirror/mirror/diagnose"
)

// own tells the reasons of a mirror's sentences, where the sentence alone tells them. Others are unknown here; the id
// beside the sentence finds the mirror's own record.
var own = []struct {
	reason diagnose.Reason
	text   *regexp.Regexp
}{
	{diagnose.ConnectRefused, regexp.MustCompile(`refused the connection`)},
	{diagnose.TagNotFound, regexp.MustCompile(`^\S+ has no [^\s@]+:[^\s@]+$`)},
	{diagnose.DigestNotFound, regexp.MustCompile(`^\S+ has no \S+@sha(256|512):`)},
	{diagnose.DNSNotFound, regexp.MustCompile(`^there is no host \S+ in DNS`)},
	{diagnose.DNSFailed, regexp.MustCompile(`^the mirror's DNS could not resolve|^DNS server \S+ did not answer`)},
	{diagnose.ConnectTimeout, regexp.MustCompile(`did not accept a connection`)},
	{diagnose.UpstreamTimeout, regexp.MustCompile(`did not answer (in time|within)|did not answer for the manifest`)},
	{diagnose.Stalled, regexp.MustCompile(`stopped sending|too slowly to end`)},
	{diagnose.TLSHandshake, regexp.MustCompile(`the TLS handshake`)},
	{diagnose.TLSUntrusted, regexp.MustCompile(`^certificate of .* is issued by .*(the mirror doesn't trust|isn't trusted)`)},
	{diagnose.TLSWrongHost, regexp.MustCompile(`^certificate of .* is for .*, not for `)},
	{diagnose.TLSExpired, regexp.MustCompile(`^certificate of .* expired on `)},
	{diagnose.ClockSkew, regexp.MustCompile(`^certificate of .* is valid only from `)},
	{diagnose.HTTPNotHTTPS, regexp.MustCompile(`answered HTTP on an https endpoint`)},
	{diagnose.HTTPSNotHTTP, regexp.MustCompile(`speaks HTTPS, and the endpoint`)},
	{diagnose.NotFoundOrNoAccess, regexp.MustCompile(`has no credentials for \S+, which is private or doesn't exist`)},
	{diagnose.CredentialsMissing, regexp.MustCompile(`wants a login, and the mirror has no credentials`)},
	{diagnose.CredentialsRejected, regexp.MustCompile(`rejects credential `)},
	{diagnose.CredentialsExpired, regexp.MustCompile(`^credential \S+ of \S+ has expired`)},
	{diagnose.CredentialSourceFailed, regexp.MustCompile(`^credential \S+ of \S+ can't be fetched|^credential \S+: `)},
	{diagnose.UpstreamForbidden, regexp.MustCompile(`doesn't let credential `)},
	{diagnose.UpstreamBlocked, regexp.MustCompile(`refuses the mirror's address`)},
	{diagnose.RateLimited, regexp.MustCompile(`limits anonymous pulls from`)},
	{diagnose.AbuseLimited, regexp.MustCompile(`gets too many requests a minute`)},
	{diagnose.DataLimited, regexp.MustCompile(`limits how many bytes a month`)},
	{diagnose.RepositoryNotFound, regexp.MustCompile(`^\S+ has no repository `)},
	{diagnose.UnknownUpstream, regexp.MustCompile(`^(the mirror )?has no upstream named`)},
	{diagnose.ClientForbidden, regexp.MustCompile(`^(the mirror )?has no rule that lets clients pull `)},
	{diagnose.Overloaded, regexp.MustCompile(`has as many (connections|large manifests and lists in memory) as it may have`)},
	{diagnose.Stopping, regexp.MustCompile(`^(the mirror )?is stopping`)},
	{diagnose.QueueTimeout, regexp.MustCompile(`waited .* for its turn|waited \S+: all \d+ transfers`)},
	{diagnose.AuthHostNotAllowed, regexp.MustCompile(`wants its tokens (from|over)|sends on to \S+, which wants a login`)},
	{diagnose.UnsupportedImage, regexp.MustCompile(`is of Docker's signed schema 1`)},
	{diagnose.RedirectNotAllowed, regexp.MustCompile(`which is not followed`)},
	{diagnose.ManifestTooLarge, regexp.MustCompile(`is larger than 4 MiB`)},
	{diagnose.PlatformMissing, regexp.MustCompile(`^\S+ has .+, and nothing for .+, which `)},
	{diagnose.TokenServiceRefused, regexp.MustCompile(`answered 4\d\d to the token request`)},
	{diagnose.ProxyRefused, regexp.MustCompile(`^proxy \S+ answered \d{3}`)},
	{diagnose.UpstreamBlocked, regexp.MustCompile(`answered \d{3} .*(with a web page|, which \S+ granted)`)},
	{diagnose.UpstreamError, regexp.MustCompile(`^\S+ answered 5\d\d( to |: |$)`)},
	{diagnose.DigestMismatch, regexp.MustCompile(`has the digest|sent corrupt data`)},
}

func classifyOwn(summary string) diagnose.Reason {
	for _, o := range own {
		if o.text.MatchString(summary) {
			return o.reason
		}
	}
	return diagnose.Unknown
}
