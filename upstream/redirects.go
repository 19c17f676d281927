package upstream

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

const (
	// redirectLife is how long an address that a registry redirected to is used for further parts of the blob. Signed URLs live
	// for minutes; one that has expired earlier is refused, and the registry is asked again.
	redirectLife      = time.Minute
	maxKnownRedirects = 256
)

// A redirect is where a registry has redirected to for a part of a blob. It is remembered, so that not each part costs the registry
// a request, for one credential: an address is as good as the right to read.
type redirect struct {
	url   *url.URL
	reach endpoint.Reach // of its host
}

type redirectKey struct {
	endpoint   endpoint.Origin
	repository string
	digest     oci.Digest
}

// part makes a request for a part of a blob: to the host that the registry has redirected to for another part, if there is one,
// else to the registry. Again: to the registry in any case, since a new address may lead to a host that works.
func (c *call) part(ctx context.Context, a endpoint.Request, d oci.Digest, again bool) (*endpoint.Answer, error) {
	k := redirectKey{c.ep.Origin, c.repository, d}
	if again {
		c.registry.redirects.Delete(k)
	}
	if at, ok := c.registry.redirects.Get(k); ok {
		b := a.Redirected(at.url, at.reach, c.ep.Origin)
		resp, err := c.login.Bare(ctx, c.ep.Blobs[b.Reach], b) //nolint:bodyclose // the answer's; or Drain closes it
		if err == nil && resp.StatusCode == http.StatusPartialContent {
			here, _ := endpoint.OriginOf(at.url)
			return &endpoint.Answer{
				Response: resp, URL: at.url, Host: here.String(), Reach: at.reach, Step: *c.trace.Last(),
			}, nil
		}
		c.registry.redirects.Delete(k)
		if err == nil {
			endpoint.Drain(resp.Body)
		} else if ctx.Err() != nil {
			return nil, err
		}
	}
	resp, err := c.follow(ctx, a)
	if err != nil {
		return nil, err
	}
	if here, _ := endpoint.OriginOf(resp.URL); here != c.ep.Origin && resp.StatusCode == http.StatusPartialContent {
		c.registry.redirects.Put(k, redirect{resp.URL, resp.Reach}, redirectLife, maxKnownRedirects)
	}
	return resp, nil
}
