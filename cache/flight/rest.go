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
	Size   int64     // bytes; -1: not known
	Have   []Extent  // what is in the spool: in order, and apart
	Until  time.Time // how long it is kept
	Hashed int64     // up to here the bytes had the hash Sum; 0: not known
	Sum    []byte
}

// Keeper is implemented by spools that can outlive the process.
type Keeper interface {
	// Keep has what is in the spool outlive Discard, which still follows, and the process, if that stops in order. The
	// next one may have it back with r. On an error the spool is as before.
	Keep(r Rest) error
}

// errDamaged says that what a former process left is not what it had.
var errDamaged = errors.New("what was kept of a download over a restart is damaged")

// valid reports whether a rest makes sense.
func (r Rest) valid() bool {
	last := int64(-1)
	for _, x := range r.Have {
		if x.From <= last || x.From >= x.To || r.Size >= 0 && x.To > r.Size { // they don't touch either
			return false
		}
		last = x.To
	}
	return len(r.Have) > 0 && r.Size >= -1 && r.Digest.Validate() == nil && r.Hashed >= 0 &&
		(r.Hashed == 0 || r.Have[0].From == 0 && r.Hashed <= r.Have[0].To)
}

// Restore takes up what a former process has left, parked until somebody comes for it. It reports whether it did; else
// the spool stays the caller's. What is there is read again when the download goes on, since the digest must be that of
// what the disk has now; where it is not what it was, the spool is given up.
func (g *Group) Restore(r Rest, s Spool) bool {
	left := min(time.Until(r.Until), g.o.Park)
	if !r.valid() || left <= 0 {
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
		f.have.add(x.From, x.To)
	}
	f.spool, f.left, f.asleep = s, &r, true
	f.parked, f.until = true, time.Now().Add(left)
	f.idle = time.AfterFunc(left, f.expire)
	g.flights[at] = f
	return true
}

// wake starts the hasher of a flight that was restored. The group's lock and the flight's are held.
func (f *Flight) wake() {
	if !f.asleep {
		return
	}
	f.asleep, f.hashing = false, true
	f.users++
	f.g.wg.Go(f.hash)
}

// toHash is how far the hasher may go from done on: to the end of the prefix, with a stop where it can compare. The lock
// is held.
func (f *Flight) toHash(done int64) int64 {
	to := f.prefix()
	if f.left != nil && done < f.left.Hashed {
		return min(to, f.left.Hashed)
	}
	return to
}

// agrees reports whether what was read again up to done is what the process before had.
func (f *Flight) agrees(done int64, h hash.Hash) bool {
	if f.left == nil || done != f.left.Hashed || bytes.Equal(h.Sum(nil), f.left.Sum) {
		return true
	}
	f.damage()
	return false
}

// damage gives up the spool of a flight that was restored. Who was sent something out of it has to begin again.
func (f *Flight) damage() {
	f.mu.Lock()
	f.damaged = true
	f.mu.Unlock()
	f.breakSpool(errDamaged)
}

func (f *Flight) isDamaged() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.damaged
}

// hold has the spool stay until keep.
func (f *Flight) hold() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = true
}

// keep leaves what is there to the next process, if that is of use, and gives it back. All goroutines of the group are
// over. It returns how many bytes are kept.
func (f *Flight) keep() (kept int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = false
	defer f.release()
	k, ok := f.spool.(Keeper)
	if !ok || f.place.key != "" || f.verified || f.broken != nil || f.disputed || !errors.Is(f.failed, ErrClosed) || len(f.have) == 0 {
		return 0
	}
	if err := k.Keep(f.rest()); err != nil {
		f.g.o.Log.Debug("an unfinished download is not kept over the restart", "digest", f.digest, "err", err)
		return 0
	}
	return f.have.bytes()
}

// rest is what keep leaves. The lock is held.
func (f *Flight) rest() Rest {
	r := Rest{Digest: f.digest, Size: f.size, Until: f.until}
	if !f.parked {
		r.Until = time.Now().Add(f.g.o.Park)
	}
	for _, x := range f.have {
		r.Have = append(r.Have, Extent{x.from, x.to})
	}
	switch {
	case f.left != nil && f.hashed < f.left.Hashed: // not compared yet
		r.Hashed, r.Sum = f.left.Hashed, f.left.Sum
	case f.state != nil && f.hashed > 0:
		r.Hashed, r.Sum = f.hashed, f.state.Sum(nil)
	}
	return r
}
