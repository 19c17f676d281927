package flight

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/oci"
)

// Whether bytes are right is known only when all of them are there. So one source can spoil the bytes of another.
// Therefore:
//
//   - A parked download is continued by a Key that brought some of it. Another Key, whose source may be the honest one,
//     begins anew. Of a download of a former process the Keys are not known: any Key continues it.
//   - Where bytes of several Keys together were wrong, or wrong bytes of one Key were sent to a reader of another, the digest
//     is spoilt for spoiltFor: each Key has a flight of its own then. So an honest source succeeds, and the other is found
//     out.
//   - Where bytes came by several Keys, no source is told that they were wrong: which one it was is not known.

const (
	spoiltFor  = 10 * time.Minute
	spoiltMost = 1000 // digests
)

// origins is where the bytes of a flight came from. The flight's lock guards it.
type origins struct {
	sources  []Source // that were asked for bytes, one for each Key
	keys     []string // of the sources that have sent bytes
	host     string   // that has answered last
	disputed bool     // a source said another size: the flight is not kept for later readers
}

// asked notes that a source is asked for bytes.
func (o *origins) asked(s Source) {
	if !slices.ContainsFunc(o.sources, func(x Source) bool { return x.Key == s.Key }) {
		o.sources = append(o.sources, s)
	}
}

// brings notes that the source with that Key has sent bytes.
func (o *origins) brings(key string) {
	if !slices.Contains(o.keys, key) {
		o.keys = append(o.keys, key)
	}
}

// place is where a group has a flight: one for the digest, or where that is spoilt, one for each Key.
type place struct {
	digest oci.Digest
	key    string // empty: of all Keys
}

// place is where the flight is, or will be, that brings d by key. The lock is held.
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
	bounded.Put(&g.spoilt, d, time.Now().Add(spoiltFor), spoiltMost)
}

// FaultOf reports whether the wrong bytes came from the source with that Key alone. Of bytes that came by several Keys, no
// source is known to be at fault.
func (e *MismatchError) FaultOf(key string) bool {
	return len(e.by) == 0 || len(e.by) == 1 && e.by[0] == key
}

// keysWith are the Keys by which bytes came to a reader that has continued by its own Key.
func (f *Flight) keysWith(key string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := slices.Clone(f.origins.keys)
	if !slices.Contains(keys, key) {
		keys = append(keys, key)
	}
	return keys
}

// endForeign ends a parked flight none of whose bytes came by key, and reports whether it did. The caller removes it from
// the group and calls end. The group's lock is held.
func (f *Flight) endForeign(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	unknown := f.former.rest != nil && len(f.origins.keys) == 0
	if !f.idle.parked || f.life.ended || unknown || slices.Contains(f.origins.keys, key) {
		return false
	}
	f.life.ended = true
	return true
}
