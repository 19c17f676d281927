package cache

import (
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Keep protects content from eviction until the given time, whether it is stored already or not. A holder's later call
// replaces its earlier one; without digests, or with a time that has passed, it ends it. Keeps are in memory only:
// callers make them again at start, before Run.
//
// All keeps together are bounded by maxKept digests. Above it those with the most digests end first, among those that would
// end within keptShort anyway: a manifest of thousands of layers takes the place of no other image.
func (c *Cache) Keep(holder string, until time.Time, digests ...oci.Digest) {
	c.leases.put(holder, until, digests, time.Now())
}

const (
	maxKept   = 1_000_000
	keptShort = 2 * time.Hour // keeps with less to go may end early
)

// leases are the keeps, by holder and by digest. A lease ends in as many steps as it has digests, however many others have
// the same ones.
type leases struct {
	most int // bound of sum

	mu    sync.Mutex // guards the fields below; a leaf
	held  map[string]*lease
	on    map[oci.Digest]kept
	sum   int                     // digests of all leases
	short [33]map[*lease]struct{} // those that may end early, by the number of bits in their number of digests
}

type lease struct {
	holder  string
	until   time.Time
	digests []oci.Digest
}

// kept is a digest that leases have. Where one of several ends early, until stays that of the longest for as long as any
// is left.
type kept struct {
	leases int
	until  time.Time
}

func newLeases(most int) *leases {
	l := &leases{most: most, held: make(map[string]*lease), on: make(map[oci.Digest]kept)}
	for i := range l.short {
		l.short[i] = make(map[*lease]struct{})
	}
	return l
}

func (l *leases) put(holder string, until time.Time, digests []oci.Digest, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.held[holder]
	if len(digests) == 0 || !until.After(now) {
		if old != nil {
			l.end(old)
		}
		return
	}
	n := &lease{holder: holder, until: until, digests: slices.Clone(digests)}
	for _, d := range digests {
		k := l.on[d]
		k.leases++
		if until.After(k.until) {
			k.until = until
		}
		l.on[d] = k
	}
	l.sum += len(digests)
	if old != nil {
		l.end(old)
	}
	l.held[holder] = n
	l.file(n, now)
	for i := len(l.short) - 1; i >= 0 && l.sum > l.most; i-- {
		for x := range l.short[i] {
			if l.sum <= l.most {
				break
			}
			l.end(x)
		}
	}
}

// file records whether a lease may end early. The lock is held.
func (l *leases) file(x *lease, now time.Time) {
	list := l.short[bits.Len(uint(len(x.digests)))]
	if x.until.Sub(now) <= keptShort {
		list[x] = struct{}{}
	} else {
		delete(list, x)
	}
}

// end removes a lease. The lock is held.
func (l *leases) end(x *lease) {
	delete(l.held, x.holder)
	delete(l.short[bits.Len(uint(len(x.digests)))], x)
	l.sum -= len(x.digests)
	for _, d := range x.digests {
		k := l.on[d]
		if k.leases--; k.leases == 0 {
			delete(l.on, d)
		} else {
			l.on[d] = k
		}
	}
}

// has reports whether content is kept.
func (l *leases) has(d oci.Digest, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.on[d].until.After(now)
}

// sweep removes leases that have ended, one at a time, so that other calls don't wait for all of it.
func (l *leases) sweep(now time.Time) {
	l.mu.Lock()
	var over []*lease
	for _, x := range l.held {
		if !x.until.After(now) {
			over = append(over, x)
		}
	}
	l.mu.Unlock()
	for _, x := range over {
		l.mu.Lock()
		if l.held[x.holder] == x && !x.until.After(now) {
			l.end(x)
		}
		l.mu.Unlock()
	}
}
