package symptom

import (
	"regexp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
)

var (
	// sentence is what a mirror says in a status line or an Event, with its id.
	sentence = regexp.MustCompile(`\(mirror: (.*?) ?\[([0-9a-f]{8})\]\)`)
	// cutOff is one that a program has cut before the id.
	cutOff = regexp.MustCompile(`(?:\b[45]\d\d [A-Z][A-Za-z' -]{1,40}|Failed to pull image \\?"[^"]*": ?)\(mirror: (.*)$`)
)

// ownText is a mirror's sentence in a text.
type ownText struct{ summary, remedy, id string }

// ownOf finds a mirror's sentence in a text: in brackets, as a status line has it.
func ownOf(text string) (o ownText, ok bool) {
	if !strings.Contains(text, "(mirror: ") {
		return inBody(text)
	}
	m := sentence.FindStringSubmatch(text)
	if m != nil {
		o.id = m[2]
	} else if m = cutOff.FindStringSubmatch(text); m == nil {
		return o, false
	}
	o.summary, o.remedy, _ = strings.Cut(m[1], "; ")
	return o, true
}

// codes matches what clients put before the message of a registry's error body.
var codes = regexp.MustCompile(`(?i)\b(?:denied|unauthorized|unavailable|unknown|toomanyrequests|too many requests|unsupported|invalid): `)

// inBody finds a mirror's sentence where a client has printed only the message of the error body: Podman and CRI-O, whose
// error goes on with what they met at the next host. Only a sentence whose words tell its reason is taken.
func inBody(text string) (o ownText, ok bool) {
	for _, at := range codes.FindAllStringIndex(text, 16) {
		said := text[at[1]:]
		if i := strings.IndexByte(said, ']'); i >= 0 {
			said = said[:i]
		}
		o.summary, o.remedy, _ = strings.Cut(strings.TrimRight(said, "\"' "), "; ")
		if classifyOwn(o.summary) != diagnose.Unknown {
			return o, true
		}
	}
	return ownText{}, false
}

// mostNames bounds how many names of hosts in a sentence are tried with its id.
const mostNames = 8

// named matches what may be the name or address of a host.
var named = regexp.MustCompile(`\[[0-9a-fA-F:]+\](?::\d+)?|[A-Za-z0-9][\w-]*(?:\.[\w-]+)*(?::\d{1,5}\b)?`)

// elsewhere are the hosts of registries that have others than their names say.
var elsewhere = map[string][]string{"docker.io": {"registry-1.docker.io", "auth.docker.io"}}

