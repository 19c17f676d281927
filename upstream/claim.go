package upstream

import (
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/registrymirror/mirror/oci"
)

// A blob is asked for with the size that its manifest gives it, and that is the word of a publisher. An endpoint that has
// another one is passed by, since the blob is of no use to the client, but that is no fault of the endpoint: else whoever
// can push an image could have the breakers of good endpoints opened. It is one where the endpoint contradicts what was
// said by an endpoint: by itself, or by another one of which the size is the one that the manifest gives.

// denial is an endpoint that has said another size than was claimed.
type denial struct {
	ep   *endpoint
	err  *fault
	size int64 // that it said
}

// maxSaid is how many sizes of blobs are remembered of each endpoint.
const maxSaid = 1024

// said are sizes of blobs as an endpoint has answered them to a HEAD.
type said struct {
	mu sync.Mutex // guards m; a leaf
	m  map[string]int64
}

func saidKey(repo string, d oci.Digest) string { return repo + "@" + d.String() }

func (s *said) put(repo string, d oci.Digest, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[string]int64)
	}
	for old := range s.m {
		if len(s.m) < maxSaid {
			break
		}
		delete(s.m, old) // any
	}
	s.m[saidKey(repo, d)] = size
}

func (s *said) is(repo string, d oci.Digest, size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.m[saidKey(repo, d)]
	return ok && n == size
}

// claimed reports whether the size that a transfer goes by is the word of a manifest alone.
func (t *transfer) claimed() bool {
	return t.claim > 0 && !slices.ContainsFunc(t.c.endpoints, func(ep *endpoint) bool {
		return ep.said.is(ep.prefix+t.c.name, t.digest, t.claim)
	})
}

// learnSize takes in the size that an answer says. It may not change, nor be less than the range needs, nor, where there
// is another endpoint to ask, be another than was claimed.
func (t *transfer) learnSize(size int64) error {
	switch {
	case size < 0:
		return nil
	case t.size >= 0 && size != t.size:
		return t.wrong(ContentSize, fmt.Sprintf("%d bytes, as before", t.size), fmt.Sprintf("%d bytes", size))
	case t.claim > 0 && size != t.claim && (size < max(t.end, t.pos) || len(t.c.endpoints) > 1):
		return t.deny(size)
	case size < t.end, size < t.pos:
		return t.wrong(ContentSize, fmt.Sprintf("at least %d bytes", max(t.end, t.pos)), fmt.Sprintf("%d bytes", size))
	}
	t.size = size
	if size == t.claim {
		t.confirm()
	}
	return nil
}

// deny is the error of an endpoint that has another size than was claimed.
func (t *transfer) deny(size int64) *fault {
	if !t.claimed() {
		return t.wrong(ContentSize, fmt.Sprintf("%d bytes, as before", t.claim), fmt.Sprintf("%d bytes", size))
	}
	f := t.wrongBy(&ContentError{
		Kind: ContentSize, Want: fmt.Sprintf("%d bytes, by its manifest", t.claim), Got: fmt.Sprintf("%d bytes", size),
		Claimed: true,
	})
	t.denied = append(t.denied, denial{t.c.ep, f, size})
	return f
}

// beyond is what a refusal of bytes behind a blob's end says of its size.
func (t *transfer) beyond(err error) error {
	r, ok := refusalIn(err)
	if !ok || r.status != http.StatusRequestedRangeNotSatisfiable {
		return err
	}
	size := r.size
	if size < 0 && t.early.ep == t.c.ep {
		size = t.endedAt
	}
	if size < 0 || size == t.claim || size == t.size || !t.claimed() {
		return err
	}
	if t.early.ep == t.c.ep {
		t.early = denial{}
	}
	return t.deny(size)
}

// judge notes the answers of those who have denied a claim that no endpoint has confirmed.
func (t *transfer) judge() {
	for _, d := range t.denied {
		t.noteAt(d.ep, d.err)
	}
	t.denied = nil
}

// blame holds an early end of a body against its endpoint, once it is not explained by a blob that is shorter than was
// claimed.
func (t *transfer) blame() {
	if d := t.early; d.ep != nil {
		t.early = denial{}
		t.noteAt(d.ep, d.err)
	}
}

// noteAt notes how a request to an endpoint has ended that is not the one which is asked now.
func (t *transfer) noteAt(ep *endpoint, f *fault) {
	here := t.c.ep
	t.c.ep = ep
	t.c.note(t.ctx, blobs, f)
	t.c.ep = here
}

// confirm holds it against those that have denied a size that an endpoint has: it was no invention.
func (t *transfer) confirm() {
	for _, d := range t.denied {
		f := *d.err
		f.err = &ContentError{
			Kind: ContentSize, Want: fmt.Sprintf("%d bytes, as %s has", t.claim, t.c.ep.name),
			Got: fmt.Sprintf("%d bytes", d.size),
		}
		t.noteAt(d.ep, &f)
	}
	t.denied = nil
}
