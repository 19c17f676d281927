package flight

import (
	"context"
	"fmt"
	"hash"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// sizes are the bytes, and the times that go with them, that flights go by. They are a value for the tests alone, which
// drive small blobs through what large ones meet.
type sizes struct {
	extent   int64 // grid of the ranges that are fetched ahead of the prefix
	most     int64 // how much of a client's closed range one request to the source asks for
	holdBack int64 // how much of the prefix's end waits for the digest
	verify   int64 // up to here a blob is verified before its headers go out, if that takes less than verifyWait
	// pace is how often it is looked whether lanes pay; a blob that will be there in nearly needs none.
	pace, nearly time.Duration
	// watch is how often it is looked whether another reader's source is faster.
	watch time.Duration
}

var usual = sizes{
	extent: 4 << 20, most: 16 << 20, holdBack: 64 << 10, verify: 4 << 20,
	pace: 500 * time.Millisecond, nearly: 2 * time.Second, watch: time.Second,
}

const verifyWait = 2 * time.Second

// MismatchError says that what the source sent is not the blob: its digest, or its size, is another. Nothing of it is
// kept. Host is where it came from.
type MismatchError struct {
	Digest   oci.Digest // asked for
	Got      oci.Digest // of the bytes that came, empty where the size already was wrong
	Size     int64      // bytes expected, -1 where not known
	GotSize  int64      // bytes that came or were announced
	Host     string
	Verified int64 // bytes hashed when it was found

	by []string // the Keys that the bytes came by; none: the one Key that was asked
}

func (e *MismatchError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("%s: %s sent %d bytes, expected %d", e.Digest, e.Host, e.GotSize, e.Size)
	}
	if len(e.by) > 1 {
		return fmt.Sprintf("%s: what %s and others sent together has digest %s", e.Digest, e.Host, e.Got)
	}
	return fmt.Sprintf("%s: what %s sent has digest %s", e.Digest, e.Host, e.Got)
}

// Flight is one blob on its way into the store.
type Flight struct {
	g      *Group
	digest oci.Digest
	place  place // among the group's flights
	began  time.Time
	left   *Rest           // by a former process; nil: nothing
	ctx    context.Context // of every fetch; ends with the flight
	cancel context.CancelFunc

	mu       sync.Mutex // guards what follows
	size     int64      // -1: not known
	spool    Spool      // nil until created
	have     extents
	hashing  bool      // the hasher runs
	hashed   int64     // how far it has come
	state    hash.Hash // of that much, once it runs no more; nil: it never did
	verified bool      // the digest is right; spool reads need no hold-back
	failed   error     // ends every reader
	broken   error     // the spool's: readers go on from their own sources
	disputed bool      // a source said another size: not kept for whoever comes later
	ended    bool      // takes no more readers; the spool is discarded when its last user leaves
	users    int       // readers not closed, fetches, the hasher: who may be in the spool
	released bool      // all of that has happened; the spool is discarded
	readers  []*Reader
	fetches  []*fetch
	sources  []Source // that bytes were asked of, one for each Key
	brought  []string // the Keys that bytes came by
	host     string   // that the last bytes came from: evidence
	idle     *time.Timer
	parked   bool
	until    time.Time // parked: how long
	held     bool      // the spool is not discarded yet: keep decides
	asleep   bool      // restored, and nobody has come for it: there is no hasher
	damaged  bool      // what a former process left is not what it had

	lanes lanes
	relay relay

	client string // of the reader that left last: what is fetched without readers is charged to it
	paid   int64  // bytes that it had, and so many may be fetched without counting

	came bell          // bytes are in the spool
	sure bell          // bytes are hashed
	more chan struct{} // wakes the hasher; capacity 1
}

func newFlight(g *Group, at place, size int64) *Flight {
	f := &Flight{g: g, digest: at.digest, place: at, size: size, began: time.Now(), more: make(chan struct{}, 1)}
	f.came.mu, f.sure.mu = &f.mu, &f.mu
	f.ctx, f.cancel = context.WithCancel(g.ctx)
	return f
}

