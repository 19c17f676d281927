package cachetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"sync"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// Store is a cache.Store in memory.
type Store struct {
	mu     sync.Mutex // guards the fields below
	blobs  map[oci.Digest][]byte
	spools int
}

var _ cache.Store = (*Store)(nil)

// NewStore makes an empty store.
func NewStore() *Store { return &Store{blobs: make(map[oci.Digest][]byte)} }

// Open returns the content.
func (s *Store) Open(d oci.Digest) (cache.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[d]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", d, cache.ErrNotFound)
	}
	return &object{ReadSeeker: bytes.NewReader(b), at: bytes.NewReader(b), size: int64(len(b))}, nil
}

// Create makes a spool.
func (s *Store) Create(size int64) (cache.Spool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spools++
	return &spool{s: s, size: size}, nil
}

// Remove takes the content away.
func (s *Store) Remove(d oci.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, d)
	return nil
}

// All yields a snapshot.
func (s *Store) All() iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		s.mu.Lock()
		blobs := maps.Clone(s.blobs)
		s.mu.Unlock()
		for d, b := range blobs {
			if !yield(cache.Entry{Digest: d, Size: int64(len(b))}, nil) {
				return
			}
		}
	}
}

// Resume returns nothing: memory does not outlive the process.
func (s *Store) Resume() []cache.Unfinished { return nil }

// Check knows of nothing that is wrong.
func (s *Store) Check() error { return nil }

// Spools is how many spools are neither discarded nor, after a commit, closed by Discard.
func (s *Store) Spools() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spools
}

// Damage replaces the bytes under a digest, as a failing disk does.
func (s *Store) Damage(d oci.Digest, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[d] = bytes.Clone(b)
}

// object is read-only bytes.
type object struct {
	io.ReadSeeker
	at   io.ReaderAt
	size int64
	once sync.Once
	done func()
}

func (o *object) Size() int64                             { return o.size }
func (o *object) ReadAt(p []byte, off int64) (int, error) { return o.at.ReadAt(p, off) }
func (o *object) OnClose(f func())                        { o.done = f }

func (o *object) Close() error {
	o.once.Do(func() {
		if o.done != nil {
			o.done()
		}
	})
	return nil
}

// spool grows as it is written to.
type spool struct {
	s    *Store
	size int64

	mu        sync.RWMutex // guards the fields below; the store's is taken while holding it
	data      []byte
	committed bool
	discarded bool
}

func (p *spool) WriteAt(b []byte, off int64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.discarded {
		return 0, fmt.Errorf("write spool: %w", fs.ErrClosed)
	}
	if end := int(off) + len(b); end > len(p.data) {
		p.data = append(p.data, make([]byte, end-len(p.data))...)
	}
	return copy(p.data[off:], b), nil
}

func (p *spool) ReadAt(b []byte, off int64) (int, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.discarded {
		return 0, fmt.Errorf("read spool: %w", fs.ErrClosed)
	}
	return p.read(b, off)
}

func (p *spool) read(b []byte, off int64) (int, error) {
	if off >= int64(len(p.data)) {
		return 0, io.EOF
	}
	n := copy(b, p.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (p *spool) Commit(d oci.Digest, size int64) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("commit %q: %w", string(d), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.discarded || p.committed {
		return fmt.Errorf("commit %s: spool has ended: %w", d, fs.ErrClosed)
	}
	if int64(len(p.data)) < size {
		return fmt.Errorf("commit %s: spool holds %d bytes, expected %d", d, len(p.data), size)
	}
	p.committed = true
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.blobs[d] = bytes.Clone(p.data[:size])
	return nil
}

func (p *spool) Discard() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.discarded {
		return nil
	}
	p.discarded = true
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.spools--
	return nil
}

// Open gives a reader of its own, which sees what is written from now on, too.
func (p *spool) Open() (cache.Object, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.discarded {
		return nil, fmt.Errorf("open spool: %w", fs.ErrClosed)
	}
	size := p.size
	if size < 0 {
		size = int64(len(p.data))
	}
	v := &view{p: p}
	return &object{ReadSeeker: io.NewSectionReader(v, 0, 1<<62), at: v, size: size}, nil
}

// Park does nothing: memory is not reserved.
func (p *spool) Park() {}

// Keep keeps nothing: memory does not outlive the process.
func (p *spool) Keep(flight.Rest) error { return errors.ErrUnsupported }

// view reads the spool after Discard, too: as an open file does.
type view struct{ p *spool }

func (v *view) ReadAt(b []byte, off int64) (int, error) {
	v.p.mu.RLock()
	defer v.p.mu.RUnlock()
	return v.p.read(b, off)
}

// Index is a cache.Index in memory.
type Index struct {
	mu     sync.Mutex // guards the fields below
	used   map[oci.Digest]cache.Access
	writes int
	err    error
}

var _ cache.Index = (*Index)(nil)

// NewIndex makes an empty index.
func NewIndex() *Index { return &Index{used: make(map[oci.Digest]cache.Access)} }

// Write records a batch.
func (x *Index) Write(used []cache.Access, removed []oci.Digest) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.writes++
	if x.err != nil {
		return x.err
	}
	for _, d := range removed {
		delete(x.used, d)
	}
	for _, a := range used {
		a.Used = a.Used.Truncate(time.Minute)
		x.used[a.Digest] = a
	}
	return nil
}

// Load returns a copy.
func (x *Index) Load() (map[oci.Digest]cache.Access, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.used), nil
}

// Writes is how many batches were written.
func (x *Index) Writes() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.writes
}

// Fail has every Write fail with err from now on; nil ends that.
func (x *Index) Fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.err = err
}

// Forget drops all that is recorded, as a damaged index does.
func (x *Index) Forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.used)
}
