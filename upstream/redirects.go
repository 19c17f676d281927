package upstream

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

const (
	// redirectLife is how long an address that a registry redirected to is used for further parts of the blob. Signed URLs live
	// for minutes; one that has expired earlier is refused, and the registry is asked again.
	redirectLife      = time.Minute
	maxKnownRedirects = 256
)

// redirects remembers where a registry has redirected to for blobs that come in parts, so that not each part costs the registry
// a request. It belongs to one credential: an address is as good as the right to read.
type redirects struct {
	mu sync.Mutex // guards m; a leaf
	m  map[redirectKey]redirect
}

type redirectKey struct {
	endpoint   endpoint.Origin
	repository string
	digest     oci.Digest
}

type redirect struct {
	url   *url.URL
	reach endpoint.Reach // of its host
	until time.Time      // when it is no longer used
}

func (r *redirects) get(k redirectKey) (redirect, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.m[k]
	if ok && time.Now().After(at.until) {
		delete(r.m, k)
		ok = false
	}
	return at, ok
}

func (r *redirects) put(k redirectKey, to *url.URL, reach endpoint.Reach) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bounded.Put(&r.m, k, redirect{url: to, reach: reach, until: time.Now().Add(redirectLife)}, maxKnownRedirects)
}

func (r *redirects) drop(k redirectKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, k)
}

// part makes a request for a part of a blob: to the host that the registry has redirected to for another part, if there is one,
// else to the registry. Again: to the registry in any case, since a new address may lead to a host that works.
func (c *call) part(ctx context.Context, a endpoint.Request, d oci.Digest, again bool) (*answer, error) {
	k := redirectKey{c.ep.Origin, c.repository, d}
	if again {
		c.registry.redirects.drop(k)
	}
	if at, ok := c.registry.redirects.get(k); ok {
		b := a.Redirected(at.url, at.reach, c.ep.Origin)
		resp, err := c.login.Bare(ctx, c.ep.Blobs[b.Reach], b) //nolint:bodyclose // the answer's; or Drain closes it
		if err == nil && resp.StatusCode == http.StatusPartialContent {
			here, _ := endpoint.OriginOf(at.url)
			return &answer{Response: resp, host: here.String(), url: at.url, reach: at.reach}, nil
		}
		c.registry.redirects.drop(k)
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
	if here, _ := endpoint.OriginOf(resp.url); here != c.ep.Origin && resp.StatusCode == http.StatusPartialContent {
		c.registry.redirects.put(k, resp.url, resp.reach)
	}
	return resp, nil
}
