package cache

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Keep protects content from eviction until the given time, whether it is stored already or not. A holder's later call
// replaces its earlier one; without digests, or with a time that has passed, it ends it. Keeps are in memory only:
// holders assert them again at start, before Run.
func (c *Cache) Keep(holder string, until time.Time, digests ...oci.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leases.put(holder, until, digests, time.Now())
}

// leases are the keeps, by holder and by digest.
type leases struct {
	held map[string]*lease
	on   map[oci.Digest][]*lease
}

type lease struct {
	until   time.Time
	digests []oci.Digest
}

func newLeases() leases {
	return leases{held: make(map[string]*lease), on: make(map[oci.Digest][]*lease)}
}

func (l *leases) put(holder string, until time.Time, digests []oci.Digest, now time.Time) {
	old := l.held[holder]
	if old != nil && until.After(now) && slices.Equal(old.digests, digests) {
		old.until = until
		return
	}
	if old != nil {
		l.end(holder)
	}
	if len(digests) == 0 || !until.After(now) {
		return
	}
	n := &lease{until: until, digests: slices.Clone(digests)}
	l.held[holder] = n
	for _, d := range n.digests {
		l.on[d] = append(l.on[d], n)
	}
}

func (l *leases) end(holder string) {
	old := l.held[holder]
	delete(l.held, holder)
	for _, d := range old.digests {
		rest := slices.DeleteFunc(l.on[d], func(x *lease) bool { return x == old })
		if len(rest) == 0 {
			delete(l.on, d)
		} else {
			l.on[d] = rest
		}
	}
}

func (l *leases) kept(d oci.Digest, now time.Time) bool {
	return slices.ContainsFunc(l.on[d], func(x *lease) bool { return x.until.After(now) })
}

// sweep forgets what has ended.
func (l *leases) sweep(now time.Time) {
	for holder, x := range l.held {
		if !x.until.After(now) {
			l.end(holder)
		}
	}
}
