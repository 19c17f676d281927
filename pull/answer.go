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

// roomWait is how long a request waits for memory to read cached content. After that it is treated as if the content were not
// cached.
const roomWait = 3 * time.Second

// errGone says that a manifest was in the cache a moment ago.
var errGone = errors.New("the manifest is no longer in the cache")

// readCost is how many bytes of memory it takes to read and check a manifest of n bytes.
func readCost(n int64) int64 { return 16<<10 + n + min(5*n, 4<<20) }

// roomToRead waits for memory for a cached manifest of n bytes.
func (p *Puller) roomToRead(ctx context.Context, hold *memory.Hold, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, min(roomWait, p.wait/8))
	defer cancel()
	return hold.Need(ctx, readCost(n))
}

// remembered is a manifest in memory. A large one is of use only with its bytes in the cache.
func (p *Puller) remembered(d oci.Digest) (*manifest, bool) {
	m, ok := p.hot.Get(d)
	if ok && m.bytes == nil {
		_, ok = p.cache.Stat(d)
	}
	return m, ok
}

// answer makes the content, and keeps the parts of the manifest cached for the client's next requests. Its error is errGone,
// a *memory.FullError, or the context's.
func (p *Puller) answer(ctx context.Context, ref oci.Ref, f fetched, head bool, s Status, now time.Time) (*Content, error) {
	c := &Content{Ref: ref, Digest: f.digest, MediaType: f.as, Size: f.size, Bytes: f.bytes, Status: s}
	if !oci.IsIndex(f.as) {
		c.Parts = f.parts[1:]
	}
	if f.bytes == nil && !head {
		if err := p.attach(ctx, c, f.whole); err != nil {
			return nil, err
		}
	}
	p.noteUse(f.manifest, head, now)
	return c, nil
}

// attach adds the bytes of a large manifest: from the cache, or where that has no room for them, those that have just been
// read.
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
		p.hot.Remove(c.Digest)
		return errGone
	}
	return p.inMemory(ctx, c, whole)
}

// nowhere is the source of content that can only be had from the cache.
var nowhere = cache.Source{
	Key:   "the cache alone",
	Fetch: func(context.Context, flight.Want) (flight.Body, error) { return nil, errGone },
}

// inMemory gives the content its bytes. They take memory until it is closed: once for all clients that are sent the same.
func (p *Puller) inMemory(ctx context.Context, c *Content, b []byte) error {
	leave, err := p.sending.take(ctx, p.memory, b)
	if err != nil {
		return err
	}
	c.Bytes, c.release = b, leave
	return nil
}

// sending knows the documents that are being sent from memory.
type sending struct {
	mu    sync.Mutex // guards what follows; a leaf
	known map[*byte]*sent
}

// sent is a document that is being sent to clients.
type sent struct {
	release func() // releases its memory
	clients int
}

// take waits for memory for a document, unless it has it already. The caller calls leave once.
func (s *sending) take(ctx context.Context, m *memory.Budget, b []byte) (leave func(), err error) {
	if len(b) <= largeManifest {
		return func() {}, nil
	}
	if s.join(b) {
		return s.leaver(b), nil
	}
	ctx, hold := m.Enter(ctx, memory.Answer)
	if err := hold.Need(ctx, int64(len(b))); err != nil {
		return nil, err
	}
	return s.offer(b, hold.Release), nil
}

// offer adds a document that has its memory, which is released when the last client has left; the caller counts as one.
func (s *sending) offer(b []byte, release func()) (leave func()) {
	if len(b) <= largeManifest {
		release()
		return func() {}
	}
	if s.join(b) { // another client has come first
		release()
		return s.leaver(b)
	}
	s.mu.Lock()
	if s.known == nil {
		s.known = make(map[*byte]*sent)
	}
	d := s.known[&b[0]]
	if d == nil {
		d = &sent{release: release}
		s.known[&b[0]] = d
		release = nil
	}
	d.clients++
	s.mu.Unlock()
	if release != nil {
		release()
	}
	return s.leaver(b)
}

// join adds a client to a document that has its memory.
func (s *sending) join(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.known[&b[0]]
	if d != nil {
		d.clients++
	}
	return d != nil
}

// leaver returns the function by which a client leaves.
func (s *sending) leaver(b []byte) func() {
	return sync.OnceFunc(func() {
		s.mu.Lock()
		d := s.known[&b[0]]
		d.clients--
		last := d.clients == 0
		if last {
			delete(s.known, &b[0])
		}
		s.mu.Unlock()
		if last {
			d.release()
		}
	})
}

// handOver is how long a fetched document keeps its memory for the requests that waited for it.
const handOver = 5 * time.Second

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
