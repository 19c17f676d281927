package diagnose

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// The reasons, as they are in the table below. CONTRIBUTING.md has the recipe for a new one.
const (
	DNSNotFound        Reason = "dns-not-found"
	DNSFailed          Reason = "dns-failed"
	ConnectRefused     Reason = "connect-refused"
	ConnectTimeout     Reason = "connect-timeout"
	Unreachable        Reason = "unreachable"
	ConnectionReset    Reason = "connection-reset"
	UpstreamTimeout    Reason = "upstream-timeout"
	Stalled            Reason = "stalled"
	ProxyRefused       Reason = "proxy-refused"
	RedirectNotAllowed Reason = "redirect-not-allowed"

	TLSUntrusted Reason = "tls-untrusted"
	TLSWrongHost Reason = "tls-wrong-host"
	TLSExpired   Reason = "tls-expired"
	TLSHandshake Reason = "tls-handshake"
	HTTPNotHTTPS Reason = "http-not-https"
	HTTPSNotHTTP Reason = "https-not-http"
	ClockSkew    Reason = "clock-skew"

	CredentialsMissing     Reason = "credentials-missing"
	CredentialsRejected    Reason = "credentials-rejected"
	CredentialsExpired     Reason = "credentials-expired"
	CredentialSourceFailed Reason = "credential-source-failed"
	UpstreamForbidden      Reason = "upstream-forbidden"
	TokenServiceRefused    Reason = "token-service-refused"
	AuthHostNotAllowed     Reason = "auth-host-not-allowed"

	TagNotFound        Reason = "tag-not-found"
	RepositoryNotFound Reason = "repository-not-found"
	DigestNotFound     Reason = "digest-not-found"
	PlatformMissing    Reason = "platform-missing"

	NotFoundOrNoAccess Reason = "not-found-or-no-access"

	RateLimited  Reason = "rate-limited"
	AbuseLimited Reason = "abuse-limited"
	DataLimited  Reason = "data-limited"

	UpstreamError    Reason = "upstream-error"
	UpstreamBlocked  Reason = "upstream-blocked"
	NotARegistry     Reason = "not-a-registry"
	UnsupportedImage Reason = "unsupported-image"
	ManifestTooLarge Reason = "manifest-too-large"
	DigestMismatch   Reason = "digest-mismatch"

	UnknownUpstream    Reason = "unknown-upstream"
	ClientForbidden    Reason = "client-forbidden"
	LoginRefused       Reason = "login-refused"
	ClientLoginMissing Reason = "client-login-missing"
	ClientLoginRefused Reason = "client-login-refused"
	BlockedByPolicy    Reason = "blocked-by-policy"
	TooNew             Reason = "too-new"
	Overloaded         Reason = "overloaded"
	ClientLimited      Reason = "client-limited"
	QueueTimeout       Reason = "queue-timeout"
	Stopping           Reason = "stopping"
	BadRequest         Reason = "bad-request"
	Loop               Reason = "loop"
	InternalError      Reason = "internal-error"
	NoRoom             Reason = "no-room"
	NotCached          Reason = "not-cached"

	ClientGone Reason = "client-gone"
	TooSlow    Reason = "too-slow"

	NodeDiskFull    Reason = "node-disk-full"
	NameInvalid     Reason = "name-invalid"
	NeverPull       Reason = "never-pull"
	RuntimeDown     Reason = "runtime-down"
	SignaturePolicy Reason = "signature-policy"
	UnpackFailed    Reason = "unpack-failed"
	PullQPS         Reason = "pull-qps"

	// Unknown is for a text that does not say why; never a guess.
	Unknown Reason = "unknown"
)