// join adds a reader that expects size bytes. It returns nil when the flight has ended, or is about to, because nobody
// knows its size, and errOtherSize when it goes by another size. The group's lock is held.
func (f *Flight) join(size int64, s Source) (*Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.ended || f.failed != nil || f.broken != nil:
		return nil, nil
	case f.disputed && len(f.readers) == 0 && len(f.fetches) == 0:
		return nil, nil
	case size >= 0 && f.size >= 0 && size != f.size && !f.verified:
		return nil, errOtherSize
	}
	if f.idle != nil {
		f.idle.Stop()
		f.idle = nil
	}
	f.parked = false
	f.wake()
	r := &Reader{f: f, src: s, done: make(chan struct{}), waits: needing{last: time.Now()}}
	f.readers = append(f.readers, r)
	f.users++
	f.relayed()
	return r, nil
}

// spoolReady makes the spool if r is the reader that started the flight. It reports whether r joined one that was
// there. A spool that can't be made breaks the flight at once: its readers go on without.
func (f *Flight) spoolReady(r *Reader) (joined bool) {
	if !r.first {
		return true
	}
	spool, err := f.g.o.Create(f.digest, f.size)
	f.mu.Lock()
	if err != nil {
		f.mu.Unlock()
		f.breakSpool(fmt.Errorf("make a spool for %s: %w", f.digest, err))
		return false
	}
	f.spool = spool
	if f.ended { // closed meanwhile
		f.release()
		f.mu.Unlock()
		return false
	}
	f.users++
	f.hashing = true
	f.g.wg.Go(f.hash)
	f.tell()
	f.mu.Unlock()
	return false
}

func (f *Flight) info() Info {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Info{Digest: f.digest, Size: f.size, Have: f.have.bytes(), Readers: len(f.readers), Parked: f.parked}
}

// prefix is the length of the contiguous start. The lock is held.
func (f *Flight) prefix() int64 { return f.have.run(0) }

// readable returns the end of what a reader at off may have now: nothing before the size is known. The lock is held.
func (f *Flight) readable(off int64) int64 {
	to := f.have.run(off)
	// Whatever lies behind the prefix came as somebody's range and is served as such.
	if guard.HoldBack && !f.verified && off < f.prefix() {
		return max(off, min(to, f.size-f.g.sizes.holdBack))
	}
	return to
}

// sound returns the end of what a reader of the whole blob, who has all before off, may have now: what the hasher has
// seen. So when the spool breaks, the hash of what was sent is known, and can be gone on with. The lock is held.
func (f *Flight) sound(off int64) int64 {
	to := f.readable(off)
	if f.verified {
		return to
	}
	return max(off, min(to, f.hashed))
}

// tell wakes everybody who waits. The lock is held.
func (f *Flight) tell() {
	f.came.ring()
	f.sure.ring()
}

// wrote publishes an extent. The lock is held.
func (f *Flight) wrote(from, to int64) {
	f.have.add(from, to)
	f.poke()
	f.lanes.came += to - from
	if len(f.readers) == 0 && !f.affords(to-from) {
		f.hurry()
	}
	f.came.progress(to - from)
}

// poke has the hasher look again.
func (f *Flight) poke() {
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// live reports whether a reader waits who is a person's. It is what Want.Live answers.
func (f *Flight) live() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.readers, func(r *Reader) bool { return r.src.Live })
}

const (
	// behind is how long a reader has not waited for bytes once it has more to read than it has read.
	behind = time.Second
	// mostNeeds is how many clients needs tells.
	mostNeeds = 8
)

// needs are the clients whose readers wait for bytes, or have done so lately.
func (f *Flight) needs() (clients []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, r := range f.readers {
		if (r.waits.now || now.Sub(r.waits.last) < behind) && !slices.Contains(clients, r.src.Client) {
			if clients = append(clients, r.src.Client); len(clients) == mostNeeds {
				break
			}
		}
	}
	return clients
}

// sourceFailed ends the readers whose source has that key. Others who wait ask again, each through its own source.
func (f *Flight) sourceFailed(key string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if best := f.relay.best; best != nil && best.Key == key {
		f.relay.best = nil
	}
	f.readers = slices.DeleteFunc(f.readers, func(r *Reader) bool {
		if r.src.Key != key {
			return false
		}
		r.err = err
		return true
	})
	f.tell()
	f.settle()
}

// end ends the flight: for good, when err is not nil and nothing was verified.
func (f *Flight) end(err error) {
	f.g.forget(f) // first, so that nobody who is told now comes back to this flight
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	if f.failed == nil && !f.verified {
		f.failed = err
	}
	if f.idle != nil {
		f.idle.Stop()
	}
	f.cancel()
	f.tell()
	f.release()
}

