package upstream

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
	"github.com/registrymirror/mirror/upstream/transfer"
)

// Stat asks for the size of a blob, by HEAD or, where that is refused, redirected or doesn't say it, by a GET of one
// byte. Size is -1 where the upstream did not say.
func (r *Registry) Stat(ctx context.Context, repo string, d oci.Digest) (oci.Descriptor, error) {
	c := r.call("blob", repo, d.String())
	desc, err := anywhere(ctx, c, func(ctx context.Context) (oci.Descriptor, error) { return c.stat(ctx, d) })
	return desc, c.Wrap(err)
}

func (c *call) stat(ctx context.Context, d oci.Digest) (oci.Descriptor, error) {
	a := c.blobAsk(d)
	a.Method = http.MethodHead
	size, h, err := c.size(ctx, d, a)
	if err == nil && size < 0 || c.unexplained(err) {
		// Not said, refused, or an error whose reason only a body has.
		a = c.blobAsk(d)
		a.Header = http.Header{"Range": {"bytes=0-0"}}
		if n, with, gerr := c.size(ctx, d, a); err != nil || gerr == nil {
			size, h, err = n, with, gerr
		}
	}
	if r, refused := fault.RefusalIn(err); refused && r.Size == 0 && oci.VerifyDigest(d, nil) {
		return oci.Descriptor{Digest: d, Size: 0}, nil // an empty blob has no first byte
	}
	if err != nil {
		return oci.Descriptor{}, err
	}
	said, derr := oci.ParseDigest(h.Get("Docker-Content-Digest"))
	switch {
	case derr == nil && said.Algorithm() == d.Algorithm() && said != d:
		return oci.Descriptor{}, &fault.ContentError{Kind: fault.ContentDigest, Want: d.String(), Got: said.String()}
	case derr != nil && header.IsHTML(h):
		return oci.Descriptor{}, fault.NotRegistry("a blob", "a web page")
	}
	if size >= 0 {
		c.transfers.SetSize(c.ep.Endpoint, c.how.Name, d, size)
	}
	return oci.Descriptor{Digest: d, Size: size, MediaType: header.MediaType(h)}, nil
}

// size is what an answer says of a blob's size; -1: it does not say it.
func (c *call) size(ctx context.Context, d oci.Digest, a endpoint.Request) (int64, http.Header, error) {
	resp, err := c.follow(ctx, a)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	size := resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		size = -1
		if r, ok := header.ParseRange(resp.Header.Get("Content-Range")); ok {
			endpoint.Drain(resp.Body) // one byte
			size = r.Size
		}
	}
	// Some registries say 0 of each body that they don't send.
	if header.Coding(resp.Header) != "" || size == 0 && !oci.VerifyDigest(d, nil) {
		size = -1
	}
	return size, resp.Header, nil
}

func (c *call) blobAsk(d oci.Digest) endpoint.Request {
	at := c.ep.At("/v2/"+c.repository+"/blobs/"+d.String(), "")
	return endpoint.Request{Step: fault.StepBlobRegistry, Method: http.MethodGet, URL: at}
}

// blobCall makes the requests of a transfer.
type blobCall struct {
	*call
	digest oci.Digest
}

var _ transfer.Call = blobCall{}

func (b blobCall) Use(e *endpoint.Endpoint) {
	b.at(b.endpoints[slices.IndexFunc(b.endpoints, func(t *target) bool { return t.Endpoint == e })])
}

// Get asks for a range where the registry has redirected to for another one: see part.
func (b blobCall) Get(ctx context.Context, h http.Header, again bool) (*endpoint.Answer, error) {
	a := b.blobAsk(b.digest)
	a.Header = h
	if h == nil {
		return b.follow(ctx, a)
	}
	return b.part(ctx, a, b.digest, again)
}

func (b blobCall) Asks(e *endpoint.Endpoint) bool {
	return slices.ContainsFunc(b.asked(), func(t *target) bool { return t.Endpoint == e })
}

func (b blobCall) Trace() *fault.Trace { return b.trace }

func (b blobCall) RetryAfter(e *endpoint.Endpoint) (time.Duration, bool) {
	for _, f := range b.failures {
		if f.ep.Endpoint == e {
			r, _ := fault.RefusalIn(f.err)
			return r.RetryAfter, true
		}
	}
	return 0, false
}

// Corrupt reports that the bytes of a blob that Blob brought last do not have its digest. Another endpoint is asked for it
// then, and an endpoint that sends one wrong blob after another is taken for down.
func (r *Registry) Corrupt(repo string, d oci.Digest, err error) { r.transfers.Corrupt(repo, d, err) }

// Blob opens a range of a blob. It answers once the upstream has begun to send it. The body goes on through breaks
// until the range is complete; the context ends it at any time.
func (r *Registry) Blob(ctx context.Context, repo string, d oci.Digest, w flight.Want) (*transfer.Body, error) {
	return r.transfers.Open(ctx, blobCall{r.call("blob", repo, d.String()), d}, repo, d, w)
}