// The answers that several reasons share. A 502 is never repeated at the same host, so it is the answer where the client
// may do better at another one at once. No reason is answered 401: containerd would send the pod's secret.
var (
	// A client without ns alone is answered so: see package server.
	unauthorized = Answer{Status: http.StatusUnauthorized, Code: errcode.ErrorCodeUnauthorized}
	denied       = Answer{Status: http.StatusForbidden, Code: errcode.ErrorCodeDenied}
	missing      = Answer{Status: http.StatusNotFound, Code: errcode.ErrorCodeManifestUnknown}
	noName       = Answer{Status: http.StatusNotFound, Code: errcode.ErrorCodeNameUnknown}
	unavailable  = Answer{Status: http.StatusBadGateway, Code: errcode.ErrorCodeUnavailable}
	late         = Answer{Status: http.StatusGatewayTimeout, Code: errcode.ErrorCodeUnavailable}
	invalid      = Answer{Status: http.StatusBadRequest, Code: errcode.ErrorCodeUnsupported}
	broken       = Answer{Status: http.StatusInternalServerError, Code: errcode.ErrorCodeUnknown}
	// A mirror's 429 makes containerd send the request again at once, up to six times.
	limited = Answer{Status: http.StatusServiceUnavailable, Code: errcode.ErrorCodeTooManyRequests, RetryAfter: time.Minute}
	// A client that is over its own limit: Podman waits as it is told. containerd sends it again at once, and then waits for its turn
	// again, so it has six times that patience; after a 503 it would go on to the registry.
	crowded = Answer{Status: http.StatusTooManyRequests, Code: errcode.ErrorCodeTooManyRequests, RetryAfter: 5 * time.Second}
	busy    = Answer{Status: http.StatusServiceUnavailable, Code: errcode.ErrorCodeUnavailable, RetryAfter: 5 * time.Second}
)

const (
	askHost  = "curl -v https://{host}/v2/"
	listTags = "crane ls {repository}"
	showCert = "openssl s_client -connect {address} -servername {name} </dev/null"
)

// properties are one row of the table.
type properties struct {
	reason Reason
	class  Class
	origin Origin
	answer Answer // zero where no request is answered: Inferred, InWarmUp, OnNode
	advice Advice // zero where no text of a client shows the reason
}

