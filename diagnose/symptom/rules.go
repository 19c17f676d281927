package symptom

import (
	"regexp"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
)

// rule is a text that tells a reason from all others.
type rule struct {
	reason diagnose.Reason
	text   phrases
}

func of(r diagnose.Reason, alternatives ...string) rule {
	return rule{r, phrasesOf(alternatives...)}
}

// rules are asked in order, the most specific fact first: what the node itself met, what is wrong with the image, what
// a server said, what the network did, what a status alone says. The text is in lower case.
var rules = []rule{
	of(diagnose.NodeDiskFull, `no space left on device`, `disk quota exceeded`, `not enough space on the disk`),
	of(diagnose.NameInvalid, `couldn't parse image (reference|name)`, `invalid reference format`,
		`repository name \(?\S* ?must be lowercase`, `invalidimagename`, `short.name\S* .*(did not resolve|ambiguous)`),
	of(diagnose.NeverPull, `errimageneverpull`, `not present with pull policy of never`),
	of(diagnose.ClientForbidden, `has no rule that lets clients pull`), // in the words of a mirror's body
	// The node's own store has lost something. No reason of ours says so.
	of(diagnose.Unknown, `from content store: content digest`),
	of(diagnose.UnsupportedImage, `schema ?1`, `manifest\.v1\+prettyjws`, `docker image format v1\b`,
		`unsupported mediatype`, `unsupported manifest media type`),
	of(diagnose.PlatformMissing, `no match for (current )?platform`, `no matching manifest for`,
		`no image found in (manifest list|image index) for`, `no child with platform`,
		`image operating system .* cannot be used on this platform`),
	of(diagnose.DigestMismatch, `unexpected commit digest`, `failed size validation`, `unexpected commit size`,
		`layer verification failed`, `digest did not match`, `manifest verification failed for digest`,
		`error verifying sha256 checksum`, `wrong diff id`, `does not match digest`),

	of(diagnose.AbuseLimited, `hap429`, `abuse rate limit`),
	of(diagnose.DataLimited, `data limit exceeded`),
	of(diagnose.RateLimited, `toomanyrequests`, `too many requests`, `pull rate limit`, `rate exceeded`,
		`status code from registry 429`),

	of(diagnose.ClockSkew, `certificate has expired or is not yet valid: current time \S+ is before`),
	of(diagnose.TLSExpired, `certificate has expired`),
	of(diagnose.TLSWrongHost, `x509: certificate is (not )?valid for`, `x509: cannot validate certificate for`,
		`certificate relies on legacy common name`, `x509: certificate is not valid for any names`),
	of(diagnose.TLSUntrusted, `certificate signed by unknown authority`, `certificate is not trusted`,
		`certificate is not standards compliant`),
	of(diagnose.HTTPNotHTTPS, `server gave http response to https client`,
		`first record does not look like a tls handshake`),
	of(diagnose.HTTPSNotHTTP, `malformed http response "\\*x15\\*x03`, `http request to an https server`),
	of(diagnose.ProxyRefused, `proxyconnect tcp`, `proxy authentication required`),
	of(diagnose.DNSFailed, `server misbehaving`, `temporary failure in name resolution`,
		`lookup [^ ]+( on [^ ]+)?: (read udp .*)?(i/o timeout|connection refused)`, `lookup .* read udp .*`),
	of(diagnose.DNSNotFound, `no such host`, `name or service not known`),
	of(diagnose.TLSHandshake, `tls handshake timeout`, `remote error: tls`, `tls: handshake failure`, `tls: protocol version not supported`),
	of(diagnose.ConnectTimeout, `request canceled while waiting for connection`,
		`dial tcp [^ ]+ i/o timeout`, `dial tcp [^ ]+ connect: (connection|operation) timed out`),
	of(diagnose.Unreachable, `no route to host`, `network is unreachable`),
	of(diagnose.ConnectRefused, `connect: connection refused`, `actively refused it`),
	of(diagnose.ConnectionReset, `connection reset by peer`, `broken pipe`, `unexpected eof`, `": eof\b`,
		`use of closed network connection`, `http2: server sent goaway`),
	of(diagnose.UpstreamTimeout, `read: connection timed out`, `timeout exceeded while awaiting headers`,
		`timeout awaiting response headers`, `context deadline exceeded`, `read tcp .* i/o timeout`,
		`504 gateway time-?out`, `status code from registry 504`),

	of(diagnose.CredentialsExpired, `authorization token has expired`, `\bexpiredtoken`, `token (is|has) expired`),
	of(diagnose.CredentialsMissing, `no basic auth credentials`),
	of(diagnose.CredentialsRejected, `incorrect username or password`, `invalid username/password`,
		`failed to fetch oauth token: .*40[13] `, `bad credentials`, `unauthorized: authentication failed`,
		`the access token is invalid`),
	of(diagnose.UpstreamForbidden, `is not authorized to perform`),
	of(diagnose.UpstreamBlocked, `451 unavailable for legal`, `embargoed country`),
	of(diagnose.NotFoundOrNoAccess, `pull access denied`, `repository does not exist or may require`,
		`requested access to the resource is denied`, `\(or it may not exist\)`, `insufficient_scope`,
		`failed to fetch anonymous token: .*40[13] `, `requesting bear(er)? token: invalid status code from registry 40[13]`,
		`access to the requested resource is not authorized`, `\bdenied: denied\b`,
		`unable to access the repository: .*verify that it exists`),
	of(diagnose.TokenServiceRefused, `failed to fetch (oauth|anonymous) token: .*4\d\d `),

	of(diagnose.DigestNotFound, `blob[ _]unknown`, `@sha256:[0-9a-f]+"?: not found`,
		`manifest for \S+@sha256:[0-9a-f]+ not found`),
	of(diagnose.RepositoryNotFound, `name[ _]unknown`, `repository name not known to registry`,
		`the repository with name .* does not exist`, `repository \S+ not found`, `repo(sitory)? not found`),
	of(diagnose.TagNotFound, `manifest[ _]unknown`, `manifest for \S+ not found`, `tag \S+ (was )?not found`,
		`failed to resolve (reference|image).*: not found`, `failed to resolve (reference|image).* 404 not found`,
		`manifests/\S+ 404 not found`, `image \S+ not found`),

	of(diagnose.NotARegistry, `invalid character '<' looking for beginning of value`,
		`pinging (container|docker) registry .*404`),
	of(diagnose.UpstreamError, `5\d\d (internal server error|bad gateway|service unavailable)`,
		`unexpected http status: 5\d\d`, `status code from registry 5\d\d`, `registryunavailable`),
	of(diagnose.CredentialsMissing, `unauthorized: authentication required`, `401 unauthorized`,
		`authentication required`, `invalid status code from registry 401`),
	of(diagnose.UpstreamForbidden, `403 forbidden`, `invalid status code from registry 403`),
	of(diagnose.ClientGone, `context canceled`, `code = canceled`),
}

