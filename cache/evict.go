package cache

import (
	"time"

	"github.com/registrymirror/mirror/internal/point"
)

// may says what evict may take.
type may func(c *Cache, e *entry, now time.Time) bool

// evict removes content until what is missing is there, or nothing more may go. It reports whether anything went.
// c.evicting is held.
func (c *Cache) evict(missing lack, which may) bool {
	went := false
	victims := c.pick(missing, which)
	for i, e := range victims {
		gone, err := c.remove(e)
		if err != nil {
			c.diskFailed(err)
			c.spare(victims[i:]...)
			return went
		}
		went = went || gone
	}
	return went
}

// pick chooses victims and takes them off their lists.
func (c *Cache) pick(missing lack, which may) []*entry {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded { // nobody knows yet what was used last
		return nil
	}
	var list []*entry
	for e := range c.lru.victims {
		if missing.none() {
			break
		}
		if !which(c, e, now) || c.leases.has(e.digest, now) {
			continue
		}
		e.unlink()
		e.going = true
		missing.bytes -= e.size
		missing.files--
		list = append(list, e)
		if e.oldest != nil { // one at a time: whether another one may be held so depends on it
			break
		}
	}
	return list
}

// evictable reports whether what is missing could be had by eviction. The lock is held.
func (c *Cache) evictable(missing lack, now time.Time) bool {
	if now.Before(c.full.until) && missing.bytes >= c.full.lack.bytes && missing.files >= c.full.lack.files {
		return false
	}
	least := missing
	missing.bytes -= c.parkedBytes
	if c.loaded {
		for e := range c.lru.victims {
			if missing.none() {
				break
			}
			if openLong(c, e, now) && !c.leases.has(e.digest, now) {
				missing.bytes -= e.size
				missing.files--
			}
		}
	}
	if missing.none() {
		return true
	}
	// Looking through all of it takes its time with much content, and every miss asks.
	c.full.lack, c.full.until = least, now.Add(fullFor)
	return false
}

// fullFor is how long it is believed that nothing more can be evicted.
const fullFor = time.Second

// remove takes a victim's content away. False: it is in use by now, and spared.
func (c *Cache) remove(e *entry) (bool, error) {
	l := c.stripe(e.digest)
	l.Lock()
	defer l.Unlock()
	c.mu.Lock()
	current, spared := c.entries[e.digest] == e, !e.going
	c.mu.Unlock()
	if !current { // Remove was faster
		return true, nil
	}
	if spared { // it was used meanwhile
		return false, nil
	}
	point.Hit("cache/evict")
	if err := c.o.Store.Remove(e.digest); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(e.digest)
	c.evicted.Add(1)
	c.evictedBytes.Add(e.size)
	point.Hit("cache/evicted")
	return true, nil
}

// spare puts victims back, as the next to go.
func (c *Cache) spare(list ...*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range list {
		if e.going && c.entries[e.digest] == e {
			e.going = false
			c.lru.probation.pushBack(e)
		}
	}
}

// trim evicts down to the low mark if the high mark is passed.
func (c *Cache) trim() {
	c.evicting.Lock()
	defer c.evicting.Unlock()
	c.mu.Lock()
	var over int64
	if c.tooMuch() {
		over = c.stored + c.reserved - (c.o.Size - c.o.Size/5)
	}
	c.mu.Unlock()
	if over > 0 {
		c.evict(lack{bytes: over}, closed)
	}
}

// relieve evicts up to the floor of free bytes and inodes.
func (c *Cache) relieve() {
	c.evicting.Lock()
	defer c.evicting.Unlock()
	if missing := c.belowFloor(); !missing.none() {
		c.evict(missing, closed)
	}
}
