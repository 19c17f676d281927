package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/pull"
)

const blobType = "application/octet-stream"

// copier is an object that is still being downloaded, and writes its bytes as they arrive.
type copier interface {
	CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error)
}

var _ copier = (*flight.Reader)(nil)

// blob answers a GET or HEAD of a blob, whole or in ranges.
func (x *exchange) blob() error {
	ctx := x.r.Context()
	c, err := x.s.o.Puller.Blob(ctx, x.ask())
	if err != nil {
		return err
	}
	defer c.Close()
	if c.Size < 0 || c.Object == nil && !x.req.Head {
		return fmt.Errorf("blob %s: %w", c.Ref, errIncomplete)
	}
	c.Digest = x.req.Digest
	etag := entityTag(c)
	if notModified(x.r, etag) {
		if err := c.Shown(ctx); err != nil {
			return err
		}
		x.describe(c)
		x.blobHeaders(etag)
		x.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if x.req.Head { // RFC 9110, 14.2: Range is for GET
		x.describe(c)
		x.blobHeaders(etag)
		x.begin(http.StatusOK, cmp.Or(c.MediaType, blobType), c.Size)
		return nil
	}
	spans, kind := parseRange(x.rangeHeader(etag), c.Size)
	if kind == rangeUnsatisfiable || kind == rangeTooMuch { // the answer shows that the content exists, and its size
		if err := c.Ready(ctx, 0, min(1, c.Size)); err != nil {
			return err
		}
	}
	switch kind {
	case rangeUnsatisfiable:
		return &refusal{
			answer: diagnose.Answer{Status: http.StatusRequestedRangeNotSatisfiable, Code: errcode.ErrorCodeRangeInvalid},
			header: [2]string{"Content-Range", "bytes */" + strconv.FormatInt(c.Size, 10)},
			err: diagnose.New(diagnose.BadRequest, fmt.Sprintf("range %q is not within the blob's %d bytes",
				printable(x.r.Header.Get("Range"), 60), c.Size), "ask for bytes=FIRST-LAST within the blob"),
		}
	case rangeTooMuch:
		return &refusal{
			answer: diagnose.Answer{Status: http.StatusBadRequest, Code: errcode.ErrorCodeUnsupported},
			err: diagnose.New(diagnose.BadRequest, "the request asks for more than 1024 ranges, or for more bytes than "+
				"the blob has", "ask for fewer ranges, or for the whole blob"),
		}
	case rangeNone:
		spans = []span{{0, c.Size}}
	}
	if err := c.Ready(ctx, spans[0].off, spans[0].n); err != nil {
		return err
	}
	x.w.paced = ctx
	x.describe(c)
	x.blobHeaders(etag)
	switch {
	case kind == rangeNone:
		x.begin(http.StatusOK, cmp.Or(c.MediaType, blobType), c.Size)
	case len(spans) > 1:
		err := x.multipart(c, spans)
		c.Failed(err)
		return err
	default:
		x.w.Header().Set("Content-Range", contentRange(spans[0], c.Size))
		x.begin(http.StatusPartialContent, cmp.Or(c.MediaType, blobType), spans[0].n)
	}
	x.flushHeader(c.Object)
	err = x.send(ctx, c, spans[0], kind == rangeNone)
	c.Failed(err) // wrong bytes are not fetched again for a while
	return err
}

func (x *exchange) blobHeaders(etag string) {
	h := x.w.Header()
	h.Set("Docker-Content-Digest", x.req.Digest.String())
	h.Set("Etag", etag)
	h.Set("Accept-Ranges", "bytes")
}

// begin writes the header of an answer with size bytes of body.
func (x *exchange) begin(status int, contentType string, size int64) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	x.w.WriteHeader(status)
	if !x.req.Head {
		x.size = size
		x.s.o.Begin(x.record())
	}
}

// flushHeader sends the header of a blob that is being downloaded before its first byte: that may take long, and clients wait
// 30 seconds for a header. A stored blob is sent with its header, in one piece.
func (x *exchange) flushHeader(o cache.Object) {
	if _, ok := o.(copier); ok {
		_ = http.NewResponseController(x.w).Flush()
	}
}

