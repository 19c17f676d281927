package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// Answer is what a client gets for a reason.
type Answer struct {
	Status int
	// Code is one that every client knows: containerd prints others as "unknown".
	Code errcode.ErrorCode
	// RetryAfter is sent where the upstream did not ask for another time. Zero: the header is not sent.
	RetryAfter time.Duration
}

var (
	denied      = Answer{Status: http.StatusForbidden, Code: errcode.ErrorCodeDenied}
	missing     = Answer{Status: http.StatusNotFound, Code: errcode.ErrorCodeManifestUnknown}
	unavailable = Answer{Status: http.StatusBadGateway, Code: errcode.ErrorCodeUnavailable}
	late        = Answer{Status: http.StatusGatewayTimeout, Code: errcode.ErrorCodeUnavailable}
	// A mirror's 429 makes containerd send the request again at once, up to six times.
	limited = Answer{
		Status: http.StatusServiceUnavailable, Code: errcode.ErrorCodeTooManyRequests,
		RetryAfter: time.Minute,
	}
	busy = Answer{
		Status: http.StatusServiceUnavailable, Code: errcode.ErrorCodeUnavailable,
		RetryAfter: 5 * time.Second,
	}
)

// answers is the one table that turns a reason into a status and a code. A 502 is what clients never repeat at the same
// host, so it is the answer where another one may do better at once. There is no 401 in it: containerd would answer
// that with the pod's secret. Who takes us for the registry itself gets one where it is forbidden, see explain.
var answers = map[diagnose.Reason]Answer{
	diagnose.DNSNotFound:        unavailable,
	diagnose.DNSFailed:          unavailable,
	diagnose.ConnectRefused:     unavailable,
	diagnose.ConnectTimeout:     unavailable,
	diagnose.Unreachable:        unavailable,
	diagnose.ConnectionReset:    unavailable,
	diagnose.UpstreamTimeout:    late,
	diagnose.Stalled:            late,
	diagnose.ProxyRefused:       unavailable,
	diagnose.RedirectNotAllowed: unavailable,

	diagnose.TLSUntrusted: unavailable,
	diagnose.TLSWrongHost: unavailable,
	diagnose.TLSExpired:   unavailable,
	diagnose.TLSHandshake: unavailable,
	diagnose.HTTPNotHTTPS: unavailable,
	diagnose.HTTPSNotHTTP: unavailable,
	diagnose.ClockSkew:    unavailable,

	diagnose.CredentialsMissing:     denied,
	diagnose.CredentialsRejected:    denied,
	diagnose.CredentialsExpired:     denied,
	diagnose.CredentialSourceFailed: denied,
	diagnose.UpstreamForbidden:      denied,
	diagnose.TokenServiceRefused:    denied,
	diagnose.AuthHostNotAllowed:     unavailable,
	diagnose.NotFoundOrNoAccess:     denied,

	diagnose.TagNotFound:        missing,
	diagnose.DigestNotFound:     missing, // BLOB_UNKNOWN where a blob was asked for
	diagnose.RepositoryNotFound: {Status: http.StatusNotFound, Code: errcode.ErrorCodeNameUnknown},

	diagnose.RateLimited:  limited,
	diagnose.AbuseLimited: limited,
	diagnose.DataLimited:  limited,

	diagnose.UpstreamError:    unavailable,
	diagnose.UpstreamBlocked:  denied,
	diagnose.NotARegistry:     unavailable,
	diagnose.UnsupportedImage: unavailable,
	diagnose.ManifestTooLarge: unavailable,
	diagnose.DigestMismatch:   unavailable,

	// 403 DENIED where clients have nowhere else to go.
	diagnose.UnknownUpstream: {Status: http.StatusNotFound, Code: errcode.ErrorCodeNameUnknown},
	diagnose.ClientForbidden: denied,
	diagnose.Overloaded:      busy,
	diagnose.QueueTimeout:    late,
	diagnose.Stopping:        busy,
	diagnose.BadRequest:      {Status: http.StatusBadRequest, Code: errcode.ErrorCodeUnsupported},
	diagnose.Loop:            unavailable,
	diagnose.InternalError:   {Status: http.StatusInternalServerError, Code: errcode.ErrorCodeUnknown},

	diagnose.ClientGone: late, // it is not there to read it, but a proxy before us may be
}

// AnswerTo returns what a client gets for a reason.
func AnswerTo(r diagnose.Reason) Answer {
	if a, ok := answers[r]; ok {
		return a
	}
	return answers[diagnose.InternalError]
}