// reasons is the one table of reasons, in the order of the list in docs/failures: by class, and those that only the client sees
// at the end.
var reasons = []properties{
	{DNSNotFound, ClassNetwork, InRequest, unavailable, Advice{
		"DNS has no host {host}",
		"check the registry's name in the image, and the DNS of the client for private names", "nslookup {name}",
	}},
	{DNSFailed, ClassNetwork, InRequest, unavailable, Advice{
		"DNS did not answer for {host}",
		"check the resolvers in /etc/resolv.conf where the client runs", "nslookup {name}",
	}},
	{ConnectRefused, ClassNetwork, InRequest, unavailable, Advice{
		"{host} refuses the connection: nothing listens there",
		"check that it runs, and that the port is right", askHost,
	}},
	{ConnectTimeout, ClassNetwork, InRequest, unavailable, Advice{
		"{host} does not accept a connection: no answer in time",
		"allow the client to reach it on that port; a firewall drops, or the host is down", askHost,
	}},
	{Unreachable, ClassNetwork, InRequest, unavailable, Advice{
		"the client has no route to {host}",
		"check its routes, gateway and firewall, and whether it tries IPv6 without having any", askHost,
	}},
	{ConnectionReset, ClassNetwork, InRequest, unavailable, Advice{
		"the connection to {host} broke while it was used",
		"pull again; if it stays, look at firewalls and proxies between the client and that host", askHost,
	}},
	{UpstreamTimeout, ClassNetwork, InRequest, late, Advice{
		"{host} took too long to answer",
		"pull again; if it stays, see how the registry and the path to it are", askHost,
	}},
	{Stalled, ClassNetwork, InRequest, late, Advice{}},
	{ProxyRefused, ClassNetwork, InRequest, unavailable, Advice{
		"the proxy between the client and {host} did not let it through",
		"check HTTPS_PROXY and NO_PROXY of the client or its service, the proxy's login, and what it allows",
		"systemctl show --property=Environment containerd docker",
	}},
	{RedirectNotAllowed, ClassNetwork, InRequest, unavailable, Advice{}},

	{TLSUntrusted, ClassTLS, InRequest, unavailable, Advice{
		"the client does not trust the certificate of {host}",
		"give the client the CA that signed it (containerd: ca in hosts.toml; Docker, Podman, CRI-O: certs.d/{registry}/ca.crt; builders and charts: the system's CA store)",
		showCert,
	}},
	{TLSWrongHost, ClassTLS, InRequest, unavailable, Advice{
		"the certificate of {host} is for another name",
		"pull by the name that it is for, or issue one with this name among its subject alternative names", showCert,
	}},
	{TLSExpired, ClassTLS, InRequest, unavailable, Advice{
		"the certificate of {host} has expired",
		"renew it there; if it has not expired, the client's clock is ahead", showCert,
	}},
	{TLSHandshake, ClassTLS, InRequest, unavailable, Advice{
		"the TLS handshake with {host} failed",
		"check which TLS versions both sides speak, whether {host} wants a client certificate, and whether there is a proxy between them",
		showCert,
	}},
	{HTTPNotHTTPS, ClassTLS, InRequest, unavailable, Advice{
		"the client speaks https, and {host} answers plain http",
		"write http:// for this host in the client's registry configuration (Docker: insecure-registries), or serve TLS there",
		"curl -v http://{host}/v2/",
	}},
	{HTTPSNotHTTP, ClassTLS, InRequest, unavailable, Advice{
		"the client speaks plain http, and {host} answers TLS",
		"write https:// for this host in the client's registry configuration", askHost,
	}},
	{ClockSkew, ClassTLS, InRequest, unavailable, Advice{
		"by the client's clock the certificate of {host} is not valid yet",
		"set the clock", "timedatectl",
	}},

	{CredentialsMissing, ClassAuth, InRequest, denied, Advice{
		"{host} wants a login, and got none that it takes", "", "",
	}},
	{CredentialsRejected, ClassAuth, InRequest, denied, Advice{
		"{host} says that the login is wrong",
		"correct the login; the password or token may have been changed", "",
	}},
	{CredentialsExpired, ClassAuth, InRequest, denied, Advice{
		"the login for {host} has expired",
		"renew it", "",
	}},
	{CredentialSourceFailed, ClassAuth, InRequest, denied, Advice{
		"the program that fetches the login for {host} failed",
		"install it where the kubelet or client looks for it, make it executable, and run it by hand to see what it says", "",
	}},
	{UpstreamForbidden, ClassAuth, InRequest, denied, Advice{
		"this client may not pull {image}",
		"give the user, role or identity that pulls the right to read this repository", "",
	}},
	{TokenServiceRefused, ClassAuth, InRequest, denied, Advice{
		"the token service of {host} refused the request",
		"check the login, and the name of the repository", askHost,
	}},
	{AuthHostNotAllowed, ClassAuth, InRequest, unavailable, Advice{}},

	{TagNotFound, ClassMissing, InRequest, missing, Advice{
		"the registry has no {such}",
		"check name and tag, or push it", listTags,
	}},
	{RepositoryNotFound, ClassMissing, InRequest, noName, Advice{
		"{host} has no such repository",
		"check the image's name", listTags,
	}},
	{DigestNotFound, ClassMissing, InRequest, missing, Advice{
		"{host} does not have that digest",
		"use a tag or digest that is there; it may have been removed", listTags,
	}},
	{PlatformMissing, ClassMissing, Inferred, Answer{}, Advice{
		"{image} has nothing for the platform of the client",
		"build it for that platform, or run it on a node of a platform that it has", "crane manifest {image}",
	}},

	{NotFoundOrNoAccess, ClassUndecided, InRequest, denied, Advice{
		"{image} does not exist, or is private; {host} does not say which",
		"check name and tag", "",
	}},

	{RateLimited, ClassLimit, InRequest, limited, Advice{
		"the limit on pulls of {host} is used up",
		"pull with a login, or through a mirror; the limit resets by itself", "",
	}},
	{AbuseLimited, ClassLimit, InRequest, limited, Advice{
		"{host} gets too many requests from this address",
		"spread the pulls, or send them through a mirror", "",
	}},
	{DataLimited, ClassLimit, InRequest, limited, Advice{
		"the limit on anonymous downloads of {host} is used up",
		"pull with a login, or through a mirror", "",
	}},

	{UpstreamError, ClassUpstream, InRequest, unavailable, Advice{
		"{host} failed",
		"pull again; if it stays, see its status page or its log", askHost,
	}},
	{UpstreamBlocked, ClassUpstream, InRequest, denied, Advice{
		"{host} refuses to serve {image}: by its policy, its firewall, or where the client is",
		"see the policy and the network rules of that registry or project", "",
	}},
	{NotARegistry, ClassUpstream, InRequest, unavailable, Advice{
		"the server that answered for {host} is not a registry",
		"check the host in the image's name, and for a proxy or login page before it", askHost,
	}},
	{UnsupportedImage, ClassUpstream, InRequest, unavailable, Advice{
		"{image} has a format that this client does not read",
		"update the client, or push the image again with a current tool, or use a newer tag", "crane manifest {image}",
	}},
	{ManifestTooLarge, ClassUpstream, InRequest, unavailable, Advice{}},
	{DigestMismatch, ClassUpstream, InRequest, unavailable, Advice{
		"the received content of {image} does not match its digest",
		"pull again; if it stays, a proxy or mirror on the way alters or cuts content", "crane validate --remote {image}",
	}},

	{UnknownUpstream, ClassMirror, InRequest, noName, Advice{}},
	{ClientForbidden, ClassMirror, InRequest, denied, Advice{
		"no rule of the mirror lets clients pull it",
		"add it to rules in the mirror's configuration, or pull it from the registry itself", "",
	}},
	{LoginRefused, ClassMirror, InRequest, unauthorized, Advice{
		"the mirror does not accept the login that the client has sent",
		"check the user and the password or token for the mirror: the pull secret, docker login, or header in hosts.toml", "",
	}},
	{ClientLoginMissing, ClassAuth, InRequest, unauthorized, Advice{
		"the registry shows the image to no client without a login, and the client has sent the mirror none",
		"give the pod a pull secret of the registry, or log in; the mirror has to be reached over TLS, or on the same machine", "",
	}},
	{ClientLoginRefused, ClassAuth, InRequest, denied, Advice{
		"the registry does not let the client's login pull the image, or has no such image",
		"check the image's name, then the pull secret and what it may pull", "",
	}},
	{BlockedByPolicy, ClassMirror, InRequest, denied, Advice{
		"the mirror's configuration lets no client pull it: its name must not be asked for at the registry",
		"correct the image's name; if it is right, see deny and only of the upstream in the mirror's configuration", "",
	}},
	{TooNew, ClassMirror, InRequest, denied, Advice{
		"the mirror holds the tag back, since its digest is new",
		"pull it when it is old enough, or pull it by digest; the tag can be pinned at the mirror", "",
	}},
	{Overloaded, ClassMirror, InRequest, busy, Advice{}},
	{ClientLimited, ClassMirror, InRequest, crowded, Advice{}},
	{QueueTimeout, ClassMirror, InRequest, late, Advice{}},
	{Stopping, ClassMirror, InRequest, busy, Advice{}},
	{BadRequest, ClassMirror, InRequest, invalid, Advice{}},
	{Loop, ClassMirror, InRequest, unavailable, Advice{}},
	{InternalError, ClassMirror, InRequest, broken, Advice{}},
	{NoRoom, ClassMirror, InWarmUp, Answer{}, Advice{}},
	{NotCached, ClassMirror, InWarmUp, Answer{}, Advice{}},

	{ClientGone, ClassClient, InRequest, late, Advice{
		"the client ended the pull before it was complete",
		"see whether the pod was removed or the runtime restarted; if not, the pull was too slow for its progress timeout", "",
	}},
	{TooSlow, ClassClient, Inferred, Answer{}, Advice{}},

	{NodeDiskFull, ClassClient, OnNode, Answer{}, Advice{
		"the disk is full where images are kept",
		"free space there (docker system prune, crictl rmi --prune), or lower the kubelet's image garbage collection thresholds", "df -h; df -i",
	}},
	{NameInvalid, ClassClient, OnNode, Answer{}, Advice{
		"{image} is not the name of an image",
		"correct it: lower case, no scheme, no empty parts, no unreplaced variables, with a registry where short names are not allowed", "",
	}},
	{NeverPull, ClassClient, OnNode, Answer{}, Advice{
		"the image is not on the node, and imagePullPolicy Never forbids to pull it",
		"load it on the node, or set imagePullPolicy to IfNotPresent", "ctr -n k8s.io images import FILE",
	}},
	{RuntimeDown, ClassClient, OnNode, Answer{}, Advice{
		"the container runtime does not answer on its socket, so nothing was pulled",
		"start it, check that the client uses its socket and may open it, and read its log",
		"systemctl status containerd crio docker; journalctl -u containerd -n 50",
	}},
	{SignaturePolicy, ClassClient, OnNode, Answer{}, Advice{
		"the signature policy of the node rejects {image}",
		"sign the image with a key that the policy accepts, or correct the policy and its key files", "cat /etc/containers/policy.json",
	}},
	{UnpackFailed, ClassClient, OnNode, Answer{}, Advice{
		"the node got {image} and could not unpack it",
		"remove the image and what is left of its layers and pull again; if it stays, check the disk and file system, and for rootless runtimes /etc/subuid and /etc/subgid",
		"crictl rmi {image}; dmesg | tail",
	}},
	{PullQPS, ClassClient, OnNode, Answer{}, Advice{
		"the kubelet starts more pulls a second than its registryPullQPS allows",
		"nothing has to be done, since it tries again; to avoid it, raise registryPullQPS and registryBurst in the kubelet's configuration",
		"kubectl get --raw /api/v1/nodes/NODE/proxy/configz",
	}},
	{Unknown, ClassUnknown, OnNode, Answer{}, Advice{
		"the text does not say why",
		"look at the runtime's log there, or ask the registry step by step", "mirror doctor image {image}",
	}},
}

