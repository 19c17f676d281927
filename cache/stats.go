package cache

// Stats is what a cache holds and did. Counters are since start.
type Stats struct {
	Bytes    int64 // stored
	Size     int64 // the budget
	Reserved int64 // bytes, for downloads under way and parked
	Held     int64 // bytes, evicted and still open
	Objects  int64 // stored pieces of content
	Parked   int64 // unfinished downloads that wait for a client to come back

	Hits         int64 // Opens answered from the store
	Misses       int64 // that started a download
	Joined       int64 // that joined one
	Uncached     int64 // that were served straight from their source
	Evicted      int64 // pieces of content
	EvictedBytes int64

	Degraded bool // the disk is full, or fails: misses are uncached
	Disk     Disk
	Loaded   bool // what is stored is known
}

// Stats returns the present numbers.
func (c *Cache) Stats() Stats {
	s := Stats{
		Size: c.o.Size, Hits: c.hits.Load(), Misses: c.misses.Load(), Joined: c.joined.Load(),
		Uncached: c.uncached.Load(), Evicted: c.evicted.Load(), EvictedBytes: c.evictedBytes.Load(),
		Parked: c.parked(), Disk: c.health.now(),
	}
	s.Degraded = s.Disk.State != DiskOK
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Bytes, s.Reserved, s.Held, s.Objects, s.Loaded = c.stored, c.reserved, c.heldBytes, int64(len(c.entries)), c.loaded
	return s
}

func (c *Cache) parked() (n int64) {
	for _, f := range c.flights.Flights() {
		if f.Parked {
			n++
		}
	}
	return n
}
