package cache

import (
	"context"
	"time"
)

// A download reserves what has arrived and as much again, at least minAhead and at most maxAhead bytes more: a size that a
// manifest or a registry claims evicts nothing by itself.
const (
	minAhead = 1 << 20
	maxAhead = 64 << 20
)

// What a download is going to need is claimed from others that would begin, without evicting for it: up to minClaim bytes
// at its first byte, and claimFactor times what has arrived from then on. So two downloads that don't fit beside each other
// find out early, and a registry that announces terabytes and sends nothing keeps no other download from the cache.
const (
	minClaim    = 64 << 20
	claimFactor = 16
)

// Room returns why a blob of size bytes could not be stored beside what must stay, or nil. It evicts nothing. The error is a
// *NoRoomError or a *DiskError; shortly after the start it waits for Run to find out what is stored.
func (c *Cache) Room(ctx context.Context, size int64) error {
	if c.health.broken.Load() {
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

// fits is nil where n bytes more could be had beside what downloads claim. The error is a *NoRoomError.
func (c *Cache) fits(n int64) error {
	if n > c.o.Size {
		return &NoRoomError{Need: n, Why: TooLarge, Size: c.o.Size}
	}
	disk, now := c.health.lacks(), time.Now()
	c.mu.Lock()
	fits := c.budget.fits(n, disk, now)
	c.mu.Unlock()
	if fits {
		return nil
	}
	return c.noRoom(n)
}

// noRoom is the error for n bytes that can't be had. A disk that is full becomes known by it.
func (c *Cache) noRoom(n int64) error {
	e := &NoRoomError{Need: n, Why: InUse, Size: c.o.Size}
	disk := c.health.lacks()
	if !disk.none() {
		c.health.change(DiskFull, nil)
	}
	c.mu.Lock()
	if disk.files > 0 || disk.bytes+n+c.budget.pending > 0 {
		e.Why = DiskLacks
	}
	c.mu.Unlock()
	if e.Disk = c.health.now(); e.Disk.exhausted() {
		c.health.change(DiskFull, nil)
		e.Disk = c.health.now()
	}
	return e
}

// claim claims the bytes that a download may still need, after so many were written.
func (s *spool) claim(written int64) error {
	c := s.c
	want := max(minClaim, written)
	if written < s.size/claimFactor {
		want = max(want, written*claimFactor)
	} else {
		want = s.size
	}
	want = min(want, s.size)
	c.mu.Lock()
	more := want - s.room.claimed
	c.mu.Unlock()
	if more <= 0 {
		return nil
	}
	if err := c.fits(more); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.claim(&s.room, more)
	return nil
}

// reserve reserves n bytes, and evicts for them. placed follows when the disk has given them.
func (s *spool) reserve(n int64) error {
	c := s.c
	if n > c.o.Size {
		return &NoRoomError{Need: n, Why: TooLarge, Size: c.o.Size}
	}
	if s.tryReserve(n).none() {
		return nil
	}
	c.evicting.Lock()
	defer c.evicting.Unlock()
	var late <-chan time.Time
	waited := false
	for {
		missing := s.tryReserve(n)
		if missing.none() {
			return nil
		}
		if c.evict(missing, onlyClosed) {
			continue
		}
		if late == nil && c.flights.DropParked() {
			late = time.After(time.Second)
		}
		if late != nil && !waited {
			// The room of a dropped download is given back when its last goroutine has left.
			select {
			case <-c.freed:
			case <-late:
				waited = true
			}
			continue
		}
		if !c.evict(missing, orOpenLong) {
			return c.noRoom(n)
		}
		c.closeHeld()
	}
}

// tryReserve reserves n bytes where there is room; else it returns what is missing.
func (s *spool) tryReserve(n int64) shortfall {
	c := s.c
	disk := c.health.lacks()
	c.mu.Lock()
	defer c.mu.Unlock()
	missing := c.budget.reserve(&s.room, n, disk)
	if missing.none() && c.budget.aboveHigh() {
		c.wake.send()
	}
	return missing
}

// placed says that the disk knows of n reserved bytes.
func (s *spool) placed(n int64) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.budget.placed(n)
}

// signal wakes one goroutine that waits, now or when it comes.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) send() {
	select {
	case s <- struct{}{}:
	default:
	}
}
