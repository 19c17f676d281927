package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/oci"
)

// refusal is an error with an answer of its own.
type refusal struct {
	answer diagnose.Answer
	header [2]string // name and value of one more header; empty: none
	err    error     // its finding
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

// challenge asks for a login.
var challenge = [2]string{"Www-Authenticate", `Basic realm="mirror"`}

// isLogin reports whether an error is a login that ended so.
func isLogin(err error, result identity.Result) bool {
	e, ok := errors.AsType[*identity.RefusedError](err)
	return ok && e.Result == result
}

// failure is an error ready to be written.
type failure struct {
	finding diagnose.Finding
	id      string
	status  int
	retry   time.Duration
	header  [2]string
	body    []byte
}

// explain returns the failure for an error, with the answer that the client gets.
func (x *exchange) explain(err error) *failure {
	if e, ok := errors.AsType[*access.ForbiddenError](err); ok {
		e.Note = x.note
		if x.s.o.Clients != nil {
			e.Logins, e.Certificates = x.s.o.Clients.Ways()
		}
	}
	f := &failure{finding: diagnose.Explain(err)}
	if f.finding.Upstream == "" && f.finding.Class != diagnose.ClassMirror && f.finding.Class != diagnose.ClassClient {
		f.finding.Upstream = x.ref.Host // an error of the cache names the content, and no upstream
	}
	a := f.finding.Reason.Answer()
	if e, ok := errors.AsType[*refusal](err); ok {
		a, f.header = e.answer, e.header
	}
	switch bad, isBad := errors.AsType[errcode.Error](err); {
	case isBad && bad.Code != errcode.ErrorCodeUnsupported:
		a.Code = bad.Code
	case isBad && x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		a = diagnose.Answer{Status: http.StatusMethodNotAllowed, Code: bad.Code}
		f.header = [2]string{"Allow", "GET, HEAD"}
	case isBad:
		a = diagnose.Answer{Status: http.StatusNotFound, Code: bad.Code}
	case f.finding.Reason == diagnose.ClientForbidden && x.req.Namespace == "" && x.who == "":
		a = diagnose.LoginRefused.Answer()
		f.header = challenge
	case f.finding.Reason == diagnose.ClientLoginMissing && x.isSecure():
		f.header = challenge
	case f.finding.Reason == diagnose.ClientLoginMissing: // without a challenge, which would fetch the login in clear
		a = diagnose.ClientForbidden.Answer()
	case isLogin(err, identity.Unavailable):
		a = diagnose.Overloaded.Answer()
	case f.finding.Reason == diagnose.LoginRefused:
		f.header = challenge
	case a.Code == errcode.ErrorCodeManifestUnknown && x.req.Kind == oci.KindBlob:
		a.Code = errcode.ErrorCodeBlobUnknown
	case a.Code == errcode.ErrorCodeManifestUnknown && x.req.Kind != oci.KindManifest:
		a.Code = errcode.ErrorCodeNameUnknown
	}
	if !x.s.o.ClientsFallBack {
		f.finding.Declined = false // the client has no other host to go on to
		f.finding.Remedy = cmp.Or(f.finding.Alone, f.finding.Remedy)
		if f.finding.Reason == diagnose.UnknownUpstream || a.Status == http.StatusNotFound && x.forbids404() {
			a = diagnose.ClientForbidden.Answer()
		}
	}
	f.status, f.id = a.Status, f.finding.ID(x.image())
	if f.retry = a.RetryAfter; f.retry > 0 && f.finding.RetryAfter > 0 {
		f.retry = f.finding.RetryAfter
	}
	f.body = x.document(f, a.Code)
	return f
}

// image is the image of a failure, for its fingerprint. For a blob it is the repository: a pull that fails at three of its
// layers has failed once.
func (x *exchange) image() string {
	switch {
	case x.ref.Name == "":
		return ""
	case x.req.Kind == oci.KindManifest:
		return x.ref.String()
	}
	return x.ref.Repo.String()
}

// document is the body of an error as the distribution spec has it. The message ends with the failure's id, since Podman and
// CRI-O print the message alone. The detail is a string, since Docker prints it as one.
func (x *exchange) document(f *failure, code errcode.ErrorCode) []byte {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  string `json:"detail"`
	}
	id := " [" + f.id + "]"
	b, err := json.Marshal(map[string][]entry{"errors": {{
		Code:    code.String(),
		Message: sentence(f.finding, maxMessage-len(id)) + id,
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
		h.Set("Connection", "close") // do not read an unwanted body, or keep a connection above the limit
	}
	if x.writePhrase() {
		return
	}
	x.w.WriteHeader(f.status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(f.body)
	}
}

// probingTools begin the User-Agents of tools that look whether content exists, and rely on a 404: signatures, build caches,
// charts, newer tags. Runtimes are not among them.
var probingTools = []string{
	"cosign", "notation", "oras", "ratify", "kyverno", "connaisseur", "policy-controller", "sigstore", "gitsign",
	"go-containerregistry", "crane", "ko/", "kaniko", "buildkit", "buildah", "skopeo", "regclient", "regctl", "regsync",
	"helm", "flux", "source-controller", "image-reflector-controller", "renovate", "argocd", "keel", "trivy", "syft", "grype",
}

// forbids404 reports whether a 403 has to stand for a 404, where clients cannot go on to the registry. containerd drops the
// text of a 404 and reports the error of the next host, which does not exist; it prints the text of a 403. A client that
// requests a blob, a list or a signature relies on the status.
func (x *exchange) forbids404() bool {
	agent := strings.ToLower(x.r.UserAgent())
	return x.req.Kind == oci.KindManifest && !catalog.IsArtifactTag(x.req.Tag) &&
		!slices.ContainsFunc(probingTools, func(tool string) bool { return strings.HasPrefix(agent, tool) })
}
