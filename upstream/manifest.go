package upstream

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
	"github.com/registrymirror/mirror/upstream/limit"
	"github.com/registrymirror/mirror/upstream/login"
)

// Resolve asks by HEAD which digest a tag means: that is free on Docker Hub, where a GET counts as a pull. Where the registry
// names no digest, or refuses HEAD, it gets the manifest and hashes it. Size is -1 and MediaType empty where the upstream did not
// say; a size above 4 MiB is an error.
func (r *Registry) Resolve(ctx context.Context, repo, tag string) (oci.Descriptor, error) {
	// Under Options.Public without our credential, which a HEAD does not need: so the next check of a tag notices that a
	// repository is no longer public. Where that meets a limit, the credential may be used.
	c := r.callAs(login.Operation{Name: repo, WithoutLogin: true}, "resolve", tag)
	desc, err := anywhere(ctx, c, c.resolve)
	refused, _ := fault.RefusalIn(err)
	if (refused.Status == http.StatusTooManyRequests || fault.Is[*fault.ReserveError](err)) && c.login.CouldLogIn() {
		again := r.call("resolve", repo, tag)
		again.trace.Steps, c = c.trace.Steps, again
		desc, err = anywhere(ctx, c, c.resolve)
	}
	return desc, c.withProbe(ctx, err)
}

func (c *call) resolve(ctx context.Context) (oci.Descriptor, error) {
	resp, err := c.follow(ctx, c.manifestAsk(http.MethodHead))
	if err != nil && !c.unexplained(err) {
		return oci.Descriptor{}, err
	}
	if err == nil {
		resp.Body.Close()
		d, derr := oci.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
		switch {
		case derr != nil, header.IsHTML(resp.Header), header.Coding(resp.Header) != "": // what a GET brings tells more
		case resp.ContentLength > oci.MaxManifestSize:
			return oci.Descriptor{}, fault.TooLarge("a manifest", oci.MaxManifestSize, resp.ContentLength)
		default:
			return headed(d, resp), nil
		}
	}
	m, err := c.manifest(ctx)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return oci.Descriptor{Digest: m.Digest, Size: int64(len(m.Bytes)), MediaType: m.MediaType}, nil
}

// smallestManifest is a size in bytes that no manifest is below. A proxy that answers a HEAD for a registry may say 0, or the size
// of a text of its own.
const smallestManifest = 20

// headed is the descriptor in an answer to a HEAD, without values that no manifest has: a size that is too small, a media type that
// servers give to all content.
func headed(d oci.Digest, resp *endpoint.Answer) oci.Descriptor {
	desc := oci.Descriptor{Digest: d, Size: resp.ContentLength, MediaType: header.MediaType(resp.Header)}
	if desc.Size < smallestManifest {
		desc.Size = -1
	}
	if t, _, ok := strings.Cut(strings.ToLower(desc.MediaType), "/vnd."); !ok || t != "application" {
		desc.MediaType = ""
	}
	return desc
}

// unexplained reports whether an error is a refusal of a HEAD whose reason only a GET can show. Missing content needs none, and a
// limit would be hit harder. Token services are asked by GET and have said why; then a GET is only of use where the registry
// answers no HEAD at all, which it does by another status than 401. A client's own login is not shown once more where it is wrong: each
// time counts for a registry that locks accounts.
func (c *call) unexplained(err error) bool {
	r, refused := fault.RefusalIn(err)
	switch {
	case !refused, r.Status == http.StatusNotFound, r.Status == http.StatusTooManyRequests,
		r.Status == http.StatusUnauthorized && c.registry.identity.Client:
		return false
	}
	f, _ := errors.AsType[*fault.Failure](err)
	last := *c.trace.Last()
	return f.Step.Name != fault.StepToken || last.Name != fault.StepToken && last.Status != http.StatusUnauthorized
}

