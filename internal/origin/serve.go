package origin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/registrymirror/mirror/oci"
)

const cdnPath = "/cdn/"

// answer is what is to be sent, before anything goes wrong with it.
type answer struct {
	status  int
	header  http.Header
	body    content // nil: none
	from    int64   // the part of body that is sent
	length  int64
	content bool // body is what was asked for, not an error
	bare    bool // without a Content-Length
}

func say(status int, mediaType string, body []byte) *answer {
	return &answer{
		status: status, header: http.Header{"Content-Type": {mediaType}}, body: bytes.NewReader(body),
		length: int64(len(body)),
	}
}

func refuse(status int, code, message string) *answer {
	return say(status, "application/json", []byte(ErrorBody(code, message)))
}

// serve answers one request. role is that of the listener.
func (g *Origin) serve(role Role, w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	select {
	case <-g.closed:
		g.mu.Unlock()
		panic(http.ErrAbortHandler)
	default:
	}
	g.running.Add(1)
	g.mu.Unlock()
	defer g.running.Done()

	want := read(role, r)
	e := g.enter(want, r)
	defer e.done.Store(true)
	refused := g.authorize(role, want, r)
	f := g.fault(want, r, refused != nil)
	if !g.wait(r.Context(), f.Gate) || !g.sleep(r.Context(), f.Delay) {
		panic(http.ErrAbortHandler)
	}
	x := &exchange{g: g, role: role, e: e, f: f, w: w, r: r}
	switch {
	case f.Drop:
		x.drop()
		return
	case f.Handler != nil:
		f.Handler(&counted{ResponseWriter: w, e: e}, r)
		return
	}
	var a *answer
	switch {
	case f.Status != 0:
		a = g.scripted(want, f)
	case refused != nil:
		a = refused
	default:
		a = g.limited(want, r, g.answer(want, r, f))
	}
	if want.role == RoleRegistry {
		for k, v := range g.o.Header {
			a.header[http.CanonicalHeaderKey(k)] = v
		}
		a.header.Set("Docker-Distribution-Api-Version", "registry/2.0")
	}
	for k, v := range f.Header {
		a.header[http.CanonicalHeaderKey(k)] = v
	}
	if f.Then != nil {
		f.Then()
	}
	x.send(a)
}

// scripted is the answer that a fault gives in place of the true one.
func (g *Origin) scripted(w *wanted, f Fault) *answer {
	a := say(f.Status, guessType(f.Body), []byte(f.Body))
	if f.Status == http.StatusUnauthorized && g.o.Auth.Kind != "" && w.role == RoleRegistry {
		a.header.Set("WWW-Authenticate", g.challenge(w, ""))
	}
	return a
}

func guessType(body string) string {
	switch {
	case strings.HasPrefix(body, "{"):
		return "application/json"
	case strings.HasPrefix(body, "<?xml"):
		return "application/xml"
	case strings.HasPrefix(body, "<"):
		return "text/html; charset=utf-8"
	}
	return "text/plain; charset=utf-8"
}

// answer is the true one.
func (g *Origin) answer(w *wanted, r *http.Request, f Fault) *answer {
	if w.kind == KindToken {
		return g.giveToken(r)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.")
	}
	switch w.kind {
	case KindPing:
		return say(http.StatusOK, "application/json", []byte("{}"))
	case KindManifest:
		return g.manifest(w, r)
	case KindBlob:
		return g.blob(w, r, f)
	case KindCDN:
		return g.cdnBlob(w, r, f)
	case KindTags:
		return g.tags(w, r)
	case KindReferrers:
		return g.referrers(w, r)
	}
	return say(http.StatusNotFound, "text/plain; charset=utf-8", []byte("404 page not found\n"))
}

func (g *Origin) manifest(w *wanted, r *http.Request) *answer {
	d, mediaType, c, known := g.findManifest(w.repo, w.ref)
	switch {
	case !known:
		return refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
	case c == nil:
		return refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	case g.o.StrictAccept && !accepts(r.Header.Values("Accept"), mediaType):
		return refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest found, but accept header does not support it")
	}
	a := &answer{
		status: http.StatusOK, header: http.Header{"Content-Type": {mediaType}, "Etag": {`"` + string(d) + `"`}},
		body: c, length: c.Size(), content: true,
	}
	if !g.o.NoDigest {
		a.header.Set("Docker-Content-Digest", string(d))
	}
	return a
}

func accepts(accept []string, mediaType string) bool {
	for a := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		a, _, _ = strings.Cut(a, ";")
		if a = strings.TrimSpace(a); a == mediaType || a == "*/*" {
			return true
		}
	}
	return false
}

func (g *Origin) blob(w *wanted, r *http.Request, f Fault) *answer {
	if g.o.NoHeadBlob && r.Method == http.MethodHead {
		return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.")
	}
	c, known := g.findBlob(w.repo, w.ref)
	switch {
	case !known:
		return refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
	case c == nil:
		return refuse(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
	case !g.o.Redirect && !g.o.RedirectRelative:
		return g.ranged(w, r, f, c)
	}
	a := say(http.StatusTemporaryRedirect, "text/html; charset=utf-8", nil)
	a.header.Set("Location", g.address(w.repo, w.ref))
	a.header.Set("Docker-Content-Digest", w.ref)
	return a
}

// address is where the blob host has a blob: signed, as object stores do it.
func (g *Origin) address(repo, ref string) string {
	g.mu.Lock()
	q := url.Values{"repo": {repo}, "X-Amz-Signature": {signature(g.epoch)}}
	g.mu.Unlock()
	if g.o.RedirectLife > 0 {
		q.Set("expires", strconv.FormatInt(time.Now().Add(g.o.RedirectLife).UnixNano(), 10))
	}
	path := cdnPath + ref + "?" + q.Encode()
	if g.o.RedirectRelative {
		return path
	}
	return g.scheme() + "://" + g.CDNHost() + path
}

func signature(epoch int) string { return fmt.Sprintf("signed-%d", epoch) }

// ExpireRedirects makes all addresses on the blob host that were given out so far answer 403.
func (g *Origin) ExpireRedirects() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch++
}

