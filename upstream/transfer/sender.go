package transfer

import (
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

const (
	// maxSenders is how many blobs are remembered with the endpoint that sent them, and with one that sent them wrong.
	maxSenders = 1024
	// avoidFor is how long an endpoint that has sent a blob wrong is asked for it after the others.
	avoidFor = 10 * time.Minute
)

// senders remembers which endpoint has sent the bytes of a blob, for when their reader finds that they do not have its digest.
type senders struct {
	wrong bounded.Expiring[string, *endpoint.Endpoint] // by blob

	mu   sync.Mutex                    // guards last
	last map[string]*endpoint.Endpoint // by blob; nil: several
}

// add records that an endpoint sends bytes of a blob. First: those at its beginning, with which a download begins.
func (s *senders) add(blob string, e *endpoint.Endpoint, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, known := s.last[blob]; known && !first && old != e {
		e = nil
	}
	bounded.Put(&s.last, blob, e, maxSenders)
}

// blame returns the endpoint that has sent all bytes of a blob, and records that they were wrong. Nil: it is not known, or
// there were several.
func (s *senders) blame(blob string) *endpoint.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.last[blob]
	delete(s.last, blob)
	if e != nil {
		s.wrong.Put(blob, e, avoidFor, maxSenders)
	}
	return e
}

// avoid puts an endpoint that has sent a blob wrong after the others.
func (s *senders) avoid(blob string, order []*endpoint.Endpoint) []*endpoint.Endpoint {
	wrong, _ := s.wrong.Get(blob)
	return toEnd(order, wrong)
}

// Corrupt reports that the bytes of a blob that were sent last do not have its digest. If one endpoint has sent them all, it is
// asked for this blob after the others, and for all blobs once that has happened three times.
func (p *Pool) Corrupt(repo string, d oci.Digest, err error) {
	if e := p.senders.blame(blobKey(repo, d)); e != nil {
		e.Health.Corrupt(err)
	}
}

// Reset makes all endpoints be asked in their order again, whatever they have sent.
func (p *Pool) Reset() { p.senders.wrong.Clear() }
