package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/pull"
)

const blobType = "application/octet-stream"

// copier is an object that knows best how its bytes get to a socket: one that is on its way. *flight.Reader is one.
type copier interface {
	CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error)
}

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
		x.describe(c)
		x.blobHeaders(etag)
		x.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if x.req.Head { // RFC 9110, 14.2: Range is for GET
		x.describe(c)
		x.blobHeaders(etag)
		x.begin(http.StatusOK, blobType, c.Size)
		return nil
	}
	spans, kind := parseRange(x.rangeHeader(etag), c.Size)
	switch kind {
	case rangeUnsatisfiable:
		return &refusal{
			answer: Answer{Status: http.StatusRequestedRangeNotSatisfiable, Code: errcode.ErrorCodeRangeInvalid},
			header: [2]string{"Content-Range", "bytes */" + strconv.FormatInt(c.Size, 10)},
			err: diagnose.New(diagnose.BadRequest, fmt.Sprintf("range %q is not within the blob's %d bytes",
				printable(x.r.Header.Get("Range"), 60), c.Size), "ask for bytes=FIRST-LAST within the blob"),
		}
	case rangeTooMuch:
		return &refusal{
			answer: Answer{Status: http.StatusBadRequest, Code: errcode.ErrorCodeUnsupported},
			err: diagnose.New(diagnose.BadRequest, "the request asks for more than 1024 ranges, or for more bytes than "+
				"the blob has", "ask for fewer ranges, or for the whole blob"),
		}
	case rangeNone:
		spans = []span{{0, c.Size}}
	}
	if err := c.Ready(ctx, spans[0].off, spans[0].n); err != nil {
		return err
	}
	x.describe(c)
	x.blobHeaders(etag)
	switch {
	case kind == rangeNone:
		x.begin(http.StatusOK, blobType, c.Size)
	case len(spans) > 1:
		err := x.multipart(c, spans)
		c.Failed(err)
		return err
	default:
		x.w.Header().Set("Content-Range", contentRange(spans[0], c.Size))
		x.begin(http.StatusPartialContent, blobType, spans[0].n)
	}
	x.promise(c.Object)
	err = x.send(ctx, c.Object, spans[0])
	c.Failed(err) // where the bytes were wrong, nobody is sent for them again for a while
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
		x.s.o.Begin(x.record())
	}
}

// promise sends the header of a blob that is on its way, without its first byte: that may be long in coming, and clients
// wait 30 seconds for a header. What is here goes out with its header, in one piece.
func (x *exchange) promise(o cache.Object) {
	if _, ok := o.(copier); ok {
		x.w.Flush()
	}
}

// rangeHeader is the Range to go by: none if If-Range names other content. A date never matches, since blobs have none.
func (x *exchange) rangeHeader(etag string) string {
	if want := x.r.Header.Get("If-Range"); want != "" && want != etag {
		return ""
	}
	return x.r.Header.Get("Range")
}

// send writes a span of the object, or an error: never less without one.
func (x *exchange) send(ctx context.Context, o cache.Object, s span) error {
	if s.n == 0 {
		return nil
	}
	var n int64
	var err error
	if c, ok := o.(copier); ok {
		n, err = c.CopyTo(ctx, x.w, s.off, s.n)
	} else {
		if _, err = o.Seek(s.off, io.SeekStart); err == nil {
			// Explicitly: io.Copy would ask the source first, and os.File's WriteTo hides sendfile behind a wrapper.
			n, err = x.w.ReadFrom(&io.LimitedReader{R: o, N: s.n})
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

// multipart writes the spans as parts, in the order in which they were asked for.
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
	x.promise(c.Object)
	for i, s := range spans {
		if _, err := io.WriteString(x.w, heads[i]); err != nil {
			return err
		}
		if err := x.send(x.r.Context(), c.Object, s); err != nil {
			return err
		}
	}
	_, err := io.WriteString(x.w, end)
	return err
}

func contentRange(s span, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.off, s.off+s.n-1, size)
}
