package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// Allocator is implemented by spools that can take space of the disk ahead of the writes, so that a full disk is known
// before a write fails.
type Allocator interface {
	// Allocate takes n bytes at off. Where the file system can't, nothing happens.
	Allocate(off, n int64) error
}

// create is for flights: it makes the spool of a blob. Nothing is reserved for it before its first byte: until then only a
// manifest says that the blob has any.
func (c *Cache) create(d oci.Digest, size int64) (Spool, error) {
	s := &spool{c: c, size: size}
	err := s.make()
	if err == nil && !guard.Arrival && size > 0 {
		err = s.reserve(size)
	}
	if err != nil {
		c.spoolFailed.Store(d, struct{}{})
		return nil, err
	}
	return s, nil
}

// newReservedSpool makes a spool with all of its bytes reserved.
func newReservedSpool(c *Cache, size int64) (*spool, error) {
	s := &spool{c: c, size: size}
	if err := s.reserve(size); err != nil {
		return nil, err
	}
	defer s.placed(size)
	s.limit.Store(size)
	err := s.make()
	if err == nil {
		if err = s.allocate(0, size); err == nil {
			return s, nil
		}
		_ = s.Spool.Discard()
	}
	s.end()
	return nil, err
}

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// spool is a store's spool with its reservation, which follows what is written.
type spool struct {
	Spool
	c       *Cache
	size    int64        // of the blob, in bytes; -1: not known
	written atomic.Int64 // bytes
	limit   atomic.Int64 // bytes that may be written: room.reserved, for use without the lock
	growing sync.Mutex   // one growth at a time; taken before all of the cache's locks

	// Guarded by Cache.mu.
	room reservation
	held *hold // on the content that it became

	reading positions
}

// make has the store make the spool.
func (s *spool) make() (err error) {
	store := s.c.o.Store
	s.Spool, err = store.Create(s.size)
	if noSpace(err) && s.c.evictFor(minAhead) {
		// The disk has less than it said, or than this user may have: other programs write to it as well.
		s.Spool, err = store.Create(s.size)
	}
	if err != nil {
		s.c.health.fail(err)
	}
	return err
}

// WriteAt writes within the reservation, which grows. Each byte is written once.
func (s *spool) WriteAt(p []byte, off int64) (int, error) {
	if s.written.Add(int64(len(p))) > s.limit.Load() {
		if err := s.grow(off); err != nil {
			return 0, err
		}
	}
	n, err := s.Spool.WriteAt(p, off)
	if err != nil {
		s.c.health.fail(err)
	}
	return n, err
}

// grow has the reservation cover the bytes written, and some ahead; where there is no room for these, only the written ones.
// off is where the disk is going to be written to.
func (s *spool) grow(off int64) error {
	s.growing.Lock()
	defer s.growing.Unlock()
	written, limit := s.written.Load(), s.limit.Load()
	if written <= limit {
		return nil // another write was faster
	}
	if s.size >= 0 {
		if err := s.claim(written); err != nil {
			return err
		}
	}
	var err error
	for _, to := range []int64{written + min(max(written, minAhead), maxAhead), written} {
		if s.size >= 0 {
			to = max(min(to, s.size), written)
		}
		n := to - limit
		if err = s.reserve(n); errors.Is(err, ErrNoRoom) {
			continue
		}
		if err == nil {
			err = s.allocate(off, n)
			s.placed(n)
		}
		if err == nil {
			s.unpark()
		}
		return err
	}
	return err
}

// allocate takes n bytes of the disk at off.
func (s *spool) allocate(off, n int64) error {
	a, ok := s.Spool.(Allocator)
	if !ok || s.size < 0 {
		return nil
	}
	n = min(n, s.size-off)
	if n <= 0 {
		return nil
	}
	err := a.Allocate(off, n)
	if noSpace(err) && s.c.evictFor(n) {
		err = a.Allocate(off, n)
	}
	if noSpace(err) {
		s.c.health.refresh()
		return &NoRoomError{Need: n, Why: DiskLacks, Size: s.c.o.Size, Disk: s.c.health.now(), Err: err}
	}
	if err != nil {
		s.c.health.fail(err)
	}
	return err
}

// unpark lets a spool be written to as far as its reservation goes.
func (s *spool) unpark() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.budget.unpark(&s.room)
	s.limit.Store(s.room.reserved)
}

// Park gives back the bytes that were reserved ahead.
func (s *spool) Park() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.room.ended || s.room.parked {
		return
	}
	s.c.budget.park(&s.room, s.written.Load())
	s.limit.Store(s.room.reserved)
	s.c.freed.send()
}

// Commit turns the reservation into stored content.
func (s *spool) Commit(d oci.Digest, size int64) error {
	l := s.c.stripes.of(d)
	l.Lock()
	defer l.Unlock()
	if err := s.Spool.Commit(d, size); err != nil {
		s.c.health.fail(err)
		return err
	}
	s.c.health.stored()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.budget.end(&s.room)
	e := s.c.add(d, size, true)
	s.held = &hold{o: s} // until it is discarded
	s.c.budget.hold(e, s.held, time.Now())
	return nil
}

// Discard gives back what is still reserved.
func (s *spool) Discard() error {
	err := s.Spool.Discard()
	s.end()
	return err
}

// Close takes the files of committed content from its readers, which go on from their own sources. A reader that asks for
// nothing meanwhile keeps the download from discarding its spool, so that happens here.
func (s *spool) Close() error {
	s.reading.close()
	return s.Discard()
}

// end ends the reservation.
func (s *spool) end() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.budget.end(&s.room)
	if s.held != nil {
		s.c.budget.release(s.held)
		s.held = nil
	}
	s.c.freed.send()
}

// ReadAt reads what is written.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if s.reading.closed.Load() {
		return 0, fmt.Errorf("read spool: %w", errTaken)
	}
	return s.Spool.ReadAt(p, off)
}

// errTaken ends reads of content that was evicted, by readers whose file was closed for its space.
var errTaken = fmt.Errorf("it was read slowly, and its space is needed: %w", fs.ErrClosed)

// Open gives a reader a file position of its own, which the cache can close.
func (s *spool) Open() (Object, error) {
	o, err := s.Spool.Open()
	if err == nil {
		err = s.reading.add(o)
	}
	return o, err
}

// positions are the open files of the readers of a spool.
type positions struct {
	closed atomic.Bool
	mu     sync.Mutex // guards open; a leaf
	open   map[Object]struct{}
}

func (p *positions) add(o Object) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		_ = o.Close()
		return fmt.Errorf("open spool: %w", errTaken)
	}
	n, ok := o.(CloseNotifier)
	if !ok {
		return nil
	}
	if p.open == nil {
		p.open = make(map[Object]struct{})
	}
	p.open[o] = struct{}{}
	n.OnClose(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, o)
	})
	return nil
}

// close closes all of them, and there are no more.
func (p *positions) close() {
	p.mu.Lock()
	p.closed.Store(true)
	list := make([]Object, 0, len(p.open))
	for o := range p.open {
		list = append(list, o)
	}
	p.mu.Unlock()
	for _, o := range list {
		_ = o.Close()
	}
}
