package cache

import (
	"maps"
	"slices"

	"github.com/registrymirror/mirror/oci"
)

// changes are what the index does not have yet. Cache.mu guards it.
type changes struct {
	used    map[oci.Digest]struct{} // to be recorded
	removed map[oci.Digest]struct{} // to be taken out
}

func newChanges() changes {
	return changes{used: make(map[oci.Digest]struct{}), removed: make(map[oci.Digest]struct{})}
}

func (c *changes) use(d oci.Digest) {
	c.used[d] = struct{}{}
	delete(c.removed, d)
}

func (c *changes) remove(d oci.Digest) {
	c.removed[d] = struct{}{}
	delete(c.used, d)
}

// take returns all changes, for the index; there are none afterwards.
func (c *changes) take(entries map[oci.Digest]*entry) (used []Access, removed []oci.Digest) {
	used = make([]Access, 0, len(c.used))
	for d := range c.used {
		if e := entries[d]; e != nil {
			used = append(used, e.access())
		}
	}
	removed = slices.Collect(maps.Keys(c.removed))
	clear(c.used)
	clear(c.removed)
	return used, removed
}
