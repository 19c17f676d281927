package fault

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/upstream/limit"
)

// StepName is a stage of a pull.
type StepName string

// The steps, in the order in which they happen. A failure names the one that broke; doctor shows them all.
const (
	StepDNS          StepName = "dns"
	StepDial         StepName = "dial"
	StepProxy        StepName = "proxy"
	StepTLS          StepName = "tls"
	StepPing         StepName = "ping"
	StepToken        StepName = "token"
	StepManifest     StepName = "manifest"
	StepBlobRegistry StepName = "blob-registry" // the registry's answer to a blob request, before any redirect
	StepBlobHost     StepName = "blob-host"     // the host that a redirect led to
	StepBody         StepName = "body"          // bytes of a body that had begun
	StepList         StepName = "list"          // tags or referrers
	StepQueue        StepName = "queue"         // our own: no request was made
)

// Step is one part of an operation that was tried.
type Step struct {
	Name     StepName
	For      StepName // the purpose of a connection that could not be made; else empty
	Endpoint string   // as Registry.State names it
	Host     string   // host[:port] of the request
	Addr     string   // IP address and port; empty: none was reached
	Status   int      // HTTP status; 0: there was no answer
	Took     time.Duration
	Err      error // nil: it worked
}

// Error is why an upstream did not give the content that it was asked for: facts, not sentences. The last element of Steps is
// the one that broke. It wraps the cause, so that errors.Is and errors.AsType reach *net.DNSError, x509 errors and errno.
type Error struct {
	Op         string // the operation: "resolve", "manifest", "blob", "tags", "referrers"
	Upstream   string // canonical name
	Repository string
	Reference  string        // tag or digest
	Status     int           // HTTP status of the answer that decided; 0: there was no answer
	Code       string        // errors[0].code of its body; empty: it has none
	Message    string        // of its body, redacted, at most 300 bytes
	Challenge  string        // WWW-Authenticate of that answer
	BodyKind   BodyKind      // the shape of that body
	RetryAfter time.Duration // 0: not said
	// MirrorReason is the reason in the Mirror-Reason header of that answer: it came from a mirror, perhaps from this one.
	MirrorReason string
	Credential   auth.Status   // zero: anonymous
	PublicOnly   bool          // no credential of ours is shown for the repository, which may be private: see Options.Public
	Open         bool          // the registry had shown a manifest of the repository without a login: a refusal is not about private content
	Budget       *limit.Budget // of the credential that met a limit, as last said; nil: not said, or no limit was met
	Steps        []Step
	Probe        *Probe // a further question; nil: none was asked, or it was not answered
	Err          error  // the cause; may be nil where Status is the cause
}

// BodyKind is the shape of an error body.
type BodyKind string

// The shapes of error bodies that registries, their token services and the proxies in front of them send.
const (
	BodyNone    BodyKind = ""
	BodyErrors  BodyKind = "errors"  // {"errors":[{"code","message","detail"}]}
	BodyDetails BodyKind = "details" // {"details":"..."}: auth.docker.io
	BodyMessage BodyKind = "message" // {"message":"..."}
	BodyText    BodyKind = "text"
	BodyHTML    BodyKind = "html"
	BodyXML     BodyKind = "xml" // object stores: <Error><Code>AccessDenied</Code>
)

// Verdict is what a further question has shown about content that was refused or not found.
type Verdict string

// The verdicts.
const (
	// VerdictRepositoryMissing is a registry that answers a request for the list of tags with: there is no such repository.
	VerdictRepositoryMissing Verdict = "repository-missing"
	// VerdictTagMissing is a list of tags that can be read and that lacks the tag, or is of a repository which has no
	// manifest for it.
	VerdictTagMissing Verdict = "tag-missing"
	// VerdictLoginNeeded is a token service that gives no token without a login, not even one that opens nothing.
	VerdictLoginNeeded Verdict = "login-needed"
	// VerdictUnknown is a registry whose answer does not decide it.
	VerdictUnknown Verdict = "unknown"
)