// refusal is an error whose answer the front end itself decides on.
type refusal struct {
	answer Answer
	header [2]string // one more header, if any
	err    error     // its finding
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

// failure is an error ready to be written.
type failure struct {
	finding diagnose.Finding
	id      string
	status  int
	retry   time.Duration
	header  [2]string
	body    []byte
}

// explain says what an error is and what the client gets for it.
func (x *exchange) explain(err error) *failure {
	f := &failure{finding: diagnose.Explain(err)}
	if f.finding.Upstream == "" && f.finding.Class != diagnose.ClassMirror && f.finding.Class != diagnose.ClassClient {
		f.finding.Upstream = x.ref.Host // an error of the cache's knows the content, not whose it is
	}
	a := AnswerTo(f.finding.Reason)
	if e, ok := errors.AsType[*refusal](err); ok {
		a, f.header = e.answer, e.header
	}
	switch bad, isBad := errors.AsType[errcode.Error](err); {
	case isBad && bad.Code != errcode.ErrorCodeUnsupported:
		a.Code = bad.Code
	case isBad && x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		a = Answer{Status: http.StatusMethodNotAllowed, Code: bad.Code}
		f.header = [2]string{"Allow", "GET, HEAD"}
	case isBad:
		a = Answer{Status: http.StatusNotFound, Code: bad.Code}
	case f.finding.Reason == diagnose.ClientForbidden && x.req.Namespace == "":
		a = Answer{Status: http.StatusUnauthorized, Code: errcode.ErrorCodeUnauthorized}
		f.header = [2]string{"Www-Authenticate", `Basic realm="mirror"`}
	case a == missing && x.req.Kind == oci.KindBlob:
		a.Code = errcode.ErrorCodeBlobUnknown
	case a == missing && x.req.Kind != oci.KindManifest:
		a.Code = errcode.ErrorCodeNameUnknown
	}
	if !x.s.o.ClientsFallBack {
		f.finding.Declined = false // nobody goes on from here
		f.finding.Remedy = orElse(f.finding.Alone, f.finding.Remedy)
		if f.finding.Reason == diagnose.UnknownUpstream || a.Status == http.StatusNotFound && x.mustTell() {
			a = denied
		}
	}
	f.status, f.id = a.Status, f.finding.ID(x.image())
	if f.retry = a.RetryAfter; f.retry > 0 && f.finding.RetryAfter > 0 {
		f.retry = f.finding.RetryAfter
	}
	f.body = x.document(f, a.Code)
	return f
}

// image is what a failure is about, for its fingerprint: the image, or its repository for a blob, since a pull that
// fails at three of its layers has failed once.
func (x *exchange) image() string {
	switch {
	case x.ref.Name == "":
		return ""
	case x.req.Kind == oci.KindManifest:
		return x.ref.String()
	}
	return x.ref.Repo.String()
}

// document is the body of an error as the distribution spec has it. Its detail is a string, since that is what Docker
// prints of one.
func (x *exchange) document(f *failure, code errcode.ErrorCode) []byte {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  string `json:"detail"`
	}
	b, err := json.Marshal(map[string][]entry{"errors": {{
		Code:    code.String(),
		Message: sentence(f.finding, maxMessage),
		Detail:  "failure " + f.id + ", " + x.s.help(x.r, string(f.finding.Reason)),
	}}})
	if err != nil { // strings can't fail to marshal
		return []byte(`{"errors":[{"code":"UNKNOWN","message":"","detail":""}]}`)
	}
	return append(b, '\n')
}

// writeFailure writes an error in the three places where clients look: status line, headers, body.
func (x *exchange) writeFailure() {
	f, h := x.failure, x.w.Header()
	clear(h)
	h.Set("Docker-Distribution-Api-Version", apiVersion)
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	h.Set("Cache-Status", f.cacheStatus())
	h.Set("Warning", warning(sentence(f.finding, maxMessage)))
	h.Set("Mirror-Reason", string(f.finding.Reason)+"; id="+f.id)
	if f.retry > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((f.retry+time.Second-1)/time.Second), 10))
	}
	if f.header[0] != "" {
		h.Set(f.header[0], f.header[1])
	}
	if x.r.Body != nil && x.r.Body != http.NoBody || f.finding.Reason == diagnose.Overloaded {
		h.Set("Connection", "close") // rather than read a body that nobody wants, or keep a connection too many
	}
	if x.writePhrase() {
		return
	}
	x.w.WriteHeader(f.status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(f.body)
	}
}
