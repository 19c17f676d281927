package flight

import (
	"bytes"
	"errors"
	"hash"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Extent is a range of bytes: [From, To).
type Extent struct{ From, To int64 }

// Rest is an unfinished download as one process leaves it to the next.
type Rest struct {
	Digest oci.Digest
	Size   int64     // of the blob in bytes; -1: not known
	Have   []Extent  // that are in the spool: in order, and not touching
	Until  time.Time // when it expires
	Hashed int64     // Sum is the hash of [0, Hashed); 0: not known
	Sum    []byte
}

// former is what a flight knows of the process that left its spool. rest is set before the first reader; the flight's lock
// guards the others.
type former struct {
	rest    *Rest // nil: the flight began in this process
	dormant bool  // no reader has joined yet, and the hasher does not run
	damaged bool  // the spool does not have the bytes that it had
}

// errDamaged says that the bytes which a former process left have changed.
var errDamaged = errors.New("what was kept of a download over a restart is damaged")

// valid reports whether a rest makes sense.
func (r Rest) valid() bool {
	last := int64(-1)
	for _, x := range r.Have {
		if x.From <= last || x.From >= x.To || r.Size >= 0 && x.To > r.Size {
			return false
		}
		last = x.To
	}
	return len(r.Have) > 0 && r.Size >= -1 && r.Digest.Validate() == nil && r.Hashed >= 0 &&
		(r.Hashed == 0 || r.Have[0].From == 0 && r.Hashed <= r.Have[0].To)
}

// Restore adds a download that a former process has left, parked until a reader joins. It returns false where it did not;
// then the spool remains the caller's. The bytes are hashed again when the download continues, since the digest must be
// that of the bytes that the disk has now; where they have changed, the spool is given up.
func (g *Group) Restore(r Rest, s Spool) bool {
	remains := min(time.Until(r.Until), g.o.Park)
	if !r.valid() || remains <= 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at := place{digest: r.Digest}
	if g.closed || g.flights[at] != nil {
		return false
	}
	f := newFlight(g, at, r.Size)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range r.Have {
		f.plan.have.add(x.From, x.To)
	}
	f.spool, f.former = s, former{rest: &r, dormant: true}
	f.idle.parked, f.idle.until = true, time.Now().Add(remains)
	f.idle.timer = time.AfterFunc(remains, f.expire)
	g.flights[at] = f
	return true
}

// restart starts the hasher of a flight that was restored. The group's lock and the flight's are held.
func (f *Flight) restart() {
	if f.former.dormant {
		f.former.dormant = false
		f.startHasher()
	}
}

// toHash is how far the hasher may go from at: to the end of the prefix, with a stop where it can compare its hash with
// that of the former process.
func (f *former) toHash(at, prefix int64) int64 {
	if f.rest != nil && at < f.rest.Hashed {
		return min(prefix, f.rest.Hashed)
	}
	return prefix
}

// agrees reports whether the bytes that were hashed again, up to at, are those of the former process.
func (f *former) agrees(at int64, h hash.Hash) bool {
	return f.rest == nil || at != f.rest.Hashed || bytes.Equal(h.Sum(nil), f.rest.Sum)
}

// damage gives up the spool of a flight that was restored. A reader that was sent bytes of it has to begin again.
func (f *Flight) damage() {
	f.mu.Lock()
	f.former.damaged = true
	f.mu.Unlock()
	f.breakSpool(errDamaged)
}

func (f *Flight) isDamaged() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.former.damaged
}

// hold keeps the spool from being discarded until keep.
func (f *Flight) hold() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life.held = true
}

// keep leaves the bytes that are there to the next process, if they are of use, and releases the spool. All goroutines of
// the group have ended. It returns how many bytes are kept.
func (f *Flight) keep() (kept int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life.held = false
	defer f.release()
	sound := f.spool != nil && f.broken == nil && !f.origins.disputed && errors.Is(f.failed, ErrClosed)
	if !sound || f.key != "" || f.hasher.verified || len(f.plan.have) == 0 {
		return 0
	}
	if err := f.spool.Keep(f.rest()); err != nil {
		f.g.o.Log.Debug("an unfinished download is not kept over the restart", "digest", f.digest, "error", err)
		return 0
	}
	return f.plan.have.bytes()
}

// rest is what keep leaves. The lock is held.
func (f *Flight) rest() Rest {
	r := Rest{Digest: f.digest, Size: f.plan.size, Until: f.idle.until}
	if !f.idle.parked {
		r.Until = time.Now().Add(f.g.o.Park)
	}
	for _, x := range f.plan.have {
		r.Have = append(r.Have, Extent{x.from, x.to})
	}
	switch before := f.former.rest; {
	case before != nil && f.hasher.at < before.Hashed: // not compared yet
		r.Hashed, r.Sum = before.Hashed, before.Sum
	case f.hasher.state != nil && f.hasher.at > 0:
		r.Hashed, r.Sum = f.hasher.at, f.hasher.state.Sum(nil)
	}
	return r
}