// Probe is a further question and its result.
type Probe struct {
	Verdict Verdict
	Step    Step // the question
}

// Step returns the step that broke, or a zero Step.
func (e *Error) Step() Step {
	if len(e.Steps) == 0 {
		return Step{}
	}
	return e.Steps[len(e.Steps)-1]
}

func (e *Error) Error() string {
	step, text := e.Step(), fmt.Sprintf("%s %s/%s", e.Op, e.Upstream, e.Repository)
	if e.Reference != "" {
		text += "@" + e.Reference
	}
	if step.Name != "" {
		text += ": " + strings.TrimSpace(string(step.Name)+" "+step.Host)
	}
	if e.Status != 0 {
		text += fmt.Sprintf(": status %d", e.Status)
	}
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Message != "" {
		text += fmt.Sprintf(" %q", e.Message)
	}
	switch {
	case e.Err != nil:
		text += ": " + e.Err.Error()
	case errors.Is(step.Err, ErrNotAsked):
		text += ": " + step.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// The causes that this package itself detects, as types for diagnosis.

// RealmError says that a challenge named a token service that is neither the registry's own host nor one of the
// upstream's authHosts. No request was sent to it.
type RealmError struct {
	Host, Scheme string
	// Malformed is the address as the challenge has it, without parts that may be secret, if it has no host, a scheme other
	// than http and https, or a user. Empty: it is well formed.
	Malformed string
	Plain     bool // the host may be asked, but not over http where the registry is asked over https
}

func (e *RealmError) Error() string {
	if e.Malformed != "" {
		return fmt.Sprintf("the address of the token service is malformed: %s", e.Malformed)
	}
	if e.Plain {
		return fmt.Sprintf("token service %s://%s is not asked over http, since the registry is asked over https", e.Scheme, e.Host)
	}
	return fmt.Sprintf("token service %s://%s is not in authHosts", e.Scheme, e.Host)
}

// RedirectError says that a redirect was not followed.
type RedirectError struct {
	Host  string
	Why   string // "to http from https", "to a private address", "more than 5 redirects", "no Location"
	Final bool   // no entry in redirectHosts would change that
}

func (e *RedirectError) Error() string {
	return fmt.Sprintf("redirect to %s not followed: %s", e.Host, e.Why)
}

// AwayError says that the endpoint redirects to another registry, which asks for a token of its own, and that the operator
// has not named both that registry (redirectHosts) and its token service (authHosts).
type AwayError struct {
	From, To string // host[:port]
	Realm    string // host[:port] of the token service; empty: it asks for a password
}

func (e *AwayError) Error() string {
	return fmt.Sprintf("%s redirects to %s, which wants a login of its own", e.From, e.To)
}

// AddressError says that a host which the operator did not name resolved to an address that is not public.
type AddressError struct{ Host, Addr string }

func (e *AddressError) Error() string {
	return fmt.Sprintf("%s resolves to %s, which is not a public address", e.Host, e.Addr)
}

// ProxyError says that the proxy of HTTPS_PROXY refused a CONNECT.
type ProxyError struct {
	Proxy  string
	Target string // host:port that it was to connect to
	Status int
}

func (e *ProxyError) Error() string { return fmt.Sprintf("proxy %s answered %d", e.Proxy, e.Status) }

// ContentError says that an answer of the right status is not what a registry sends.
type ContentError struct {
	Kind ContentKind
	Want string
	Got  string
	// Claimed says that Want, or the size behind it, comes from a manifest alone, which the image's publisher has written, and
	// from no host of the upstream. So the image may be wrong, and not the host that answered.
	Claimed bool
	// WantSize and GotSize are sizes of a blob in bytes, which Want and Got tell of. 0: it is not from WrongSize or WrongClaim.
	WantSize, GotSize int64
}

// WrongSize is the error for a blob of got bytes instead of want. By tells which answer or host says want; empty: nothing
// need be said.
func WrongSize(want int64, by string, got int64) *ContentError {
	e := &ContentError{
		Kind: ContentSize, Want: fmt.Sprintf("%d bytes", want), Got: fmt.Sprintf("%d bytes", got), WantSize: want, GotSize: got,
	}
	if by != "" {
		e.Want += ", " + by
	}
	return e
}

// WrongClaim is the error for a blob of got bytes of which a manifest, and no host, says that it has want.
func WrongClaim(want, got int64) *ContentError {
	e := WrongSize(want, "by its manifest", got)
	e.Claimed = true
	return e
}

// ContentKind is in which way an answer is wrong.
type ContentKind string

// The ways in which a successful answer can be wrong.
const (
	ContentDigest      ContentKind = "digest"         // bytes do not have the digest they were asked by
	ContentSize        ContentKind = "size"           // longer or shorter than said
	ContentRange       ContentKind = "content-range"  // a 206 for another range, or none
	ContentLength      ContentKind = "content-length" // no size where one is needed
	ContentEncoding    ContentKind = "content-encoding"
	ContentNextPage    ContentKind = "link to the next page" // of a list, which would end there unseen
	ContentTooLarge    ContentKind = "too-large"             // a manifest above 4 MiB
	ContentNotManifest ContentKind = "not-a-manifest"
	ContentNotRegistry ContentKind = "not-a-registry" // HTML where a registry answers JSON or bytes
	ContentStalled     ContentKind = "stalled"        // no byte for the stall timeout
	ContentSlow        ContentKind = "slow"           // below the least rate
)

func (e *ContentError) Error() string {
	return fmt.Sprintf("%s: want %s, got %s", e.Kind, e.Want, e.Got)
}

// QueueError says that a blob waited too long for its turn behind other blobs of that endpoint.
type QueueError struct {
	Endpoint string        // as Registry.State names it
	Most     int           // transfers at once
	Waiting  int           // transfers that waited then
	Waited   time.Duration // 0: it does not wait
}

func (e *QueueError) Error() string {
	return fmt.Sprintf("all %d transfers from %s are in use, after %s", e.Most, e.Endpoint, e.Waited.Round(time.Millisecond))
}

// ErrNotAsked is in the Step of a request that was not made, since the limit that it counts for is reached: the status of
// the Error is that of an earlier answer.
var ErrNotAsked = errors.New("the limit is reached, so the request was not made")

// ReserveError says that a request which can wait was not made, since the rest of a limit is kept for clients.
type ReserveError struct {
	Upstream   string    // canonical name
	Credential string    // name of the one that the limit is of; empty: anonymous requests
	Until      time.Time // when there is more, as far as the registry said that
}

func (e *ReserveError) Error() string {
	return fmt.Sprintf("the rest of the rate limit of %s is kept for clients until %s", e.Upstream, e.Until.UTC().Format(time.RFC3339))
}

// Unwrap makes errors.Is(err, ErrNotAsked) true.
func (e *ReserveError) Unwrap() error { return ErrNotAsked }

// UnprovenError says that an answer to a request without the login proves nothing of the login's right.
type UnprovenError struct{}

func (*UnprovenError) Error() string {
	return "the registry answered without a login, which proves nothing of the right of one"
}

// NotRegistry is the error for an answer that a registry does not send.
func NotRegistry(want, got string) *ContentError {
	return &ContentError{Kind: ContentNotRegistry, Want: want, Got: got}
}

// WrongCoding is the error for bytes that are not the content, in an answer that names a coding.
func WrongCoding(h http.Header) error {
	return &ContentError{Kind: ContentEncoding, Want: "identity", Got: text.Line(h.Get("Content-Encoding"), 80)}
}

// TooLarge is the error for a document above a limit. Size is that of the document, -1 if not known.
func TooLarge(what string, limit, size int64) *ContentError {
	e := &ContentError{Kind: ContentTooLarge, Want: fmt.Sprintf("%s of at most %d bytes", what, limit), Got: "more"}
	if size >= 0 {
		e.Got = fmt.Sprintf("%d bytes", size)
	}
	return e
}
