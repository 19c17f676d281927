package cache

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// A download reserves what has arrived and as much again, at least firstStep and at most aheadMost bytes more: a size that
// a manifest or a registry claims evicts nothing by itself.
const (
	firstStep = 1 << 20
	aheadMost = 64 << 20
)

// What a download is going to need is claimed from others that would begin, without evicting for it: up to claimLeast bytes
// at its first byte, and claimFactor times what has arrived from then on. So two downloads that don't fit beside each other
// find out early, and a registry that announces terabytes and sends nothing keeps no other download from
// the cache.
const (
	claimLeast  = 64 << 20
	claimFactor = 16
)

// room finds out whether a blob of size bytes could be stored beside what must stay, and evicts nothing.
func (c *Cache) room(ctx context.Context, size int64) error {
	if c.broken.Load() {
		return &DiskError{c.health.now()}
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
	return c.fits(max(0, size))
}

// fits reports whether n bytes more could be had beside what downloads claim, if what may be evicted were. The error is a
// *NoRoomError.
func (c *Cache) fits(n int64) error {
	if n > c.o.Size {
		return &NoRoomError{Need: n, Why: TooLarge, Size: c.o.Size}
	}
	disk, now := c.belowFloor(), time.Now()
	c.mu.Lock()
	missing := lack{
		bytes: max(disk.bytes+n+c.pending+c.claimed-c.reserved, c.stored+c.claimed+n-c.o.Size),
		files: disk.files,
	}
	fits := !guard.Reservation || missing.none() || c.evictable(missing, now)
	c.mu.Unlock()
	if fits {
		return nil
	}
	return c.noRoom(n)
}

// claim takes what a download that has written so many bytes may still need from others that would begin.
func (c *Cache) claim(s *spool, written int64) error {
	want := max(claimLeast, written)
	if written < s.size/claimFactor {
		want = max(want, written*claimFactor)
	} else {
		want = s.size
	}
	want = min(want, s.size)
	c.mu.Lock()
	more := want - s.claimed
	c.mu.Unlock()
	if more <= 0 {
		return nil
	}
	if err := c.fits(more); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.ended {
		c.claimed += more
		s.claimed += more
	}
	return nil
}

// reserve takes n bytes of the budget for a spool, evicting what it must. placed follows when the disk has given them.
func (c *Cache) reserve(s *spool, n int64) error {
	if n > c.o.Size {
		return &NoRoomError{Need: n, Why: TooLarge, Size: c.o.Size}
	}
	if c.take(s, n).none() {
		return nil
	}
	c.evicting.Lock()
	defer c.evicting.Unlock()
	var late <-chan time.Time
	waited := false
	for {
		missing := c.take(s, n)
		if missing.none() {
			return nil
		}
		if c.evict(missing, closed) {
			continue
		}
		if late == nil && c.parked() > 0 {
			c.flights.DropParked()
			late = time.After(time.Second)
		}
		if late != nil && !waited {
			// What a dropped download held is given back when its last goroutine has left.
			select {
			case <-c.freed:
			case <-late:
				waited = true
			}
			continue
		}
		if !c.evict(missing, openLong) {
			return c.noRoom(n)
		}
		c.cutHeld()
	}
}

// lack is what is missing.
type lack struct{ bytes, files int64 }

func (l lack) none() bool { return l.bytes <= 0 && l.files <= 0 }

// take reserves n bytes where there is room in the budget and on the disk; else it returns what is missing.
func (c *Cache) take(s *spool, n int64) lack {
	missing := c.belowFloor()
	c.mu.Lock()
	defer c.mu.Unlock()
	missing.bytes = max(missing.bytes+n+c.pending, c.stored+c.reserved+n-c.o.Size)
	if !guard.Reservation {
		return lack{}
	}
	if !missing.none() {
		return missing
	}
	c.pending += n
	if s.ended {
		return lack{}
	}
	c.reserved += n
	s.reserved += n
	if more := s.reserved - s.claimed; more > 0 {
		c.claimed += more
		s.claimed += more
	}
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

// noticeFreed wakes a download that waits for room.
func (c *Cache) noticeFreed() {
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

// floors are what MinFree is on a disk: bytes, and files where their number is limited.
func (m MinFree) floors(s Space) (bytes, files int64) {
	if m.Percent > 0 {
		return int64(float64(s.Total) / 100 * m.Percent), int64(float64(s.AllInodes) / 100 * m.Percent)
	}
	return m.Bytes, 0
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
	c.health.saw(s)
	bytes, files := c.o.MinFree.floors(s)
	if s.AllInodes == 0 || c.o.MinFree.Percent <= 0 {
		files = s.FreeInodes // no total: no floor
	}
	return lack{bytes: bytes - s.Free, files: files - s.FreeInodes}
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
	c.lingers(e)
}

// poke has Run look whether there is too much.
func (c *Cache) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
