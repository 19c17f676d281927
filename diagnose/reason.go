package diagnose

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
)

// The reasons that can arise in a running mirror.
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

	UnknownUpstream Reason = "unknown-upstream"
	ClientForbidden Reason = "client-forbidden"
	Overloaded      Reason = "overloaded"
	QueueTimeout    Reason = "queue-timeout"
	Stopping        Reason = "stopping"
	BadRequest      Reason = "bad-request"
	Loop            Reason = "loop"
	InternalError   Reason = "internal-error"

	ClientGone Reason = "client-gone"
)

// The reasons that no error in the mirror stands for: what it concludes from what did not happen, and what only the
// node sees.
const (
	PlatformMissing Reason = "platform-missing"
	TooSlow         Reason = "too-slow"

	NodeDiskFull Reason = "node-disk-full"
	NameInvalid  Reason = "name-invalid"
	NeverPull    Reason = "never-pull"

	RuntimeDown     Reason = "runtime-down"
	SignaturePolicy Reason = "signature-policy"
	UnpackFailed    Reason = "unpack-failed"
	PullQPS         Reason = "pull-qps"

	// Unknown is for text that can't be told; never a guess.
	Unknown Reason = "unknown"
)

var seen = map[Reason]Class{
	PlatformMissing: ClassMissing,
	TooSlow:         ClassClient,
	NodeDiskFull:    ClassClient,
	NameInvalid:     ClassClient,
	NeverPull:       ClassClient,
	RuntimeDown:     ClassClient,
	SignaturePolicy: ClassClient,
	UnpackFailed:    ClassClient,
	PullQPS:         ClassClient,
	Unknown:         ClassUnknown,
}

var classes = map[Reason]Class{
	DNSNotFound:        ClassNetwork,
	DNSFailed:          ClassNetwork,
	ConnectRefused:     ClassNetwork,
	ConnectTimeout:     ClassNetwork,
	Unreachable:        ClassNetwork,
	ConnectionReset:    ClassNetwork,
	UpstreamTimeout:    ClassNetwork,
	Stalled:            ClassNetwork,
	ProxyRefused:       ClassNetwork,
	RedirectNotAllowed: ClassNetwork,

	TLSUntrusted: ClassTLS,
	TLSWrongHost: ClassTLS,
	TLSExpired:   ClassTLS,
	TLSHandshake: ClassTLS,
	HTTPNotHTTPS: ClassTLS,
	HTTPSNotHTTP: ClassTLS,
	ClockSkew:    ClassTLS,

	CredentialsMissing:     ClassAuth,
	CredentialsRejected:    ClassAuth,
	CredentialsExpired:     ClassAuth,
	CredentialSourceFailed: ClassAuth,
	UpstreamForbidden:      ClassAuth,
	TokenServiceRefused:    ClassAuth,
	AuthHostNotAllowed:     ClassAuth,

	TagNotFound:        ClassMissing,
	RepositoryNotFound: ClassMissing,
	DigestNotFound:     ClassMissing,

	NotFoundOrNoAccess: ClassUndecided,

	RateLimited:  ClassLimit,
	AbuseLimited: ClassLimit,
	DataLimited:  ClassLimit,

	UpstreamError:    ClassUpstream,
	UpstreamBlocked:  ClassUpstream,
	NotARegistry:     ClassUpstream,
	UnsupportedImage: ClassUpstream,
	ManifestTooLarge: ClassUpstream,
	DigestMismatch:   ClassUpstream,

	UnknownUpstream: ClassMirror,
	ClientForbidden: ClassMirror,
	Overloaded:      ClassMirror,
	QueueTimeout:    ClassMirror,
	Stopping:        ClassMirror,
	BadRequest:      ClassMirror,
	Loop:            ClassMirror,
	InternalError:   ClassMirror,

	ClientGone: ClassClient,
}

// Class returns the class that the reason belongs to, ClassUnknown for a reason that is not in the list.
func (r Reason) Class() Class {
	if c, ok := classes[r]; ok {
		return c
	}
	if c, ok := seen[r]; ok {
		return c
	}
	return ClassUnknown
}

// Seen returns the reasons that Explain never gives, sorted: those that are concluded, and those of the node.
func Seen() []Reason { return slices.Sorted(maps.Keys(seen)) }

// Reasons returns every reason that Explain and the front end can give, sorted.
func Reasons() []Reason { return slices.Sorted(maps.Keys(classes)) }

// Classes returns every class that a reason has, sorted.
func Classes() []Class {
	all := map[Class]bool{ClassUnknown: true}
	for _, of := range []map[Reason]Class{classes, seen} {
		for _, c := range of {
			all[c] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// ID is a fingerprint of what failed for whom: 8 hex digits over the reason, the image and the host at which it broke.
// It is the same after a restart and on another machine, so that it can be quoted. image is canonical
// ("docker.io/library/nginx:1.27"), empty where none is known.
func (f Finding) ID(image string) string {
	sum := sha256.Sum256([]byte(string(f.Reason) + "\x00" + image + "\x00" + f.Host))
	return hex.EncodeToString(sum[:4])
}

// Error is an error whose finding is known where it arises. Explain returns that finding.
type Error struct {
	Finding Finding
	Err     error // the cause, may be nil
}

// New makes an Error of a reason. summary and remedy are cleaned as every text of a Finding is.
func New(r Reason, summary, remedy string) *Error {
	return &Error{Finding: Finding{Reason: r, Class: r.Class(), Summary: Clean(summary), Remedy: Clean(remedy)}}
}

func (e *Error) Error() string { return string(e.Finding.Reason) + ": " + e.Finding.Summary }

func (e *Error) Unwrap() error { return e.Err }
