package upstream

import (
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// A blob is asked for with the size that its manifest gives it, which only a publisher has claimed. If an endpoint says
// another size, the next one is asked, since the blob is of no use to the client; but that is not a fault of the endpoint:
// else a person that can push an image could have the breakers of good endpoints opened. It is a fault if the endpoint
// contradicts what it has said itself, or if another endpoint has the size that the manifest gives.

// denial is an endpoint that has said another size than was claimed.
type denial struct {
	ep   *target
	err  *fault.Failure
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
	return t.claim > 0 && !slices.ContainsFunc(t.c.endpoints, func(ep *target) bool {
		return ep.said.is(ep.Prefix+t.c.name, t.digest, t.claim)
	})
}

// learnSize takes in the size that an answer says. It may not change, nor be less than the range needs, nor, where there
// is another endpoint to ask, be another than was claimed.
func (t *transfer) learnSize(size int64) error {
	switch {
	case size < 0:
		return nil
	case t.size >= 0 && size != t.size:
		return t.wrong(fault.ContentSize, fmt.Sprintf("%d bytes, as before", t.size), fmt.Sprintf("%d bytes", size))
	case t.claim > 0 && size != t.claim && (size < max(t.end, t.pos) || len(t.c.endpoints) > 1):
		return t.deny(size)
	case size < t.end, size < t.pos:
		return t.wrong(fault.ContentSize, fmt.Sprintf("at least %d bytes", max(t.end, t.pos)), fmt.Sprintf("%d bytes", size))
	}
	t.size = size
	if size == t.claim {
		t.confirm()
	}
	return nil
}

// deny is the error of an endpoint that has another size than was claimed.
func (t *transfer) deny(size int64) *fault.Failure {
	if !t.claimed() {
		return t.wrong(fault.ContentSize, fmt.Sprintf("%d bytes, as before", t.claim), fmt.Sprintf("%d bytes", size))
	}
	f := t.wrongBy(&fault.ContentError{
		Kind: fault.ContentSize, Want: fmt.Sprintf("%d bytes, by its manifest", t.claim), Got: fmt.Sprintf("%d bytes", size),
		Claimed: true,
	})
	t.denied = append(t.denied, denial{t.c.ep, f, size})
	return f
}

// denyCoded is deny where the answer is said to be in a coding, which explains another size better than a wrong claim does.
// As long as the size is only a claim, that is not a fault of the endpoint.
func (t *transfer) denyCoded(size int64, coding string) *fault.Failure {
	e := &fault.ContentError{Kind: fault.ContentEncoding, Want: "identity", Got: coding, Claimed: t.claimed()}
	f := t.wrongBy(e)
	if e.Claimed {
		t.denied = append(t.denied, denial{t.c.ep, f, size})
	}
	return f
}

// beyond is what a refusal of bytes behind a blob's end says of its size.
func (t *transfer) beyond(err error) error {
	r, ok := fault.RefusalIn(err)
	if !ok || r.Status != http.StatusRequestedRangeNotSatisfiable {
		return err
	}
	size := r.Size
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

// judge notes the denials of a claim at their endpoints, where no endpoint has confirmed the claim.
func (t *transfer) judge() {
	for _, d := range t.denied {
		t.noteAt(d.ep, d.err)
	}
	t.denied = nil
}

// blame notes an early end of a body at its endpoint, once a blob that is shorter than was claimed does not explain it.
func (t *transfer) blame() {
	if d := t.early; d.ep != nil {
		t.early = denial{}
		t.noteAt(d.ep, d.err)
	}
}

// noteAt notes how a request to an endpoint has ended, where another endpoint is asked by now.
func (t *transfer) noteAt(ep *target, f *fault.Failure) {
	here := t.c.ep
	t.c.ep = ep
	t.c.note(t.ctx, blobs, f)
	t.c.ep = here
}

// confirm notes a wrong size at the endpoints that have denied the claim, once another endpoint has said that size, too.
func (t *transfer) confirm() {
	for _, d := range t.denied {
		f := *d.err
		f.Err = &fault.ContentError{
			Kind: fault.ContentSize, Want: fmt.Sprintf("%d bytes, as %s has", t.claim, t.c.ep.Name),
			Got: fmt.Sprintf("%d bytes", d.size),
		}
		t.noteAt(d.ep, &f)
	}
	t.denied = nil
}