// Manifest gets a manifest by tag or digest. It has the digest that it was asked by, else the one that the upstream named, and at
// most 4 MiB.
func (r *Registry) Manifest(ctx context.Context, repo, reference string) (*oci.Manifest, error) {
	c := r.call("manifest", repo, reference)
	m, err := anywhere(ctx, c, c.manifest)
	return m, c.withProbe(ctx, err)
}

// withProbe is the error of a call for a manifest, with what a probe has shown where the error leaves a doubt.
func (c *call) withProbe(ctx context.Context, err error) error {
	if c.registry.identity.Client { // what a client's own login has shown is not for the failures of others
		return c.Wrap(err)
	}
	if err == nil {
		c.ep.probes.noteExists(c.repository)
	}
	return c.addProbe(ctx, c.Wrap(err))
}

func (c *call) manifestAsk(method string) endpoint.Request {
	return endpoint.Request{
		Step: fault.StepManifest, Method: method, URL: c.ep.At("/v2/"+c.repository+"/manifests/"+c.reference, ""),
		Header: http.Header{"Accept": {oci.AcceptManifests}},
	}
}

func (c *call) manifest(ctx context.Context) (*oci.Manifest, error) {
	m, err := c.getManifest(ctx)
	if fault.IsBroken(err) && ctx.Err() == nil {
		m, err = c.getManifest(ctx)
	}
	return m, err
}

func (c *call) getManifest(ctx context.Context) (*oci.Manifest, error) {
	ask := c.manifestAsk(http.MethodGet)
	resp, err := c.follow(ctx, ask)
	if err != nil {
		return nil, err
	}
	b, err := c.document(ctx, resp, paper{
		what: "a manifest", limit: oci.MaxManifestSize, cost: manifestCost, grace: paceManifest,
	})
	if err != nil {
		return nil, err
	}
	asked := c.reference
	if !isDigest(asked) { // a tag: then the digest that the upstream names must be right
		asked = resp.Header.Get("Docker-Content-Digest")
	}
	want, derr := oci.ParseDigest(asked)
	coded := header.Coding(resp.Header) != ""
	if derr == nil && !oci.VerifyDigest(want, b) {
		if coded {
			return nil, fault.WrongCoding(resp.Header)
		}
		if isSigned(resp.Header, b) {
			return nil, fmt.Errorf("%w: %w", &fault.ContentError{
				Kind: fault.ContentNotManifest, Want: "a manifest", Got: "a signed one of schema 1",
			}, &oci.ManifestError{Fault: oci.FaultSigned, Detail: "it is of Docker's schema 1 and signed, which no current runtime pulls"})
		}
		if err := c.misanswered(resp, b, want); err != nil {
			return nil, err
		}
		return nil, wrongDigest(want, b)
	}
	m, err := oci.ParseManifest(resp.Header.Get("Content-Type"), b)
	if err != nil && coded && derr != nil {
		return nil, fault.WrongCoding(resp.Header)
	}
	if err != nil {
		return nil, c.notManifest(resp.Header, b, err)
	}
	if err := c.misanswered(resp, b, want); err != nil {
		return nil, err
	}
	if derr == nil {
		m.Digest = want
	}
	// A redirect may lead to a manifest of a repository that is open, and back.
	c.login.NoteManifest(m, resp.Header, derr == nil, resp.URL.String() != ask.URL.String())
	return m, nil
}

// wrongDigest is the error for bytes that were asked for by another digest.
func wrongDigest(want oci.Digest, b []byte) error {
	return &fault.ContentError{Kind: fault.ContentDigest, Want: want.String(), Got: want.Algorithm().FromBytes(b).String()}
}

// isSigned reports whether bytes are a signed manifest of schema 1, whose digest is that of the signed part.
func isSigned(h http.Header, b []byte) bool {
	var doc struct {
		Schema     int               `json:"schemaVersion"`
		Signatures []json.RawMessage `json:"signatures"`
	}
	return json.Unmarshal(b, &doc) == nil && doc.Schema == 1 &&
		(len(doc.Signatures) > 0 || header.MediaType(h) == oci.MediaTypeDockerSchema1Signed)
}

