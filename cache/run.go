package cache

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

const (
	flushEvery = time.Minute     // recency to the index
	lookEvery  = 5 * time.Second // at the free space, and whether a failed disk works again
	probeSize  = 64 << 10
)

// Run does the work behind: it finds out what is stored, evicts, records recency, watches the disk. When ctx ends it
// ends all downloads, leaves what they have to the next process where the store can, records once more and returns nil. Open works before and meanwhile.
func (c *Cache) Run(ctx context.Context) error {
	defer func() {
		c.flights.Close()
		c.flush()
	}()
	c.load(ctx)
	c.relieve()
	look, flush := time.NewTicker(lookEvery), time.NewTicker(flushEvery)
	defer look.Stop()
	defer flush.Stop()
	c.poke()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			c.trim()
		case <-look.C:
			c.look()
		case <-flush.C:
			c.flush()
			c.leases.sweep(time.Now())
		}
	}
}

// load finds out what is stored: from the store that it is there, from the index when it was used.
func (c *Cache) load(ctx context.Context) {
	known := make(map[oci.Digest]Access)
	if c.o.Index != nil {
		recorded, err := c.o.Index.Load()
		if err != nil {
			c.o.Log.WarnContext(ctx, "recency index can't be read; eviction is less exact until content is used again", "error", err)
		} else {
			known = recorded
		}
	}
	now := minute(c.now())
	var found []*entry
	for e, err := range c.o.Store.All() {
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.o.Log.WarnContext(ctx, "part of the cache can't be listed; it is served all the same", "err", err)
			continue
		}
		a, recorded := known[e.Digest]
		if recorded && a.Size != e.Size {
			c.o.Log.WarnContext(ctx, "cached content has the wrong size; it is removed", "digest", e.Digest,
				"size", e.Size, "expected", a.Size)
			if err := c.Remove(e.Digest); err != nil {
				c.diskFailed(err)
			}
			continue
		}
		// What the index does not have came just before a crash, or all of it is unknown: it is as good as new.
		delete(known, e.Digest)
		x := &entry{digest: e.Digest, size: e.Size, used: now, known: recorded}
		if recorded {
			x.used = min(minute(a.Used), now) // the clock may have been wrong
		}
		found = append(found, x)
	}
	slices.SortFunc(found, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.used, a.used), cmp.Compare(a.size, b.size)) // the large ones go first
	})
	c.mu.Lock()
	c.takeIn(found, known)
	c.mu.Unlock()
	c.resume(ctx) // before a miss may begin: it is to join
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed = nil
	c.loaded = true
	close(c.loadedC)
	point.Hit("cache/loaded")
}

// takeIn takes in what was found in the store; known is what the index has, and the store has not. The lock is held.
func (c *Cache) takeIn(found []*entry, known map[oci.Digest]Access) {
	for _, e := range found {
		if _, gone := c.removed[e.digest]; gone || c.entries[e.digest] != nil {
			continue // used, or removed, meanwhile
		}
		c.entries[e.digest] = e
		c.stored += e.size
		c.lru.probation.pushBack(e)
		if !e.known {
			c.dirty[e.digest] = struct{}{}
		}
	}
	for d := range known {
		if c.entries[d] == nil {
			c.gone[d] = struct{}{}
		}
	}
}

// flush records recency in one batch. What could not be recorded is the next time.
func (c *Cache) flush() {
	if c.o.Index == nil {
		return
	}
	c.mu.Lock()
	used := make([]Access, 0, len(c.dirty))
	for d := range c.dirty {
		if e := c.entries[d]; e != nil {
			used = append(used, e.access())
		}
	}
	gone := slices.Collect(maps.Keys(c.gone))
	clear(c.dirty)
	clear(c.gone)
	c.mu.Unlock()
	if len(used) == 0 && len(gone) == 0 {
		return
	}
	err := c.o.Index.Write(used, gone)
	if err == nil {
		return
	}
	c.o.Log.Warn("recency can't be recorded; nothing else is affected", "err", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	again := func(d oci.Digest) {
		if c.entries[d] != nil {
			c.dirty[d] = struct{}{}
		}
	}
	if errors.Is(err, ErrReset) {
		for d := range c.entries {
			again(d)
		}
		return
	}
	for _, a := range used {
		again(a.Digest)
	}
	for _, d := range gone {
		if c.entries[d] == nil {
			c.gone[d] = struct{}{}
		}
	}
}
