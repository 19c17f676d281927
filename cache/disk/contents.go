package disk

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/registrymirror/mirror/oci"
)

type digests map[oci.Digest]struct{}

// contents is what this process knows of stored content beyond its file. It does nothing to files.
type contents struct {
	// suspect is true while content without a mark may be from before a crash of the machine.
	suspect atomic.Bool
	// removing is true while removals has entries, so that a hit costs no lock where there are none.
	removing atomic.Bool

	mu       sync.Mutex // guards the sets; a leaf
	fresh    digests    // committed, and not covered by a sync
	verified digests    // while suspect: committed or hashed by this process
	removals digests    // to be removed, and not served until then
}

func newContents() *contents {
	return &contents{fresh: make(digests), verified: make(digests), removals: make(digests)}
}

// commit adds content that has got its name; synced says that it is on disk.
func (c *contents) commit(d oci.Digest, synced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dequeue(d)
	if !synced {
		c.fresh[d] = struct{}{}
	}
	if c.suspect.Load() {
		c.verified[d] = struct{}{}
	}
}

// verify adds content that was hashed. Whether what was read is on disk only the next sync tells.
func (c *contents) verify(d oci.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh[d] = struct{}{}
	c.verified[d] = struct{}{}
}

func (c *contents) isVerified(d oci.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.verified[d]
	return ok
}

// trust ends the suspicion: all content is known to be on disk.
func (c *contents) trust() {
	c.suspect.Store(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.verified)
}

// remove takes out content whose file is gone.
func (c *contents) remove(d oci.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.fresh, d)
	delete(c.verified, d)
	c.dequeue(d)
}

// addFresh adds content that the next sync is to cover.
func (c *contents) addFresh(d oci.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh[d] = struct{}{}
}

func (c *contents) isFresh(d oci.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.fresh[d]
	return ok
}

// takeFresh returns what is fresh, for a sync; nothing is, afterwards.
func (c *contents) takeFresh() digests {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := c.fresh
	c.fresh = make(digests)
	return batch
}

// queueRemovals has content not served from now on.
func (c *contents) queueRemovals(list digests) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(c.removals, list)
	for d := range list {
		delete(c.verified, d)
	}
	c.removing.Store(len(c.removals) > 0)
}

// queuedRemovals returns what is still to be removed.
func (c *contents) queuedRemovals() []oci.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.removals))
}

// isRemoved reports whether content is to be removed and not served.
func (c *contents) isRemoved(d oci.Digest) bool {
	if !c.removing.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.removals[d]
	return ok
}

// dequeue has content not wait to be removed any more. The lock is held.
func (c *contents) dequeue(d oci.Digest) {
	delete(c.removals, d)
	c.removing.Store(len(c.removals) > 0)
}
