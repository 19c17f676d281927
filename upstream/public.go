package upstream

import (
	"net/http"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

const (
	// publicFor is how long a repository is taken for public after it has shown a manifest without a login.
	publicFor = 24 * time.Hour
	// maxPublic is how many such repositories are remembered. More of them are asked anonymously more often.
	maxPublic = 16_384
)

// public are the repositories of an endpoint that have shown a manifest, whose bytes were right, to a request without a
// login. No other answer proves that all clients may read a repository: a login page, a redirect to one, a list of tags or
// the headers of a HEAD may come before content that is closed.
type public struct {
	mu    sync.Mutex // guards what follows; a leaf
	until map[string]time.Time
	some  time.Time       // until when something is known to be given to requests without a login
	own   map[string]bool // by repository and digest: that we made of bytes for which the registry announced none
}

// maxOwn bounds own. Once it is full, each digest that an answer does not announce counts as one of them.
const maxOwn = 4096

// make notes a digest that is our own word.
func (p *public) make(repository string, d oci.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own == nil {
		p.own = make(map[string]bool)
	}
	if len(p.own) < maxOwn {
		p.own[repository+"@"+string(d)] = true
	}
}

// made reports whether a digest is our own word.
func (p *public) made(repository string, d oci.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.own[repository+"@"+string(d)] || len(p.own) >= maxOwn
}

func (p *public) has(repository string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.until[repository])
}

// any reports whether the endpoint has answered a request without a login lately.
func (p *public) any(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.some)
}

// answered notes that the endpoint has answered a request without a login.
func (p *public) answered(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.some = now.Add(publicFor)
}

func (p *public) add(repository string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil || len(p.until) >= maxPublic {
		p.until = make(map[string]time.Time)
	}
	p.until[repository] = now.Add(publicFor)
}

// drop takes back that a repository is public.
func (p *public) drop(repository string) (was bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, was = p.until[repository]
	delete(p.until, repository)
	return was
}

// provenBy notes that the endpoint has shown a manifest of the repository without a login, where that is what an answer shows:
// a document with parts, by the registry itself, whose bytes have the digest that it announced or was asked by. A digest that
// was made from the bytes of an answer without one announces nothing when it is asked for later. What an endpoint shows to
// our certificate is shown to a login.
func (c *call) provenBy(resp *answer, m *oci.Manifest, announced bool) {
	// Not by way of a redirect, either: that may lead to a manifest of a repository that is open, and back.
	asked := c.ep.At(manifestPath(c.repository, c.reference), "")
	switch {
	case !c.cred.IsAnonymous() || guard.Public && c.ep.Certified() || resp.url.String() != asked.String() ||
		len(m.Children) == 0 || !oci.IsManifest(m.MediaType):
	case !announced:
		c.ep.public.make(c.repository, m.Digest)
	case resp.Header.Get("Docker-Content-Digest") == "" && c.ep.public.made(c.repository, m.Digest):
	default:
		c.ep.public.add(c.repository, time.Now())
	}
}

// closed takes back that a repository is public: its registry has refused it to a request without a login.
func (c *call) closed(status int) {
	if status != http.StatusUnauthorized && status != http.StatusForbidden {
		return
	}
	if c.ep.public.drop(c.repository) && c.o.Public {
		c.o.Log.Info("repository is no longer public; it is asked for without a credential", "repository", c.name)
	}
}
