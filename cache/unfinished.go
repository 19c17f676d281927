package cache

import (
	"cmp"
	"context"
	"slices"
)

// resume takes the unfinished downloads of the process before, as far as there is room without eviction. The latest come
// first.
func (c *Cache) resume(ctx context.Context) {
	list := c.o.Store.Resume()
	slices.SortFunc(list, func(a, b Unfinished) int {
		return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.Digest, b.Digest))
	})
	var taken, dropped int
	for _, u := range list {
		if c.resumeOne(u) {
			taken++
		} else {
			dropped++
		}
	}
	if taken+dropped > 0 {
		c.o.Log.InfoContext(ctx, "found unfinished downloads of the previous run; they continue when a client asks for them",
			"downloads", taken, "dropped", dropped)
	}
}

func (c *Cache) resumeOne(u Unfinished) bool {
	var n int64
	for _, x := range u.Have {
		n += x.To - x.From
	}
	s := &spool{Spool: u.Spool, c: c, size: u.Size}
	s.written.Store(n)
	disk := c.health.lacks() // the disk has given the bytes already, so they are not counted here
	c.mu.Lock()
	room := disk.none() && c.budget.resume(&s.room, n)
	c.mu.Unlock()
	s.limit.Store(n)
	if !room {
		if err := u.Spool.Discard(); err != nil {
			c.o.Log.Warn("spool file can't be removed; tried again at the next start", "digest", u.Digest, "error", err)
		}
		return false
	}
	s.Park()
	if c.flights.Restore(u.Rest, s) {
		return true
	}
	if err := s.Discard(); err != nil {
		c.o.Log.Warn("spool file can't be removed; tried again at the next start", "digest", u.Digest, "error", err)
	}
	return false
}