// Reason is a cause with a page of its own: kebab-case, stable. The table of reasons, in reasons.go, has all that is constant
// for one.
type Reason string

// Origin is how a reason comes to light.
type Origin int

// The origins.
const (
	InRequest Origin = iota // the error of a request: Explain or the front end gives the reason
	Inferred                // requests that did not come: the journal gives the reason
	InWarmUp                // a pull ahead of time: package warm gives the reason
	OnNode                  // the text of a client: mirror explain alone gives the reason
)

// Answer is the answer that a client gets for a reason of a request.
type Answer struct {
	Status int
	// Code is one that every client knows: containerd prints others as "unknown".
	Code errcode.ErrorCode
	// RetryAfter is sent where the upstream did not ask for another time. Zero: the header is not sent.
	RetryAfter time.Duration
}

// Advice is the meaning of a reason and the remedy where only the text of a client is known, as for mirror explain. The
// placeholders {host}, {registry}, {image}, {repository}, {such}, {address}, {name} and {provider} are filled in by the reader.
type Advice struct {
	Summary string
	Remedy  string
	Command string // that shows the cause or mends it; empty: none does
}

// byReason is the table by reason.
var byReason = func() map[Reason]properties {
	rows := make(map[Reason]properties, len(reasons))
	for _, p := range reasons {
		rows[p.reason] = p
	}
	return rows
}()

