package transfer

import (
	"fmt"
	"net/http"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// A blob is asked for with the size in its manifest, which only its publisher has claimed. If an endpoint says another size,
// the next one is asked, since the blob is of no use to the client; but that is not a fault of the endpoint: otherwise anyone
// that can push an image could open the breakers of good endpoints. It is a fault if the endpoint contradicts what it has said
// itself, or if another endpoint has the claimed size.

// claim is the size of a blob that its caller expects, and which endpoints contradict it.
type claim struct {
	size    int64    // mostly from a manifest; 0: not known
	denied  []denial // other sizes that endpoints have said
	early   denial   // an answer that ended cleanly before its time, at endedAt, which nothing has explained yet
	endedAt int64
}

// denial is an endpoint that contradicts a claim.
type denial struct {
	ep   *endpoint.Endpoint // nil: there is none
	err  *fault.Failure
	size int64 // that it said; -1: it said none
}

// maxSizes is how many sizes of blobs are remembered of each endpoint.
const maxSizes = 1024

// blobKey is a blob of a repository.
func blobKey(repo string, d oci.Digest) string { return repo + "@" + d.String() }

// claimed reports whether the expected size is the word of a manifest alone.
func (t *transfer) claimed() bool {
	if t.claim.size <= 0 {
		return false
	}
	for _, s := range t.pool.sites {
		if size, ok := s.sizes.Get(blobKey(t.applicant.repo, t.digest)); ok && size == t.claim.size {
			return false
		}
	}
	return true
}

// learnSize takes in the size that an answer says. It may not change, nor be less than the range needs, nor, where there is
// another endpoint to ask, differ from the claim.
func (t *transfer) learnSize(size int64) error {
	claim := t.claim.size
	switch {
	case size < 0:
		return nil
	case t.size >= 0 && size != t.size:
		return t.wrongContent(fault.WrongSize(t.size, "as before", size))
	case claim > 0 && size != claim && (size < max(t.end, t.pos) || len(t.pool.endpoints) > 1):
		return t.deny(size)
	case size < t.end, size < t.pos:
		return t.wrong(fault.ContentSize, fmt.Sprintf("at least %d bytes", max(t.end, t.pos)), fmt.Sprintf("%d bytes", size))
	}
	t.size = size
	if size == claim {
		t.confirm()
	}
	return nil
}

// deny is the failure of an endpoint that has another size than was claimed.
func (t *transfer) deny(size int64) *fault.Failure {
	if t.claimed() {
		return t.denyAs(fault.WrongClaim(t.claim.size, size), size)
	}
	return t.wrongContent(fault.WrongSize(t.claim.size, "as before", size))
}

// denyAs is the failure of an endpoint whose size is not the claimed one. It is recorded once it is known which is right.
func (t *transfer) denyAs(e *fault.ContentError, size int64) *fault.Failure {
	f := t.wrongContent(e)
	if e.Claimed {
		t.claim.denied = append(t.claim.denied, denial{t.ep, f, size})
	}
	return f
}

// beyond is err, or what it says of the blob's size where it refuses bytes behind the end (416).
func (t *transfer) beyond(err error) error {
	r, ok := fault.RefusalIn(err)
	if !ok || r.Status != http.StatusRequestedRangeNotSatisfiable {
		return err
	}
	size := r.Size
	if size < 0 && t.claim.early.ep == t.ep {
		size = t.claim.endedAt
	}
	if size < 0 || size == t.claim.size || size == t.size || !t.claimed() {
		return err
	}
	if t.claim.early.ep == t.ep {
		t.claim.early = denial{}
	}
	return t.deny(size)
}

// blameDenials records the denials at their endpoints. No endpoint has confirmed the claim, so they are answers.
func (t *transfer) blameDenials() {
	for _, d := range t.claim.denied {
		d.record(t)
	}
	t.claim.denied = nil
}

// blameEarly records an early end at its endpoint. A blob that is shorter than was claimed did not explain it.
func (t *transfer) blameEarly() {
	if d := t.claim.early; d.ep != nil {
		t.claim.early = denial{}
		d.record(t)
	}
}

func (d denial) record(t *transfer) { d.ep.Health.Record(t.ctx, endpoint.Blobs, d.err) }

// confirm records a wrong size at the endpoints that have denied the claim: now another endpoint has said the claimed size, too.
func (t *transfer) confirm() {
	for _, d := range t.claim.denied {
		f := *d.err
		f.Err = fault.WrongSize(t.claim.size, fmt.Sprintf("as %s has", t.ep.Name), d.size)
		d.err = &f
		d.record(t)
	}
	t.claim.denied = nil
}