// hides are registries that answer 401 for what does not exist as they do for what is private.
var hides = regexp.MustCompile(`\b(docker\.io|quay\.io|ghcr\.io|gcr\.io|pkg\.dev)\b`)

// classify says what a text tells.
func classify(text string) diagnose.Reason {
	text = strings.ToLower(text)
	for _, r := range rules {
		if !r.text.in(text) {
			continue
		}
		if r.reason == diagnose.CredentialsMissing && hides.MatchString(text) &&
			!strings.Contains(text, "no basic auth credentials") {
			return diagnose.NotFoundOrNoAccess
		}
		return r.reason
	}
	return diagnose.Unknown
}

// advice is what a reason means and what to do, where nothing is known but the text.
type advice struct{ summary, remedy string }

var advices = map[diagnose.Reason]advice{
	diagnose.NodeDiskFull:        {"the node's disk is full", "free space where the runtime keeps images (df -h, df -i; crictl rmi --prune), or lower the kubelet's image garbage collection thresholds"},
	diagnose.NameInvalid:         {"the image's name is none", "correct it: lower case, no scheme, no empty parts, no unreplaced variables, with a registry where short names are not allowed"},
	diagnose.NeverPull:           {"the image is not on the node, and imagePullPolicy Never forbids to pull it", "load it on the node, or set imagePullPolicy to IfNotPresent"},
	diagnose.UnsupportedImage:    {"the image has a format that the runtime no longer reads", "push it again with a current tool (docker pull on an old machine, docker push), or use a newer tag"},
	diagnose.PlatformMissing:     {"the image has nothing for the node's platform", "crane manifest IMAGE lists what there is; build it for the node's platform, or put the pod on a node of another one"},
	diagnose.DigestMismatch:      {"what the node got is not what the digest says", "pull again; if it stays, a proxy or mirror on the way alters or cuts content"},
	diagnose.RateLimited:         {"the registry's limit on pulls is used up", "pull with a login, or through a mirror; the limit resets by itself"},
	diagnose.AbuseLimited:        {"the registry gets too many requests from this address", "spread the pulls, or send them through a mirror"},
	diagnose.DataLimited:         {"the registry's limit on anonymous downloads is used up", "pull with a login, or through a mirror"},
	diagnose.ClockSkew:           {"by the node's clock the registry's certificate is not valid yet", "set the node's clock (timedatectl, chronyc)"},
	diagnose.TLSExpired:          {"the registry's certificate has expired", "renew it at the registry; if it has not expired the node's clock is ahead"},
	diagnose.TLSWrongHost:        {"the registry's certificate is for another name", "pull by the name that it is for, or issue one with this name in it"},
	diagnose.TLSUntrusted:        {"the node does not trust who signed the registry's certificate", "give the runtime the CA (containerd: ca in hosts.toml; Docker, CRI-O: certs.d/HOST/ca.crt)"},
	diagnose.HTTPNotHTTPS:        {"the node speaks https, and plain http answers", "write http:// for this host in the runtime's registry configuration, or serve TLS there"},
	diagnose.HTTPSNotHTTP:        {"the node speaks plain http, and TLS answers", "write https:// for this host in the runtime's registry configuration"},
	diagnose.TLSHandshake:        {"TLS did not come about, or not in time", "see which TLS versions both sides speak, and whether a proxy stands between"},
	diagnose.ProxyRefused:        {"the proxy of the runtime's environment did not let it through", "check HTTPS_PROXY and NO_PROXY of the runtime's service, and what the proxy allows"},
	diagnose.DNSFailed:           {"the node's DNS server did not answer", "check the resolvers in /etc/resolv.conf of the node"},
	diagnose.DNSNotFound:         {"there is no such host, says DNS", "check the registry's name in the image, and the node's DNS for private names"},
	diagnose.ConnectTimeout:      {"the registry's address does not answer the node", "allow the node to reach it on that port; a firewall drops, or the host is down"},
	diagnose.Unreachable:         {"the node has no route to the registry", "check the node's routes and gateway"},
	diagnose.ConnectRefused:      {"nothing listens at the registry's address", "see that it runs, and that the port is right"},
	diagnose.ConnectionReset:     {"the connection broke while it was used", "pull again; if it stays, look at firewalls and proxies between the node and that host"},
	diagnose.UpstreamTimeout:     {"the registry took too long to answer", "pull again; if it stays, see how the registry and the path to it are"},
	diagnose.CredentialsExpired:  {"the credential's time is over", "renew it: log in again, or update the imagePullSecret"},
	diagnose.CredentialsMissing:  {"the registry wants a login, and the node sent none that it takes", "give the pod an imagePullSecret for this registry, in its own namespace"},
	diagnose.CredentialsRejected: {"the registry says that the login is wrong", "correct the imagePullSecret; the password may have been changed"},
	diagnose.UpstreamForbidden:   {"the registry refuses whoever asked", "give that user or role the right to pull; without a login, add one"},
	diagnose.UpstreamBlocked:     {"the registry does not serve where the node is", "pull from a mirror elsewhere"},
	diagnose.NotFoundOrNoAccess:  {"the image does not exist, or is private; the registry does not say which", "check name and tag; if they are right, check the imagePullSecret in the pod's namespace"},
	diagnose.TokenServiceRefused: {"the registry's token service refused the request", "check the login, and the name of the repository"},
	diagnose.DigestNotFound:      {"the registry does not have that digest", "use a tag or digest that is there; it may have been removed"},
	diagnose.RepositoryNotFound:  {"the registry has no such repository", "check the image's name"},
	diagnose.TagNotFound:         {"the registry has no such tag", "check the tag; crane ls REPOSITORY lists those there are"},
	diagnose.NotARegistry:        {"what answered is no registry", "check the host in the image's name, and for a proxy or login page before it"},
	diagnose.UpstreamError:       {"the registry failed", "pull again; if it stays, see its status page or its log"},
	diagnose.ClientForbidden:     {"no rule of the mirror lets clients pull it", "add it to rules in the mirror's configuration, or pull it from the registry itself"},
	diagnose.ClientGone:          {"the node gave the pull up before it was done", "see whether the pod was removed or the runtime restarted; if not, the pull was too slow for its progress timeout"},
	diagnose.Unknown:             {"the text does not say why", "look at the runtime's log on that node, or at mirror failures"},
}
