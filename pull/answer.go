package pull

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// largeManifest is above how many bytes a manifest is sent from the cache, by sendfile, as blobs are: then it doesn't matter
// to the mirror's memory how many clients take how many of them, and how slowly. Those below it cost no more than the
// connections that they go out on.
const largeManifest = 64 << 10

// roomWait is how long a request waits for memory to read what is in the cache, before it goes where it would go if that
// were not there.
const roomWait = 3 * time.Second

// errGone says that a manifest was in the cache a moment ago.
var errGone = errors.New("the manifest is no longer in the cache")

// readCost is what a manifest of n bytes takes to be read and checked.
func readCost(n int64) int64 { return 16<<10 + n + min(5*n, 4<<20) }

// roomToRead waits for memory for a cached manifest of n bytes.
func (p *Puller) roomToRead(ctx context.Context, hold *memory.Hold, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, min(roomWait, p.wait/8))
	defer cancel()
	return hold.Need(ctx, readCost(n))
}

// remembered is a manifest in memory. A large one is of use only with its bytes in the cache.
func (p *Puller) remembered(d oci.Digest) (*manifest, bool) {
	m, ok := p.hot.get(d)
	if ok && m.bytes == nil {
		_, ok = p.cache.Stat(d)
	}
	return m, ok
}

// answer makes the content, and sees to it that what the client comes for next is still there then. Its error is errGone,
// a *memory.FullError, or the context's.
func (p *Puller) answer(ctx context.Context, ref oci.Ref, f fetched, head bool, s Status, now time.Time) (*Content, error) {
	c := &Content{Ref: ref, Digest: f.digest, MediaType: f.as, Size: f.size, Bytes: f.bytes, Status: s}
	if f.bytes == nil && !head {
		if err := p.attach(ctx, c, f.whole); err != nil {
			return nil, err
		}
	}
	p.tend(f.manifest, head, now)
	return c, nil
}

// attach adds the bytes of a large manifest: out of the cache, or those that have just been read, where it has no room for
// them.
func (p *Puller) attach(ctx context.Context, c *Content, whole []byte) error {
	o, _, err := p.cache.Open(ctx, c.Digest, c.Size, nowhere)
	if err == nil && o.Size() == c.Size {
		c.Object = o
		return nil
	}
	if err == nil {
		_ = o.Close()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if whole == nil {
		p.hot.remove(c.Digest)
		return errGone
	}
	return p.inMemory(ctx, c, whole)
}

// nowhere is the source of what can only be had from the cache.
var nowhere = cache.Source{
	Key:   "the cache alone",
	Fetch: func(context.Context, flight.Want) (flight.Body, error) { return nil, errGone },
}

// inMemory gives the content its bytes, which count as an answer's until it is closed: once for all who are sent the same.
func (p *Puller) inMemory(ctx context.Context, c *Content, b []byte) error {
	release, err := p.sending.take(ctx, p.memory, b)
	if err != nil {
		return err
	}
	c.Bytes, c.release = b, release
	return nil
}

// sending knows what is being sent from memory.
type sending struct {
	mu    sync.Mutex // guards what follows; a leaf
	known map[*byte]*sent
}

// sent is a document that clients take.
type sent struct {
	hold    *memory.Hold
	clients int
}

// take waits for room for a document, unless it is on its way to somebody. The caller releases it once.
func (s *sending) take(ctx context.Context, m *memory.Budget, b []byte) (release func(), err error) {
	if len(b) <= largeManifest {
		return func() {}, nil
	}
	id := &b[0]
	if s.join(id, nil) {
		return s.leaver(id), nil
	}
	ctx, hold := m.Enter(ctx, memory.Answer)
	if err := hold.Need(ctx, int64(len(b))); err != nil {
		return nil, err
	}
	s.join(id, hold)
	return s.leaver(id), nil
}

// join adds a client. Without a hold it needs another one to be there.
func (s *sending) join(id *byte, hold *memory.Hold) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.known[id]
	switch {
	case d != nil && hold != nil:
		hold.Release() // another client has come first
	case d == nil && hold == nil:
		return false
	case d == nil:
		if s.known == nil {
			s.known = make(map[*byte]*sent)
		}
		d = &sent{hold: hold}
		s.known[id] = d
	}
	d.clients++
	return true
}

// leaver returns what ends a client's part.
func (s *sending) leaver(id *byte) func() {
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		d := s.known[id]
		if d.clients--; d.clients == 0 {
			d.hold.Release()
			delete(s.known, id)
		}
	})
}

// document is an answer to a question for a list. The next page is asked for at the same path.
func (p *Puller) document(ctx context.Context, ref oci.Ref, doc *upstream.Document, s Status) (*Content, error) {
	c := &Content{
		Ref: ref, MediaType: doc.MediaType, Size: int64(len(doc.Bytes)), Filters: doc.Filters, Status: s,
	}
	if doc.Next != "" {
		c.Link = "?" + doc.Next
	}
	if err := p.inMemory(ctx, c, doc.Bytes); err != nil {
		return nil, err
	}
	return c, nil
}