// misanswered is the error for JSON that came with status 200 and is not a manifest: an error of the registry, or of a proxy before
// it, or another document. A document with the digest that was asked for is the content, unless it is an error. Nil: it may be a
// manifest.
func (c *call) misanswered(resp *endpoint.Answer, b []byte, want oci.Digest) error {
	if oci.Resembles(resp.Header.Get("Content-Type"), b) {
		return nil
	}
	step := *c.trace.Last()
	kind, code, message := fault.ReadErrorBody(b, resp.Header.Get("Content-Type"))
	if kind == fault.BodyMessage {
		code = cmp.Or(code, codeOf(b))
	}
	known := append(c.logins.Secrets(), fault.TokensIn(b)...)
	code, message = fault.Tidy(code, 80, known...), fault.Tidy(message, fault.MaxMessage, known...)
	head, _, _ := strings.Cut(message, ":")
	own := isDigest(c.reference) && want.String() == c.reference && oci.VerifyDigest(want, b)
	switch {
	case kind == fault.BodyText && own:
		return nil
	case kind == fault.BodyText:
		got := fmt.Sprintf("JSON that is not a manifest, %q", fault.Tidy(message, 80))
		return fault.NotRegistry("a manifest", text.Line(got, fault.MaxMessage))
	case saysLimit(code), saysLimit(head):
		retry := limit.ParseRetryAfter(resp.Header.Get("Retry-After"), limit.ServerTime(resp.Header, time.Now()))
		return &fault.Failure{Refusal: fault.Refusal{
			Status: http.StatusTooManyRequests, Code: code, Message: message, BodyKind: kind, RetryAfter: retry, Size: -1,
		}, Step: step, Stage: step.Name}
	}
	got := strings.TrimSpace(fmt.Sprintf("an error with status %d %s", resp.StatusCode, code))
	if message != "" {
		got += fmt.Sprintf(" %q", fault.Tidy(message, 120))
	}
	return fault.NotRegistry("a manifest", text.Line(got, fault.MaxMessage))
}

// codeOf is the code of an error that is not in the form of registries, or the status that it has instead.
func codeOf(b []byte) string {
	var doc struct {
		Code       json.RawMessage `json:"code"`
		Status     json.RawMessage `json:"status"`
		StatusCode json.RawMessage `json:"statusCode"`
	}
	if json.Unmarshal(b, &doc) != nil {
		return ""
	}
	return cmp.Or(fault.JSONText(doc.Code), fault.JSONText(doc.StatusCode), fault.JSONText(doc.Status))
}

func saysLimit(code string) bool {
	word := strings.NewReplacer("_", "", "-", "", " ", "").Replace(code)
	return strings.EqualFold(word, "TOOMANYREQUESTS") || word == "429"
}

// notManifest tells a web page from a bad manifest.
func (c *call) notManifest(h http.Header, b []byte, err error) error {
	if text := strings.TrimSpace(string(b[:min(len(b), 512)])); text == "" || text[0] != '{' {
		return fault.NotRegistry("a manifest", fault.Describe(h, b, c.logins.Secrets()...))
	}
	return fmt.Errorf("%w: %w", &fault.ContentError{Kind: fault.ContentNotManifest, Want: "a manifest", Got: "JSON that is not one"}, err)
}

// paper is a kind of document.
type paper struct {
	what  string
	limit int64               // bytes
	cost  func(n int64) int64 // memory of one of n bytes, with all that is made of it; nil: its bytes
	grace time.Duration       // how long it may take, beside the least pace; 0: as long as bytes come
}

// manifestCost is the memory that a manifest of n bytes takes until it is stored and its references are recorded: the more bytes,
// the more entries, and 10,000 entries take 8 MiB at all stages together.
func manifestCost(n int64) int64 { return 16<<10 + n + min(10*n, 8<<20) }

// steps are how many bytes of a document are read with memory for these alone: a claimed size reserves no memory. After the last
// step the document counts as large as it claims to be, or as one of the largest.
var steps = [...]int64{4 << 10, 16 << 10, 64 << 10}

