package login

import (
	"net/http"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

const (
	publicFor = 24 * time.Hour // for which a repository counts as public after it has shown a manifest without a login
	maxPublic = 16_384         // repositories that are remembered; more of them are asked for anonymously more often
	maxMade   = 4096           // digests in public.made; once it is full, each digest that an answer does not announce counts as one
)

// public are the repositories of an endpoint that have shown a manifest, whose bytes were right, to a request without a
// login. No other answer proves that all clients may read a repository: a login page, a redirect to one, a list of tags or
// the headers of a HEAD may come before content that is closed.
type public struct {
	repositories bounded.Expiring[string, struct{}]
	answers      bounded.Expiring[struct{}, struct{}] // one, if the endpoint has answered any request without a login

	mu   sync.Mutex      // guards made; a leaf
	made map[string]bool // by repository and digest: computed here, of bytes for which the registry announced no digest
}

// addMade records a digest that was computed here.
func (p *public) addMade(repository string, d oci.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made == nil {
		p.made = make(map[string]bool)
	}
	if len(p.made) < maxMade {
		p.made[repository+"@"+string(d)] = true
	}
}

func (p *public) isMade(repository string, d oci.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made[repository+"@"+string(d)] || len(p.made) >= maxMade
}

// IsPublic reports whether a repository, by the endpoint's name for it, has shown a manifest without a login lately.
func (e *Known) IsPublic(repository string) bool { return e.public.repositories.Has(repository) }

// AnswersAnonymously reports whether the endpoint has answered any request without a login lately.
func (e *Known) AnswersAnonymously() bool { return e.public.answers.Has(struct{}{}) }

// NoteManifest records that the repository is public, if the answer to a request for a manifest shows it: a document with
// parts, sent by the registry itself to a request without a login, whose bytes have the digest that it announced or was asked
// by. A digest that was computed here announces nothing when it is asked for later. What an endpoint shows to our certificate
// is shown to a login. Redirected says that the answer came by a redirect, which may lead to a manifest of another repository.
func (t *Transport) NoteManifest(m *oci.Manifest, h http.Header, announced, redirected bool) {
	switch {
	case !t.Credential.IsAnonymous() || guard.Public && t.ep.Certified() || redirected || len(m.Children) == 0 ||
		!oci.IsManifest(m.MediaType):
	case !announced:
		t.ep.public.addMade(t.repository, m.Digest)
	case h.Get("Docker-Content-Digest") == "" && t.ep.public.isMade(t.repository, m.Digest):
	default:
		t.ep.public.repositories.Put(t.repository, struct{}{}, publicFor, maxPublic)
	}
}

// noteClosed takes back that the repository is public, since the registry refused it to an anonymous request with a status.
func (t *Transport) noteClosed(status int) {
	if status != http.StatusUnauthorized && status != http.StatusForbidden {
		return
	}
	if t.ep.public.repositories.Delete(t.repository) && t.up.o.Public {
		t.up.o.Log.Info("repository is no longer public; asking for it without a credential", "repository", t.op.Name)
	}
}
