package cache

import (
	"time"

	"github.com/registrymirror/mirror/internal/point"
)

// evict removes content until nothing is missing, or nothing more may go. It reports whether anything went. c.evicting is
// held.
func (c *Cache) evict(missing shortfall, may allowed) bool {
	c.mu.Lock()
	victims := c.budget.pick(missing, may, time.Now())
	c.mu.Unlock()
	evicted := false
	for i, e := range victims {
		gone, err := c.evictOne(e)
		if err != nil {
			c.health.fail(err)
			c.mu.Lock()
			c.budget.spare(victims[i:])
			c.mu.Unlock()
			return evicted
		}
		evicted = evicted || gone
	}
	return evicted
}

// evictOne removes the content of a victim. False: it was used meanwhile, and stays.
func (c *Cache) evictOne(e *entry) (bool, error) {
	l := c.stripes.of(e.digest)
	l.Lock()
	defer l.Unlock()
	c.mu.Lock()
	current, used := c.budget.entries[e.digest] == e, !e.going
	c.mu.Unlock()
	if !current { // Remove was faster
		return true, nil
	}
	if used {
		return false, nil
	}
	point.Hit("cache/evict")
	if err := c.o.Store.Remove(e.digest); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(e.digest)
	c.counts.evicted.Add(1)
	c.counts.evictedBytes.Add(e.size)
	point.Hit("cache/evicted")
	return true, nil
}

// trim evicts down to the low mark if the high mark is passed.
func (c *Cache) trim() {
	c.evicting.Lock()
	defer c.evicting.Unlock()
	c.mu.Lock()
	excess := c.budget.excess()
	c.mu.Unlock()
	if excess > 0 {
		c.evict(shortfall{bytes: excess}, onlyClosed)
	}
}

// relieve evicts up to the floor of free bytes and inodes.
func (c *Cache) relieve() {
	c.evicting.Lock()
	defer c.evicting.Unlock()
	if missing := c.health.lacks(); !missing.none() {
		c.evict(missing, onlyClosed)
	}
}

// evictFor evicts n bytes, for a disk that has less than it says. It reports whether anything went.
func (c *Cache) evictFor(n int64) bool {
	c.evicting.Lock()
	defer c.evicting.Unlock()
	return c.evict(shortfall{bytes: n, files: 1}, onlyClosed)
}

// closeHeld closes the files of content that was evicted long ago, and of all that was where the disk is short of space.
func (c *Cache) closeHeld() {
	short := !c.health.lacks().none()
	c.mu.Lock()
	list := c.budget.heldFiles(short, time.Now())
	c.mu.Unlock()
	for _, o := range list {
		_ = o.Close()
	}
}
