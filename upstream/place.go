package upstream

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

const (
	// placeLife is how long an address that a registry redirected to is used for further parts of the blob. Signed URLs live
	// for minutes; one that has expired earlier is refused, and the registry is asked again.
	placeLife = time.Minute
	maxPlaces = 256
)

// places remembers where a registry has redirected to for blobs that come in parts, so that not each part costs the
// registry a request. They belong to one credential: an address is as good as the right to read.
type places struct {
	mu sync.Mutex // guards m; a leaf
	m  map[placeKey]place
}

type placeKey struct {
	endpoint   endpoint.Origin
	repository string
	digest     oci.Digest
}

type place struct {
	url   *url.URL
	reach endpoint.Reach // of its host
	until time.Time
}

func (p *places) get(k placeKey) (place, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.m[k]
	if ok && time.Now().After(at.until) {
		delete(p.m, k)
		ok = false
	}
	return at, ok
}

func (p *places) put(k placeKey, to *url.URL, r endpoint.Reach) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil {
		p.m = make(map[placeKey]place)
	}
	now := time.Now()
	for old, at := range p.m {
		if len(p.m) >= maxPlaces || now.After(at.until) {
			delete(p.m, old)
		}
	}
	p.m[k] = place{url: to, reach: r, until: now.Add(placeLife)}
}

func (p *places) drop(k placeKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.m, k)
}

// part makes a request for a part of a blob: of the host that the registry has redirected to for another part, or else,
// and anew, of the registry: a new address may lead to a host that works.
func (c *call) part(ctx context.Context, a endpoint.Request, d oci.Digest, anew bool) (*answer, error) {
	k := placeKey{c.ep.Origin, c.repository, d}
	if anew {
		c.as.places.drop(k)
	}
	if at, ok := c.as.places.get(k); ok {
		b := a.Redirected(at.url, at.reach, c.ep.Origin)
		resp, err := c.login.Bare(ctx, c.ep.Blobs[b.Reach], b) //nolint:bodyclose // the answer's; or spill closes it
		if err == nil && resp.StatusCode == http.StatusPartialContent {
			here, _ := endpoint.OriginOf(at.url)
			return &answer{Response: resp, host: here.String(), url: at.url, reach: at.reach}, nil
		}
		c.as.places.drop(k)
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
		c.as.places.put(k, resp.url, resp.reach)
	}
	return resp, nil
}
