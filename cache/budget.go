package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// step is by how much the reservation of a blob of unknown size grows.
const step = 1 << 20

// room sees to it that size bytes could be reserved now.
func (c *Cache) room(ctx context.Context, size int64) error {
	if c.broken.Load() {
		return errDisk
	}
	select {
	case <-c.loadedC:
	default:
		late := time.NewTimer(patience)
		defer late.Stop()
		select {
		case <-c.loadedC:
		case <-late.C:
			return errLoading
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return c.fit(max(0, size), false)
}

// reserve takes n bytes of the budget, evicting what it must. placed follows when the disk has given them, unreserve
// when they are not needed any more.
func (c *Cache) reserve(n int64) error { return c.fit(n, true) }

// fit makes room for n bytes, and reserves them if it shall.
func (c *Cache) fit(n int64, reserve bool) error {
	if n > c.o.Size {
		return fmt.Errorf("%d bytes, and cache.size is %d: %w", n, c.o.Size, ErrNoRoom)
	}
	if c.take(n, reserve).none() {
		return nil
	}
	c.evicting.Lock()
	defer c.evicting.Unlock()
	var late <-chan time.Time
	for {
		missing := c.take(n, reserve)
		if missing.none() {
			return nil
		}
		if c.evict(missing) {
			continue
		}
		noRoom := fmt.Errorf("%d bytes: all there is must stay: %w", n, ErrNoRoom)
		if late == nil {
			if c.parked() == 0 {
				return noRoom
			}
			c.flights.DropParked()
			late = time.After(time.Second)
		}
		// What a dropped download held is given back when its last goroutine has left.
		select {
		case <-c.freed:
		case <-late:
			return noRoom
		}
	}
}

// lack is what is missing.
type lack struct{ bytes, files int64 }

func (l lack) none() bool { return l.bytes <= 0 && l.files <= 0 }

// take reserves n bytes, if it shall, where there is room in the budget and on the disk; else it returns what is
// missing.
func (c *Cache) take(n int64, reserve bool) lack {
	missing := c.belowFloor()
	c.mu.Lock()
	defer c.mu.Unlock()
	missing.bytes = max(missing.bytes+n+c.pending, c.stored+c.reserved+n-c.o.Size)
	if !guard.Reservation {
		return lack{}
	}
	if !missing.none() || !reserve {
		return missing
	}
	c.reserved += n
	c.pending += n
	if c.tooMuch() {
		c.poke()
	}
	return lack{}
}

// tooMuch reports whether the high mark is passed. The lock is held.
func (c *Cache) tooMuch() bool { return c.stored+c.reserved > c.o.Size-c.o.Size/10 }

// placed says that the disk knows of n reserved bytes.
func (c *Cache) placed(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending -= n
}

func (c *Cache) unreserve(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserved -= n
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

// belowFloor is what the disk lacks to have MinFree free; negative bytes: it has that much more.
func (c *Cache) belowFloor() lack {
	if c.o.Free == nil {
		return lack{bytes: -1 << 62}
	}
	s, err := c.o.Free()
	if err != nil || s.Total == 0 {
		return lack{bytes: -1 << 62} // the disk will say itself
	}
	floor := c.o.MinFree.Bytes
	var files int64
	if p := c.o.MinFree.Percent; p > 0 {
		floor = int64(float64(s.Total) / 100 * p)
		files = int64(float64(s.AllInodes)/100*p) - s.FreeInodes // no total: no floor
	}
	return lack{bytes: floor - s.Free, files: files}
}

// create is the flights': it makes the spool of a blob.
func (c *Cache) create(d oci.Digest, size int64) (Spool, error) {
	s, err := c.reservedSpool(size)
	if err != nil {
		c.failed.Store(d, struct{}{})
	}
	return s, err
}

// reservedSpool makes a spool whose bytes are reserved.
func (c *Cache) reservedSpool(size int64) (Spool, error) {
	n := max(0, size)
	if err := c.reserve(n); err != nil {
		return nil, err
	}
	s, err := c.o.Store.Create(size)
	if noSpace(err) {
		// The disk has less than it said, or than we were told we may use: others write to it as well.
		c.evicting.Lock()
		more := c.evict(lack{bytes: max(n, step)})
		c.evicting.Unlock()
		if more {
			s, err = c.o.Store.Create(size)
		}
	}
	c.placed(n)
	if err != nil {
		c.unreserve(n)
		if !noSpace(err) { // a smaller one may well fit
			c.diskFailed(err)
		}
		return nil, err
	}
	return c.withReservation(s, n), nil
}

// withReservation is a store's spool with n bytes that are reserved for it.
func (c *Cache) withReservation(s Spool, n int64) Spool {
	p := &spool{Spool: s, c: c}
	p.reserved.Store(n)
	if o, ok := s.(flight.Opener); ok {
		return &openerSpool{spool: p, Opener: o}
	}
	return p
}

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// spool is a store's spool with its reservation.
type spool struct {
	Spool
	c        *Cache
	reserved atomic.Int64
	mu       sync.Mutex // guards the growth of reserved, and its end
	ended    bool
}

// openerSpool keeps the readers' own file positions.
type openerSpool struct {
	*spool
	flight.Opener
}

// WriteAt writes within the reservation, which grows where the size is not known.
func (s *spool) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > s.reserved.Load() {
		if err := s.grow(end); err != nil {
			return 0, err
		}
	}
	n, err := s.Spool.WriteAt(p, off)
	if err != nil {
		s.c.diskFailed(err)
	}
	return n, err
}

// grow has the reservation reach to end: by a step, or where there is no room for that, just so.
func (s *spool) grow(end int64) error {
	for _, to := range []int64{end + step, end} {
		n := to - s.reserved.Load()
		if n <= 0 {
			return nil // another write was faster
		}
		err := s.c.reserve(n)
		if errors.Is(err, ErrNoRoom) {
			continue
		}
		if err != nil {
			return err
		}
		s.c.placed(n)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ended {
			s.c.unreserve(n)
			return fs.ErrClosed
		}
		s.reserved.Add(n)
		return nil
	}
	return fmt.Errorf("%d bytes and more: %w", end, ErrNoRoom)
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
	n := s.end()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.reserved -= n
	s.c.add(d, size, true)
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
	s.c.unreserve(s.end())
	return err
}

// end ends the reservation and returns what it was.
func (s *spool) end() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	return s.reserved.Swap(0)
}

// add takes content in, or notes that it came anew. The lock and the digest's stripe are held.
func (c *Cache) add(d oci.Digest, size int64, known bool) *entry {
	e := c.entries[d]
	if e == nil {
		e = &entry{digest: d}
		c.entries[d] = e
	}
	l := e.list
	e.unlink() // its list counts bytes
	c.stored += size - e.size
	e.size, e.known = size, known
	if l != nil {
		l.pushFront(e)
	}
	delete(c.gone, d)
	c.touch(e)
	if c.tooMuch() {
		c.poke()
	}
	return e
}

// forget takes an entry out. The lock and the digest's stripe are held.
func (c *Cache) forget(d oci.Digest) {
	e := c.entries[d]
	if e == nil {
		return
	}
	e.unlink()
	delete(c.entries, d)
	c.stored -= e.size
	delete(c.dirty, d)
	c.gone[d] = struct{}{}
}

// poke has Run look whether there is too much.
func (c *Cache) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// diskFailed has misses served uncached until a probe succeeds.
func (c *Cache) diskFailed(err error) {
	if errors.Is(err, fs.ErrClosed) || c.broken.Swap(true) {
		return
	}
	c.o.Log.Error("the cache's disk fails: what is cached is served, the rest comes straight from the upstreams until "+
		"the disk works again; look at the disk of cache.dir", "err", err)
}