// byID finds the reason and the host whose fingerprint an id is, for an image that a text names; see Finding.ID. It is
// right whatever the words are, also where these are cut, and finds none where the sentence does not name the host.
func byID(o ownText, text string, names ...string) (r diagnose.Reason, host string, ok bool) {
	hosts := []string{""}
	addHost := func(h string) {
		if h = strings.TrimSuffix(h, ":443"); len(hosts) <= mostNames && !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	var images []string
	addImage := func(image string) {
		if !slices.Contains(images, image) {
			images = append(images, image)
		}
	}
	for _, image := range append(names, requestedFrom(text)) {
		if image == "" {
			continue
		}
		image = canonical(image)
		repo, _ := split(image)
		addImage(image)
		addImage(repo)
		registry, _, _ := strings.Cut(repo, "/")
		addHost(registry)
		for _, h := range elsewhere[registry] {
			addHost(h)
		}
	}
	if len(images) == 0 {
		images = append(images, "")
	}
	for _, said := range []string{o.summary, o.remedy} {
		for _, h := range named.FindAllString(said, 8*mostNames) {
			if strings.ContainsAny(h, ".:") || h == "localhost" {
				addHost(h)
			}
		}
	}
	reasons := slices.Concat([]diagnose.Reason{classifyOwn(o.summary)}, diagnose.Reasons(), []diagnose.Reason{diagnose.PlatformMissing, diagnose.TooSlow})
	for _, r := range reasons {
		for _, h := range hosts {
			for _, image := range images {
				if r != diagnose.Unknown && (diagnose.Finding{Reason: r, Host: h}).ID(image) == o.id {
					return r, h, true
				}
			}
		}
	}
	return diagnose.Unknown, "", false
}

// own tells the reasons of a mirror's sentences by their words, for those without an id and those whose id tells nothing
// since the text names another image or host. Others are unknown here; the id beside the sentence finds the mirror's own
// record.
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
	{diagnose.TLSExpired, regexp.MustCompile(`^certificate of .* (expired on |has expired)`)},
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
	{diagnose.AuthHostNotAllowed, regexp.MustCompile(`wants its tokens (from|over)|sends on to \S+, which wants a login|the address of the token service that`)},
	{diagnose.UnsupportedImage, regexp.MustCompile(`is of Docker's signed schema 1`)},
	{diagnose.RedirectNotAllowed, regexp.MustCompile(`which is not followed`)},
	{diagnose.ManifestTooLarge, regexp.MustCompile(`is larger than 4 MiB`)},
	{diagnose.PlatformMissing, regexp.MustCompile(`^\S+ has .+, and nothing for .+, which `)},
	{diagnose.TokenServiceRefused, regexp.MustCompile(`answered 4\d\d to the token request`)},
	{diagnose.ProxyRefused, regexp.MustCompile(`^proxy \S+ answered \d{3}`)},
	{diagnose.UpstreamBlocked, regexp.MustCompile(`answered \d{3} .*(with a web page|to blob .*, which )|^object store \S+ answered \d{3} `)},
	{diagnose.UpstreamBlocked, regexp.MustCompile(`^\S+ refuses (the |its |blob |.* with [34]\d\d\b)`)},
	{diagnose.UpstreamError, regexp.MustCompile(`^\S+ answered (5\d\d( to |: |$)|\d{3} to .*, which is no answer to that)`)},
	{diagnose.BadRequest, regexp.MustCompile(`^\S+ answered 4\d\d(: |$)|^\S+ does not answer .* as it was asked|^(name|tag|digest|range) ".*" is not `)},
	{diagnose.DigestMismatch, regexp.MustCompile(`has the digest|sent corrupt data|^\S+ sent \d+ bytes for .*, which has \d`)},
	{diagnose.UpstreamError, regexp.MustCompile(`^\S+ sent (more than the mirror reads|a list whose link|the first part of |.* packed \(Content-Encoding|.* with a wrong )`)},
	{diagnose.UpstreamError, regexp.MustCompile(`^\S+ doesn't say how large |^the request to \S+ .*failed: `)},
	{diagnose.NotARegistry, regexp.MustCompile(`^\S+ sent (a web page|status \d{3}|nothing|what no registry sends|[a-z]+/[\w.+-]+)`)},
	{diagnose.UnsupportedImage, regexp.MustCompile(`^the image is wrong: |^(its|the) manifest .*is not valid: |is no image manifest or index`)},
	{diagnose.ConnectionReset, regexp.MustCompile(`broke the connection`)},
	{diagnose.ProxyRefused, regexp.MustCompile(`^proxy \S+ can't be reached`)},
	{diagnose.RateLimited, regexp.MustCompile(`^\S+ limits .*, and the limit is reached`)},
	{diagnose.TLSHandshake, regexp.MustCompile(`doesn't speak TLS`)},
	{diagnose.TLSUntrusted, regexp.MustCompile(`^certificate of .*, issued by .*(is not valid for a server|can't be verified)`)},
	{diagnose.NotFoundOrNoAccess, regexp.MustCompile(`^\S+ doesn't exist, or credential \S+ may not pull it`)},
	{diagnose.TagNotFound, regexp.MustCompile(`^\S+ let the tag \S+ expire|^\S+ has no \S+ among the tags`)},
	{diagnose.DigestNotFound, regexp.MustCompile(`^\S+ has no blob `)},
	{diagnose.Loop, regexp.MustCompile(`^(the mirror's )?own request .*came back`)},
	{diagnose.Unreachable, regexp.MustCompile(`^(the mirror )?has no route to `)},
	{diagnose.RedirectNotAllowed, regexp.MustCompile(`^\S+ leads to \S+, which has the private address `)},
	{diagnose.ClientGone, regexp.MustCompile(`^the client left before `)},
	{diagnose.HTTPNotHTTPS, regexp.MustCompile(`^a client speaks HTTPS to the mirror`)},
	{diagnose.HTTPSNotHTTP, regexp.MustCompile(`^a client speaks plain HTTP to the mirror`)},
	{diagnose.InternalError, regexp.MustCompile(`^(the mirror )?failed(: | at this request)`)},
}

func classifyOwn(summary string) diagnose.Reason {
	for _, o := range own {
		if o.text.MatchString(summary) {
			return o.reason
		}
	}
	return diagnose.Unknown
}