// rangeHeader is the Range that applies: empty if If-Range names other content. A date never matches, since blobs have none.
func (x *exchange) rangeHeader(etag string) string {
	if want := x.r.Header.Get("If-Range"); want != "" && want != etag {
		return ""
	}
	return x.r.Header.Get("Range")
}

// send writes a span of the content. It writes all of it, or returns an error. Where the stored content can't be read any
// further, the rest comes from the upstream. whole says that the response is the whole blob.
func (x *exchange) send(ctx context.Context, c *pull.Content, s span, whole bool) error {
	if s.n == 0 {
		return nil
	}
	n, err := x.copy(ctx, c.Object, s)
	if _, downloading := c.Object.(copier); !downloading && n < s.n && ctx.Err() == nil {
		if cause := flight.Unreadable(c.Object, s.off+n, err); cause != nil {
			var m int64
			m, err = x.resume(ctx, c, cause, span{s.off + n, s.n - n}, whole)
			n += m
		}
	}
	if err == nil && n != s.n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("send %d bytes of %s from byte %d: %w", s.n, x.req.Digest, s.off+n, err)
	}
	return nil
}

// copy writes a span of an object.
func (x *exchange) copy(ctx context.Context, o cache.Object, s span) (int64, error) {
	if c, ok := o.(copier); ok {
		return c.CopyTo(ctx, x.w, s.off, s.n)
	}
	if _, err := o.Seek(s.off, io.SeekStart); err != nil {
		return 0, err
	}
	// Explicitly: io.Copy would ask the source first, and os.File's WriteTo hides sendfile behind a wrapper.
	return x.w.ReadFrom(&io.LimitedReader{R: o, N: s.n})
}

// resume writes the rest of a span after the stored content could not be read because of cause. Where the response is the
// whole blob, the blob is fetched from its start and verified, since a client takes the end of the response for a right blob.
func (x *exchange) resume(ctx context.Context, c *pull.Content, cause error, s span, whole bool) (int64, error) {
	o, err := c.Reopen(ctx, cause)
	if err != nil {
		return 0, err
	}
	defer o.Close()
	download, ok := o.(copier)
	if !ok || !whole {
		return x.copy(ctx, o, s)
	}
	rest := &skipWriter{w: x.w, skip: s.off}
	_, err = download.CopyTo(ctx, rest, 0, c.Size)
	return rest.written, err
}

// skipWriter writes all but the first bytes.
type skipWriter struct {
	w       io.Writer
	skip    int64 // bytes that are still to be left out
	written int64 // bytes
}

func (w *skipWriter) Write(p []byte) (int, error) {
	k := min(w.skip, int64(len(p)))
	w.skip -= k
	if k == int64(len(p)) {
		return len(p), nil
	}
	n, err := w.w.Write(p[k:])
	w.written += int64(n)
	return int(k) + n, err
}

// multipart writes the spans as parts, in the order of the request.
func (x *exchange) multipart(c *pull.Content, spans []span) error {
	boundary := rand.Text()
	end := "\r\n--" + boundary + "--\r\n"
	size := int64(len(end))
	heads := make([]string, len(spans))
	for i, s := range spans {
		before := "\r\n--"
		if i == 0 {
			before = "--"
		}
		heads[i] = before + boundary + "\r\nContent-Type: " + blobType + "\r\nContent-Range: " +
			contentRange(s, c.Size) + "\r\n\r\n"
		size += int64(len(heads[i])) + s.n
	}
	x.begin(http.StatusPartialContent, "multipart/byteranges; boundary="+boundary, size)
	x.flushHeader(c.Object)
	for i, s := range spans {
		if _, err := io.WriteString(x.w, heads[i]); err != nil {
			return err
		}
		if err := x.send(x.r.Context(), c, s, false); err != nil {
			return err
		}
	}
	_, err := io.WriteString(x.w, end)
	return err
}

func contentRange(s span, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.off, s.off+s.n-1, size)
}