func (g *Origin) cdnBlob(w *wanted, r *http.Request, f Fault) *answer {
	q := r.URL.Query()
	g.mu.Lock()
	signed := q.Get("X-Amz-Signature") == signature(g.epoch)
	g.mu.Unlock()
	if s := q.Get("expires"); s != "" {
		at, err := strconv.ParseInt(s, 10, 64)
		signed = signed && err == nil && time.Now().UnixNano() < at
	}
	if !signed {
		return say(http.StatusForbidden, "application/xml", []byte(XMLBody("AccessDenied", "Request has expired")))
	}
	c, _ := g.findBlob(w.repo, w.ref)
	if c == nil {
		return say(http.StatusNotFound, "application/xml", []byte(XMLBody("NoSuchKey", "The key does not exist.")))
	}
	return g.ranged(w, r, f, c)
}

// ranged is a blob, or the single range of it that was asked for.
func (g *Origin) ranged(w *wanted, r *http.Request, f Fault, c content) *answer {
	size := c.Size()
	etag := `"` + w.ref + `"`
	a := &answer{
		status: http.StatusOK, body: c, length: size, content: true, bare: g.o.NoLength,
		header: http.Header{"Content-Type": {"application/octet-stream"}, "Etag": {etag}},
	}
	if w.kind == KindBlob && !g.o.NoDigest {
		a.header.Set("Docker-Content-Digest", w.ref)
	}
	if g.o.NoRange {
		return a
	}
	a.header.Set("Accept-Ranges", "bytes")
	if f.IgnoreRange {
		return a
	}
	if v := r.Header.Get("If-Range"); v != "" && v != etag {
		return a
	}
	from, to, ok, valid := parseRange(r.Header.Get("Range"), size)
	switch {
	case !valid:
		return a
	case !ok:
		a := say(http.StatusRequestedRangeNotSatisfiable, "text/plain; charset=utf-8", nil)
		a.header.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		return a
	}
	a.status, a.from, a.length = http.StatusPartialContent, from, to-from
	a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
	return a
}

// parseRange reads a single range and returns it half open. It is not valid where there is none or where there are
// several, and not ok where it lies outside.
func parseRange(s string, size int64) (from, to int64, ok, valid bool) {
	spec, found := strings.CutPrefix(s, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !found || !dash || strings.Contains(spec, ",") {
		return 0, 0, false, false
	}
	if first == "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, false, false
		}
		return max(0, size-n), size, n > 0 && size > 0, true
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, 0, false, false
	}
	to = size
	if last != "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < from {
			return 0, 0, false, false
		}
		to = min(size, n+1)
	}
	return from, to, from < size, true
}

func (g *Origin) tags(w *wanted, r *http.Request) *answer {
	tags, known := g.tagsOf(w.repo)
	if !known {
		return refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
	}
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(tags, last)
		if found {
			i++
		}
		tags = tags[i:]
	}
	most := g.o.PageSize
	if s := q.Get("n"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return refuse(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
		}
		if most == 0 || n < most {
			most = n
		}
	}
	more := (most > 0 || q.Get("n") == "0") && len(tags) > most
	if more {
		tags = tags[:most]
	}
	body := marshal(map[string]any{"name": w.repo, "tags": tags})
	a := say(http.StatusOK, "application/json", body)
	if more && len(tags) > 0 {
		next := url.Values{"n": {strconv.Itoa(most)}, "last": {tags[len(tags)-1]}}
		a.header.Set("Link", fmt.Sprintf(`</v2/%s/tags/list?%s>; rel="next"`, w.repo, next.Encode()))
	}
	return a
}

// referrers are read out of the manifests of the repository.
func (g *Origin) referrers(w *wanted, r *http.Request) *answer {
	if g.o.NoReferrers {
		return say(http.StatusNotFound, "text/plain; charset=utf-8", []byte("404 page not found\n"))
	}
	filter := r.URL.Query().Get("artifactType")
	list := []oci.Descriptor{}
	for _, m := range g.manifestsOf(w.repo) {
		var doc ocispec.Manifest
		b, err := io.ReadAll(g.Open(m.Digest))
		if err != nil || json.Unmarshal(b, &doc) != nil || doc.Subject == nil || string(doc.Subject.Digest) != w.ref {
			continue
		}
		m.Size, m.Annotations = int64(len(b)), doc.Annotations
		m.ArtifactType = cmp.Or(doc.ArtifactType, doc.Config.MediaType)
		if filter == "" || g.o.NoFilter || m.ArtifactType == filter {
			list = append(list, m)
		}
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	index.SchemaVersion = 2
	a := say(http.StatusOK, ocispec.MediaTypeImageIndex, marshal(index))
	if filter != "" && !g.o.NoFilter {
		a.header.Set("OCI-Filters-Applied", "artifactType")
	}
	return a
}

func (g *Origin) manifestsOf(repo string) []oci.Descriptor {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.repos[repo]
	if r == nil {
		return nil
	}
	var list []oci.Descriptor
	for d, mediaType := range r.manifests {
		list = append(list, oci.Descriptor{MediaType: mediaType, Digest: d})
	}
	slices.SortFunc(list, func(a, b oci.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return list
}
