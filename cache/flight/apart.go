package flight

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Whether bytes are right is known only when all of them are there. So one source can spoil what another one brings. Therefore:
//
//   - What was parked is gone on with by a Key that brought some of it. Another one, whose source may be the honest one,
//     begins anew. Of what a former process left it is not known where it came from: that is gone on with by any.
//   - Where bytes of several Keys together were wrong, or those of one Key went to a reader of another, the digest is spoilt for
//     spoiltFor: each Key has a flight of its own then. So the honest one is right, and the other one is found out.
//   - Of bytes that came by several Keys no source is told that they were wrong: which one it was is not known.

const (
	spoiltFor  = 10 * time.Minute
	spoiltMost = 1000 // digests; beyond that the one that was spoilt first is forgotten
)

// place is where a group has a flight: one for the digest, or where that is spoilt, one for a Key.
type place struct {
	digest oci.Digest
	key    string
}

// place is where the flight is that brings d by key, or that will. The lock is held.
func (g *Group) place(d oci.Digest, key string) place {
	if apart := (place{d, key}); g.flights[apart] != nil || time.Now().Before(g.spoilt[d]) {
		return apart
	}
	return place{digest: d}
}

// spoil keeps the Keys that bring d apart for a while.
func (g *Group) spoil(d oci.Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spoilt[d] = time.Now().Add(spoiltFor)
	if len(g.spoilt) <= spoiltMost {
		return
	}
	oldest := d
	for x, until := range g.spoilt {
		if x != d && (oldest == d || until.Before(g.spoilt[oldest])) {
			oldest = x
		}
	}
	delete(g.spoilt, oldest)
}

// FaultOf reports whether it is the source with that Key that has sent what is wrong: what came by several, or by another
// one, it can't be blamed for.
func (e *MismatchError) FaultOf(key string) bool {
	return len(e.by) == 0 || len(e.by) == 1 && e.by[0] == key
}

// broughtTo are the Keys that bytes came by to a reader that has gone on by its own.
func (f *Flight) broughtTo(key string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	by := slices.Clone(f.brought)
	if !slices.Contains(by, key) {
		by = append(by, key)
	}
	return by
}

// strange reports whether the flight is parked, and nothing of it came by key. It then ends, and the caller drops it and has
// end see to the rest. The group's lock is held.
func (f *Flight) strange(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	unknown := f.left != nil && len(f.brought) == 0
	if !f.parked || f.ended || unknown || slices.Contains(f.brought, key) {
		return false
	}
	f.ended = true
	return true
}