// breakSpool ends the flight as a shared thing: each reader goes on by itself. Once all is verified there is nothing to
// end.
func (f *Flight) breakSpool(err error) {
	f.mu.Lock()
	first, ends := f.broken == nil, !f.verified
	if first {
		f.broken = err
	}
	if ends {
		f.ended = true
		f.cancel() // after broken is set, which tells the hasher to see its work through
		f.tell()
		f.release()
	}
	f.mu.Unlock()
	if ends {
		f.g.forget(f)
	}
	if first {
		f.g.o.Log.WarnContext(f.ctx, "a download is not cached any further: each of its clients goes on from its upstream",
			"digest", f.digest, "err", err)
	}
}

// leave takes a reader off. It is a user of the spool until it has given that back.
func (f *Flight) leave(r *Reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.readers, r); i >= 0 {
		f.readers = slices.Delete(f.readers, i, i+1)
	}
	r.left = true
	if len(f.readers) == 0 {
		f.client, f.paid = r.src.Client, r.sent.Load()
	}
	f.settle()
}

// affords reports whether n bytes may come without a reader: as many as the last one had, and what its client has of an
// allowance. The lock is held.
func (f *Flight) affords(n int64) bool {
	free := min(n, f.paid)
	f.paid -= free
	return f.g.unread.spend(f.client, n-free) || f.paid > 0
}

// hurry has the flight parked now, instead of after a while. The lock is held.
func (f *Flight) hurry() {
	if f.idle != nil && !f.parked {
		f.idle.Stop()
		f.idle = nil
	}
	f.settle()
}

// done takes a user off.
func (f *Flight) done() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users--
	f.release()
}

// release gives back what the flight holds, once it has ended and nobody reads or writes its spool any more. The lock
// is held.
func (f *Flight) release() {
	if !f.ended || f.users > 0 || f.held || f.released {
		return
	}
	f.released = true
	f.cancel() // or the group's context would remember it for good
	if f.spool == nil {
		return
	}
	if err := f.spool.Discard(); err != nil {
		f.g.o.Log.WarnContext(f.ctx, "a spool could not be removed; it is swept at the next start",
			"digest", f.digest, "err", err)
	}
}

// settle decides what becomes of a flight without readers. The lock is held.
func (f *Flight) settle() {
	if f.ended || len(f.readers) > 0 || f.idle != nil || f.goesOn() {
		return
	}
	linger := f.g.o.Linger
	// A flight that has waited for its first byte for longer than Linger is kept for as long again: the answer may be near.
	if unbegun := len(f.have) == 0 && time.Since(f.began) < linger; f.disputed || unbegun || !f.affords(0) {
		linger = 0
	}
	f.idle = time.AfterFunc(linger, f.park)
}

// goesOn reports whether the flight may go on without readers: all is there, and it is about to be committed, or the
// fill runs and is near enough its end. The lock is held.
func (f *Flight) goesOn() bool {
	if f.size >= 0 && f.prefix() >= f.size {
		return true
	}
	for _, ft := range f.fetches {
		if ft.fill && !ft.stopped && f.size >= 0 && len(f.have) > 0 && f.affords(0) {
			missing := f.size - f.have.bytes()
			return missing <= f.g.o.GoOn || missing <= f.size/2
		}
	}
	return false
}

// park stops what runs, and keeps what is there for readers that come back.
func (f *Flight) park() {
	f.mu.Lock()
	f.idle = nil
	if f.ended || len(f.readers) > 0 || f.goesOn() {
		f.mu.Unlock()
		return
	}
	for _, ft := range f.fetches {
		ft.stop()
	}
	keep := len(f.have) > 0 && !f.disputed
	if keep {
		f.parked, f.until = true, time.Now().Add(f.g.o.Park)
		f.idle = time.AfterFunc(f.g.o.Park, f.expire)
		f.rested()
	}
	f.mu.Unlock()
	if !keep {
		f.expire()
	}
}

// rested tells the spool of a parked flight once nothing writes to it any more. The lock is held.
func (f *Flight) rested() {
	if p, ok := f.spool.(Parker); ok && f.parked && len(f.fetches) == 0 && !f.released {
		p.Park()
	}
}

// expire ends a flight that nobody came back to.
func (f *Flight) expire() {
	f.g.mu.Lock() // keeps a Join from coming between the check and the end
	f.mu.Lock()
	gone := !f.ended && len(f.readers) == 0
	if gone {
		f.ended = true
		f.g.drop(f)
	}
	f.mu.Unlock()
	f.g.mu.Unlock()
	if gone {
		f.end(ErrClosed)
	}
}
