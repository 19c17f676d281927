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
// holders assert them again at start, before Run.
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
// the same ones: it knows its places in the lists of the digests.
type leases struct {
	most int // bound of sum

	mu    sync.Mutex // guards the fields below; a leaf
	held  map[string]*lease
	on    map[oci.Digest]*kept
	sum   int                     // digests of all leases
	short [33]map[*lease]struct{} // those that may end early, by the number of bits in their number of digests
}

type lease struct {
	holder  string
	until   time.Time
	digests []oci.Digest
	on      []*kept // for each digest
	at      []int32 // where in the list of each digest the lease is
}

// kept is a digest that leases have.
type kept struct {
	digest oci.Digest
	places []place
}

// place is that a digest is the i-th of a lease.
type place struct {
	lease *lease
	i     int32
}

func newLeases(most int) *leases {
	l := &leases{most: most, held: make(map[string]*lease), on: make(map[oci.Digest]*kept)}
	for i := range l.short {
		l.short[i] = make(map[*lease]struct{})
	}
	return l
}

func (l *leases) put(holder string, until time.Time, digests []oci.Digest, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.held[holder]
	if old != nil && until.After(now) && slices.Equal(old.digests, digests) {
		old.until = until
		l.file(old, now)
		return
	}
	if old != nil {
		l.end(old)
	}
	if len(digests) == 0 || !until.After(now) {
		return
	}
	n := &lease{
		holder: holder, until: until, digests: slices.Clone(digests), on: make([]*kept, len(digests)),
		at: make([]int32, len(digests)),
	}
	l.held[holder] = n
	l.sum += len(digests)
	for i, d := range n.digests {
		k := l.on[d]
		if k == nil {
			k = &kept{digest: d}
			l.on[d] = k
		}
		n.on[i], n.at[i] = k, int32(len(k.places))
		k.places = append(k.places, place{n, int32(i)})
	}
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
	for i, k := range x.on {
		last := len(k.places) - 1
		moved := k.places[last]
		k.places[x.at[i]] = moved
		moved.lease.at[moved.i] = x.at[i]
		k.places[last] = place{}
		k.places = k.places[:last]
		if last == 0 {
			delete(l.on, k.digest)
		}
	}
}

// has reports whether content is kept.
func (l *leases) has(d oci.Digest, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.on[d]
	return k != nil && slices.ContainsFunc(k.places, func(p place) bool { return p.lease.until.After(now) })
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
