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
	flushEvery = time.Minute     // how often recency goes to the index
	lookEvery  = 5 * time.Second // how often the disk is looked at
	probeSize  = 64 << 10        // bytes that are written to find out whether a failed disk works again
)

// Run does the work in the background: it finds out what is stored, evicts, records recency, watches the disk. When ctx ends
// it ends all downloads, leaves their bytes to the next process where the store can, records once more and returns nil. Open
// works before and meanwhile.
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
	c.wake.send()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			c.trim()
		case <-look.C:
			c.relieve()
			c.health.look()
		case <-flush.C:
			c.flush()
			c.leases.sweep(time.Now())
		}
	}
}

// load finds out what is stored, from the store, and when it was used, from the index.
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
			c.o.Log.WarnContext(ctx, "part of the cache can't be listed; it is served all the same", "error", err)
			continue
		}
		a, recorded := known[e.Digest]
		if recorded && a.Size != e.Size {
			c.o.Log.WarnContext(ctx, "cached content has the wrong size; it is removed", "digest", e.Digest,
				"bytes", e.Size, "size", a.Size)
			if err := c.Remove(e.Digest); err != nil {
				c.health.fail(err)
			}
			continue
		}
		// Content that the index does not have came just before a crash, or the index was lost: it counts as new.
		delete(known, e.Digest)
		x := &entry{digest: e.Digest, size: e.Size, used: now, verified: recorded}
		if recorded {
			x.used = min(minute(a.Used), now) // the clock may have been wrong
		}
		found = append(found, x)
	}
	slices.SortFunc(found, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.used, a.used), cmp.Compare(a.size, b.size)) // the large ones go first
	})
	c.mu.Lock()
	c.addFound(found, known)
	c.mu.Unlock()
	c.resume(ctx) // before a miss may begin, so that it joins
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.loaded = true
	close(c.loadedC)
	point.Hit("cache/loaded")
}

// addFound adds content that was found in the store; missing is what the index has, and the store has not. The lock is held.
func (c *Cache) addFound(found []*entry, missing map[oci.Digest]Access) {
	for _, e := range found {
		if _, removed := c.dirty[e.digest]; removed || c.budget.entries[e.digest] != nil {
			continue // removed, or used, meanwhile
		}
		c.budget.addOldest(e)
		if !e.verified {
			c.dirty[e.digest] = struct{}{}
		}
	}
	for d := range missing {
		c.dirty[d] = struct{}{}
	}
}

// flush records recency in one batch. Changes that can't be recorded are kept for the next time.
func (c *Cache) flush() {
	if c.o.Index == nil {
		return
	}
	c.mu.Lock()
	changed := slices.Collect(maps.Keys(c.dirty))
	clear(c.dirty)
	used, removed := make([]Access, 0, len(changed)), []oci.Digest(nil)
	for _, d := range changed {
		if e := c.budget.entries[d]; e != nil {
			used = append(used, e.access())
		} else {
			removed = append(removed, d)
		}
	}
	c.mu.Unlock()
	if len(changed) == 0 {
		return
	}
	err := c.o.Index.Write(used, removed)
	if err == nil {
		return
	}
	c.o.Log.Warn("recency can't be recorded; after a restart eviction may be less exact", "error", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, ErrReset) {
		changed = slices.Collect(maps.Keys(c.budget.entries))
	}
	for _, d := range changed {
		c.dirty[d] = struct{}{}
	}
}
