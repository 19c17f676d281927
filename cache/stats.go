package cache

// Stats are the numbers of a cache. Counters are since start.
type Stats struct {
	Bytes    int64 // stored
	Size     int64 // the budget
	Reserved int64 // bytes, for downloads under way and parked
	Held     int64 // bytes, evicted and still open
	Objects  int64 // stored pieces of content
	Parked   int64 // unfinished downloads that no client reads

	Hits         int64 // Opens answered from the store
	Misses       int64 // that started a download
	Joined       int64 // that joined one
	Uncached     int64 // that were served straight from their source
	Evicted      int64 // pieces of content
	EvictedBytes int64

	Degraded bool // the disk is full, or fails: misses are uncached
	Disk     Disk
}

// Stats returns the present numbers.
func (c *Cache) Stats() Stats {
	s := Stats{
		Size: c.o.Size, Hits: c.counts.hits.Load(), Misses: c.counts.misses.Load(), Joined: c.counts.joined.Load(),
		Uncached: c.counts.uncached.Load(), Evicted: c.counts.evicted.Load(), EvictedBytes: c.counts.evictedBytes.Load(),
		Parked: int64(c.flights.Parked()), Disk: c.health.now(),
	}
	s.Degraded = s.Disk.State != DiskOK
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.budget
	s.Bytes, s.Reserved, s.Held, s.Objects = b.stored, b.reserved, b.heldBytes, int64(len(b.entries))
	return s
}
