package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// errIncomplete guards against an answer that old containerd misreads: after a HEAD 200 without digest or length it takes any
// content that it downloads for the manifest.
var errIncomplete = errors.New("content without digest, size or bytes")

// maxIndex is the size in bytes up to which an index is handed to the journal, which looks for platforms in it. An index of
// some hundred entries is as large.
const maxIndex = 64 << 10

// manifest answers a GET or HEAD of a manifest. It is small and in memory, or sent from the cache, and always whole: a
// Range is ignored, as RFC 9110, 14.2 allows.
func (x *exchange) manifest() error {
	c, err := x.s.o.Puller.Manifest(x.r.Context(), x.ask())
	if err != nil {
		return err
	}
	defer c.Close()
	size := c.Size
	if !x.req.Head && c.Object == nil {
		size = int64(len(c.Bytes))
	}
	if c.Digest == "" || size <= 0 {
		return fmt.Errorf("manifest %s: %w", c.Ref, errIncomplete)
	}
	x.describe(c)
	etag := entityTag(c)
	h := x.w.Header()
	h.Set("Docker-Content-Digest", c.Digest.String())
	h.Set("Etag", etag)
	if notModified(x.r, etag) {
		x.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", cmp.Or(c.MediaType, blobType))
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	x.w.WriteHeader(http.StatusOK)
	if x.req.Head {
		return nil
	}
	x.parts = c.Parts
	if c.Object != nil {
		n, err := x.copy(x.r.Context(), c.Object, span{0, size})
		if err == nil && n != size {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if oci.IsIndex(c.MediaType) && len(c.Bytes) <= maxIndex {
		x.index = c.Bytes
	}
	return x.sendBytes(c.Bytes)
}

// An answer from memory has to be taken in half a minute, and the time that its bytes take at 128 KiB a second. A client
// that takes it more slowly would keep memory from requests that wait for it.
const (
	sendTime = 30 * time.Second
	sendRate = 128 << 10
)

// sendBytes writes a body that is in memory.
func (x *exchange) sendBytes(b []byte) error {
	if int64(len(b)) > maxIndex {
		defer x.w.within(sendTime + time.Duration(len(b)/sendRate)*time.Second)()
	}
	_, err := x.w.Write(b)
	return err
}

// list answers tags/list and referrers with the upstream's document.
func (x *exchange) list(get func(context.Context, pull.Ask) (*pull.Content, error)) error {
	c, err := get(x.r.Context(), x.ask())
	if err != nil {
		return err
	}
	defer c.Close()
	x.describe(c)
	h := x.w.Header()
	h.Set("Content-Type", cmp.Or(c.MediaType, "application/json"))
	h.Set("Content-Length", strconv.Itoa(len(c.Bytes)))
	if c.Filters != "" {
		h.Set("OCI-Filters-Applied", printable(c.Filters, 200))
	}
	if next := x.next(c.Link); next != "" {
		h.Set("Link", "<"+next+`>; rel="next"`)
	}
	x.w.WriteHeader(http.StatusOK)
	if x.req.Head {
		return nil
	}
	return x.sendBytes(c.Bytes)
}

// next makes the link to the next page from the upstream's query: on the path of this request, relative, since the mirror
// does not know the name by which clients reach it, and with the namespace that the client named.
func (x *exchange) next(query string) string {
	if i := strings.LastIndexByte(query, '?'); i >= 0 {
		query = query[i+1:]
	}
	if query == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString(x.r.URL.EscapedPath())
	b.WriteByte('?')
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^`+"`{|}", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	if ns := x.req.Namespace; ns != "" {
		b.WriteString("&ns=" + url.QueryEscape(ns))
	}
	return b.String()
}
