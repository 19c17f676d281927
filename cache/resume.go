package cache

import (
	"cmp"
	"context"
	"slices"
)

// resume goes on with what the process before has left unfinished, as far as there is room without taking it from what
// is stored. The latest come first.
func (c *Cache) resume(ctx context.Context) {
	r, ok := c.o.Store.(Resumer)
	if !ok {
		return
	}
	list := r.Resume()
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
		c.o.Log.InfoContext(ctx, "unfinished downloads from before the start are gone on with when they are asked for",
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
	room := c.belowFloor().none() // the disk has given them already, so these bytes are not asked of it
	c.mu.Lock()
	room = room && n <= c.o.Size-c.stored-c.claimed
	if room {
		c.reserved += n
		c.claimed += n
		s.reserved, s.claimed = n, n
		s.limit.Store(n)
	}
	c.mu.Unlock()
	if !room {
		if err := u.Spool.Discard(); err != nil {
			c.o.Log.Warn("a spool could not be removed; it is swept at the next start", "digest", u.Digest, "err", err)
		}
		return false
	}
	s.Park()
	if c.flights.Restore(u.Rest, s.withPositions()) {
		return true
	}
	if err := s.Discard(); err != nil {
		c.o.Log.Warn("a spool could not be removed; it is swept at the next start", "digest", u.Digest, "err", err)
	}
	return false
}