// row is the row of a reason, that of Unknown for a reason that is not in the table.
func (r Reason) row() properties {
	if p, ok := byReason[r]; ok {
		return p
	}
	return byReason[Unknown]
}

// Class returns the class that the reason belongs to.
func (r Reason) Class() Class { return r.row().class }

// Origin returns how the reason comes to light.
func (r Reason) Origin() Origin { return r.row().origin }

// Answer returns the answer that a client gets for the reason, that of InternalError for a reason that no request has.
func (r Reason) Answer() Answer { return cmp.Or(r.row().answer, broken) }

// Advice returns the sentence about the reason where only the text of a client is known.
func (r Reason) Advice() Advice { return r.row().advice }

// Page returns where the page about the reason is, below the root of the repository and of the listeners.
func (r Reason) Page() string { return "docs/failures/" + string(r) + ".md" }

// Reasons returns every reason, in the order of the table.
func Reasons() []Reason {
	all := make([]Reason, len(reasons))
	for i, p := range reasons {
		all[i] = p.reason
	}
	return all
}

// Classes returns every class that a reason has, sorted.
func Classes() []Class {
	all := make([]Class, len(reasons))
	for i, p := range reasons {
		all[i] = p.class
	}
	slices.Sort(all)
	return slices.Compact(all)
}
