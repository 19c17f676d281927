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
	n := max(0, u.Size)
	if len(u.Have) > 0 {
		n = max(n, u.Have[len(u.Have)-1].To)
	}
	room := c.belowFloor().none() // the disk has given them already, so these bytes are not asked of it
	c.mu.Lock()
	room = room && n <= c.o.Size-c.stored-c.reserved
	if room {
		c.reserved += n
	}
	c.mu.Unlock()
	if !room {
		if err := u.Spool.Discard(); err != nil {
			c.o.Log.Warn("a spool could not be removed; it is swept at the next start", "digest", u.Digest, "err", err)
		}
		return false
	}
	s := c.withReservation(u.Spool, n)
	if c.flights.Restore(u.Rest, s) {
		return true
	}
	if err := s.Discard(); err != nil {
		c.o.Log.Warn("a spool could not be removed; it is swept at the next start", "digest", u.Digest, "err", err)
	}
	return false
}