// room waits until a document of n bytes may be in memory.
func (p paper) room(ctx context.Context, n int64) error {
	if p.cost != nil {
		n = p.cost(n)
	}
	return memory.Need(ctx, n)
}

// document reads an answer of JSON within a limit and closes it, once there is room for it in memory.
func (c *call) document(ctx context.Context, resp *endpoint.Answer, p paper) ([]byte, error) {
	defer resp.Body.Close()
	if err := c.readable(resp, p.what); err != nil {
		return nil, err
	}
	if resp.ContentLength > p.limit {
		return nil, fault.TooLarge(p.what, p.limit, resp.ContentLength)
	}
	b, err := p.read(ctx, resp)
	if err != nil {
		memory.Shrink(ctx, 0) // now: the next step may take a while
	}
	switch {
	case fault.Is[*memory.FullError](err):
		return nil, err
	case err != nil:
		return nil, c.cut(err)
	case int64(len(b)) > p.limit:
		return nil, fault.TooLarge(p.what, p.limit, -1)
	}
	return b, nil
}

// readable tells a web page from a document. A Content-Encoding is not checked here: many such answers have the right bytes all the
// same.
func (c *call) readable(resp *endpoint.Answer, what string) error {
	if header.IsHTML(resp.Header) {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, fault.MaxErrorBody))
		return fault.NotRegistry(what, fault.Describe(resp.Header, b, c.logins.Secrets()...))
	}
	return nil
}

// cut is the error for a body that ended with err.
func (c *call) cut(err error) error {
	step := *c.trace.Last()
	step.Name, step.Err = fault.StepBody, err
	c.trace.Add(step)
	return &fault.Failure{Err: err, Step: step}
}

// read reads to the end or one byte beyond the limit.
func (p paper) read(ctx context.Context, resp *endpoint.Answer) ([]byte, error) {
	endpoint.SetPace(resp.Body, p.grace)
	size := resp.ContentLength
	if size < 0 {
		size = p.limit
	}
	all := size + 1 // reading beyond the end makes the connection ready for the next request
	var b []byte
	var err error
	for _, step := range steps {
		if err := memory.Need(ctx, min(step, all)); err != nil {
			return nil, err
		}
		if b, err = fill(b, resp.Body, min(step, all)); err != nil {
			return p.ended(ctx, b, resp.ContentLength, err)
		}
	}
	if err := p.room(ctx, size); err != nil {
		return nil, err
	}
	if resp.ContentLength < 0 {
		rest, err := io.ReadAll(io.LimitReader(resp.Body, all-int64(len(b))))
		return append(b, rest...), err
	}
	b, err = fill(b, resp.Body, all)
	return p.ended(ctx, b, size, cmp.Or(err, io.ErrUnexpectedEOF))
}

// ended is a document at its end, with memory for all that is made of it. Size is -1 where it is not known.
func (p paper) ended(ctx context.Context, b []byte, size int64, err error) ([]byte, error) {
	switch {
	case !errors.Is(err, io.EOF):
		return nil, err
	case size >= 0 && int64(len(b)) != size:
		return nil, fmt.Errorf("after %d bytes: %w", len(b), io.ErrUnexpectedEOF)
	}
	if cap(b) > 2*len(b) {
		b = bytes.Clone(b)
	}
	return b, p.room(ctx, int64(len(b)))
}

// How long a document may take beside the least pace.
const (
	paceManifest = 3 * time.Second  // a manifest
	paceList     = 10 * time.Second // a list: some registries put it together while they send it
)

// fill reads on until b has n bytes. Its error is that of the body, io.EOF at its end.
func fill(b []byte, r io.Reader, n int64) ([]byte, error) {
	b = slices.Grow(b, max(0, int(n)-len(b)))
	for int64(len(b)) < n {
		got, err := r.Read(b[len(b):n])
		b = b[:len(b)+got]
		if err != nil {
			return b, err
		}
	}
	return b, nil
}
