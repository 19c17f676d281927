package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// Allocator is implemented by spools that can take space of the disk ahead of the writes, so that a full disk is known
// before they fail.
type Allocator interface {
	// Allocate takes n bytes at off. Where the file system can't, nothing happens.
	Allocate(off, n int64) error
}

// create is for flights: it makes the spool of a blob. Nothing is reserved for it before its first byte: until then only a
// manifest says that the blob has any.
func (c *Cache) create(d oci.Digest, size int64) (Spool, error) {
	s := &spool{c: c, size: size}
	err := c.makeSpool(s)
	if err == nil && !guard.Arrival && size > 0 {
		err = c.reserve(s, size)
	}
	if err != nil {
		c.failed.Store(d, struct{}{})
		return nil, err
	}
	return s.withPositions(), nil
}

// reservedSpool makes a spool with all of its bytes reserved.
func (c *Cache) reservedSpool(size int64) (Spool, error) {
	s := &spool{c: c, size: size}
	if err := c.reserve(s, size); err != nil {
		return nil, err
	}
	s.limit.Store(size)
	err := c.makeSpool(s)
	if err == nil {
		if err = s.allocate(0, size); err != nil {
			_ = s.Spool.Discard()
		}
	}
	c.placed(size)
	if err != nil {
		s.end()
		return nil, err
	}
	return s.withPositions(), nil
}

// makeSpool has the store make s's spool.
func (c *Cache) makeSpool(s *spool) (err error) {
	s.Spool, err = c.o.Store.Create(s.size)
	if noSpace(err) && c.evictFor(firstStep) {
		// The disk has less than it said, or than we were told we may use: others write to it as well.
		s.Spool, err = c.o.Store.Create(s.size)
	}
	if err != nil {
		c.diskFailed(err)
	}
	return err
}

// evictFor evicts n bytes, for a disk that has less than it says. It reports whether anything went.
func (c *Cache) evictFor(n int64) bool {
	c.evicting.Lock()
	defer c.evicting.Unlock()
	return c.evict(lack{bytes: n, files: 1}, closed)
}

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// spool is a store's spool with its reservation, which follows what is written.
type spool struct {
	Spool
	c       *Cache
	size    int64        // of the blob, in bytes; -1: not known
	written atomic.Int64 // bytes
	limit   atomic.Int64 // what is reserved, as Cache.mu has it in reserved
	growing sync.Mutex   // one growth at a time; taken before all of the cache's locks

	// Guarded by Cache.mu.
	reserved int64 // bytes
	claimed  int64 // bytes kept from others that would begin, reserved ones included
	ended    bool
	parked   bool  // no flight writes to it, and it may be dropped for its room
	held     *hold // on the content that it became

	reading positions
}

// withPositions is the spool with the readers' own file positions, where the store's spool gives them.
func (s *spool) withPositions() Spool {
	if o, ok := s.Spool.(flight.Opener); ok {
		return &openerSpool{spool: s, opener: o}
	}
	return s
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
		s.c.diskFailed(err)
	}
	return n, err
}

// grow has the reservation reach to what is written, and ahead of it; or where there is no room for that, just so. off is
// where the disk is going to be written to.
func (s *spool) grow(off int64) error {
	s.growing.Lock()
	defer s.growing.Unlock()
	written, limit := s.written.Load(), s.limit.Load()
	if written <= limit {
		return nil // another write was faster
	}
	if s.size >= 0 {
		if err := s.c.claim(s, written); err != nil {
			return err
		}
	}
	var err error
	for _, to := range []int64{written + min(max(written, firstStep), aheadMost), written} {
		if s.size >= 0 {
			to = max(min(to, s.size), written)
		}
		n := to - limit
		if err = s.c.reserve(s, n); errors.Is(err, ErrNoRoom) {
			continue
		}
		if err == nil {
			err = s.allocate(off, n)
			s.c.placed(n)
		}
		if err == nil {
			s.c.unpark(s)
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
		s.c.health.lookAgain()
		return &NoRoomError{Need: n, Why: DiskLacks, Size: s.c.o.Size, Disk: s.c.health.now(), Err: err}
	}
	if err != nil {
		s.c.diskFailed(err)
	}
	return err
}

// unpark takes the new reservation of a spool for one that is written to.
func (c *Cache) unpark(s *spool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.parked {
		s.parked = false
		c.parkedBytes -= s.reserved
	}
	s.limit.Store(s.reserved)
}

// Park implements flight.Parker: what was reserved ahead is given back.
func (s *spool) Park() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.ended || s.parked {
		return
	}
	s.c.reserved -= s.reserved
	s.c.claimed -= s.claimed
	s.reserved = min(s.reserved, s.written.Load())
	s.claimed = s.reserved
	s.c.reserved += s.reserved
	s.c.claimed += s.claimed
	s.limit.Store(s.reserved)
	s.parked = true
	s.c.parkedBytes += s.reserved
	s.c.noticeFreed()
}

// Commit turns the reservation into stored content.
func (s *spool) Commit(d oci.Digest, size int64) error {
	l := s.c.stripe(d)
	l.Lock()
	defer l.Unlock()
	if err := s.Spool.Commit(d, size); err != nil {
		s.c.diskFailed(err)
		return err
	}
	s.c.roomAgain()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.endLocked()
	e := s.c.add(d, size, true)
	s.held = &hold{o: &s.reading} // until it is discarded
	s.c.hold(e, s.held)
	return nil
}

// Keep implements flight.Keeper, where the store's spool does.
func (s *spool) Keep(r flight.Rest) error {
	if k, ok := s.Spool.(flight.Keeper); ok {
		return k.Keep(r)
	}
	return errors.ErrUnsupported
}

// Discard gives back what is still reserved.
func (s *spool) Discard() error {
	err := s.Spool.Discard()
	s.end()
	return err
}

// end ends the reservation.
func (s *spool) end() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.endLocked()
	if s.held != nil {
		s.c.letGo(s.held)
		s.held = nil
	}
	s.c.noticeFreed()
}

// endLocked is end with the lock held.
func (s *spool) endLocked() {
	s.c.reserved -= s.reserved
	s.c.claimed -= s.claimed
	if s.parked {
		s.c.parkedBytes -= s.reserved
	}
	s.reserved, s.claimed, s.parked, s.ended = 0, 0, false, true
}

// ReadAt reads what is written.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if s.reading.closed.Load() {
		return 0, fmt.Errorf("read spool: %w", errTaken)
	}
	return s.Spool.ReadAt(p, off)
}

// errTaken ends reads of content that was evicted, by readers whose file had to go as well.
var errTaken = fmt.Errorf("it was read slowly, and its space is needed: %w", fs.ErrClosed)

// openerSpool keeps the readers' own file positions.
type openerSpool struct {
	*spool
	opener flight.Opener
}

// Open implements flight.Opener.
func (s *openerSpool) Open() (Object, error) {
	o, err := s.opener.Open()
	if err == nil {
		err = s.reading.add(o)
	}
	return o, err
}

// positions are the open files of the readers of a spool.
type positions struct {
	closed atomic.Bool
	mu     sync.Mutex // guards what follows; a leaf
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

// Close closes all of them: their readers go on from their own sources.
func (p *positions) Close() error {
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
	return nil
}
