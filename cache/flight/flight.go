package flight

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// sizes are the limits in bytes and the times that flights use. They are a value only for tests, which drive small blobs
// through the states of large ones.
type sizes struct {
	extent   int64 // grid of the ranges that are fetched ahead of the prefix
	most     int64 // how much of a client's closed range one request to the source asks for
	holdBack int64 // how much of the prefix's end waits for the digest
	verify   int64 // blobs up to this size are verified before their headers are sent, if that takes less than verifyWait
	// pace is how often the flight checks whether connections pay off; a blob that will be complete within nearly gets no
	// more of them.
	pace, nearly time.Duration
	// watch is how often the flight checks whether another reader's source is faster.
	watch time.Duration
}

var usual = sizes{
	extent: 4 << 20, most: 16 << 20, holdBack: 64 << 10, verify: 4 << 20,
	pace: 250 * time.Millisecond, nearly: 1500 * time.Millisecond, watch: time.Second,
}

const verifyWait = 2 * time.Second

// MismatchError says that the bytes of a source are not the blob: their digest or their number differs. None of them is
// kept.
type MismatchError struct {
	Digest  oci.Digest // of the blob that was asked for
	Got     oci.Digest // of the bytes that arrived; empty where the size is wrong
	Size    int64      // bytes expected; -1: not known
	GotSize int64      // bytes that arrived or were announced
	Host    string     // that sent them

	by []string // the Keys by which the bytes arrived; none: the one Key that was asked
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
	place                  // among the group's flights: the digest, and where Keys are kept apart the Key
	ctx    context.Context // of every fetch; ends with the flight
	cancel context.CancelFunc

	mu       sync.Mutex // guards the fields below
	plan     plan       // which bytes are there, and which are fetched
	spool    Spool      // nil until it is created
	hasher   hasher
	failed   error // ends every reader; nil: none
	broken   error // of the spool, so that readers continue from their own sources; nil: none
	life     life
	readers  readers
	fetches  []*fetch
	origins  origins
	idle     idle
	former   former
	parallel parallel
	relay    relay
	bells
}

// bells tell of what happens to a flight.
type bells struct {
	data   bell          // rings for bytes in the spool
	hashed bell          // rings for bytes that are hashed
	joined chan struct{} // closed when the first client joins
}

// readers are those of a flight, in the order in which they joined.
type readers []*Reader

// client is the first one of a client; nil: there is none.
func (l readers) client() *Reader {
	if i := slices.IndexFunc(l, func(r *Reader) bool { return !r.src.Background }); i >= 0 {
		return l[i]
	}
	return nil
}

// life is how long a flight holds its spool.
type life struct {
	users    int  // of the spool: readers that are not closed, fetches, the hasher
	ended    bool // the flight accepts no more readers; the spool is discarded when its last user has left
	held     bool // the spool is not discarded yet: keep decides
	released bool // the spool is discarded
	commit   *commit
}

// commit is how the blob was given to the store; nil: it was not yet.
type commit struct{ err error }

func newFlight(g *Group, at place, size int64) *Flight {
	f := &Flight{
		g: g, place: at,
		plan:   plan{sizes: g.sizes, above: g.o.ParallelAbove, size: size},
		hasher: hasher{wake: make(chan struct{}, 1)},
		idle:   idle{began: time.Now()},
		bells:  bells{joined: make(chan struct{})},
	}
	f.data.mu, f.hashed.mu = &f.mu, &f.mu
	f.parallel.f, f.relay.f = f, f
	f.ctx, f.cancel = context.WithCancel(g.ctx)
	return f
}

// join adds a reader that expects size bytes. It returns nil where the flight has ended, or is about to because its size
// is disputed, and errOtherSize where it has another size. The group's lock is held.
func (f *Flight) join(size int64, s Source) (*Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.life.ended || f.failed != nil || f.broken != nil:
		return nil, nil
	case f.origins.disputed && len(f.readers) == 0 && len(f.fetches) == 0:
		return nil, nil
	case size >= 0 && f.plan.size >= 0 && size != f.plan.size && !f.hasher.verified:
		return nil, errOtherSize
	}
	f.idle.stop()
	f.idle.parked = false
	f.restart()
	r := newReader(f, s)
	f.readers = append(f.readers, r)
	if !s.Background {
		select {
		case <-f.joined:
		default:
			close(f.joined)
		}
	}
	f.life.users++
	f.relay.joined()
	return r, nil
}

// makeSpool makes the spool of a new flight. Without one the flight is broken at once: its readers continue from their own
// sources.
func (f *Flight) makeSpool() {
	spool, err := f.g.o.Create(f.digest, f.plan.size)
	f.mu.Lock()
	if err != nil {
		f.mu.Unlock()
		f.breakSpool(fmt.Errorf("make a spool for %s: %w", f.digest, err))
		return
	}
	defer f.mu.Unlock()
	f.spool = spool
	if f.life.ended { // the group was closed meanwhile
		f.release()
		return
	}
	f.startHasher()
	f.tell()
}

// every calls look from time to time, until that returns false or the flight ends. The flight's lock is held, and released
// meanwhile.
func every(f *Flight, d time.Duration, look func(now time.Time) bool) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		f.mu.Unlock()
		select {
		case <-t.C:
		case <-f.ctx.Done():
		}
		f.mu.Lock()
		if f.ctx.Err() != nil || f.life.ended || !look(time.Now()) {
			return
		}
	}
}

func (f *Flight) isParked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.idle.parked
}

// readable is the end of the bytes that a reader at off may have now: none before the size is known. The lock is held.
func (f *Flight) readable(off int64) int64 {
	to := f.plan.have.run(off)
	// Bytes behind the prefix came for a reader's range and are served as such.
	if guard.HoldBack && !f.hasher.verified && off < f.plan.prefix() {
		return max(off, min(to, f.plan.size-f.g.sizes.holdBack))
	}
	return to
}

// sound is the end of the bytes that a reader of the whole blob, which has all before off, may have now: those that the
// hasher has seen. So when the spool breaks, the hash of the bytes that were sent is known. The lock is held.
func (f *Flight) sound(off int64) int64 {
	to := f.readable(off)
	if f.hasher.verified {
		return to
	}
	return max(off, min(to, f.hasher.at))
}

// tell wakes every reader and fetch that waits. The lock is held.
func (f *Flight) tell() {
	f.data.ring()
	f.hashed.ring()
}

// arrived announces that n more bytes are in the spool. The lock is held.
func (f *Flight) arrived(n int64) {
	f.hasher.look()
	if len(f.readers) == 0 && !f.affords(n) {
		f.hurry()
	}
	f.data.progress(n)
}

const (
	// behind is how long a reader still counts as one that needs bytes after it has last waited for some.
	behind = time.Second
	// mostNeeds is how many clients needs returns at most.
	mostNeeds = 8
)

// needs are the clients whose readers wait for bytes, or have done so lately.
func (f *Flight) needs() (clients []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, r := range f.readers {
		if r.src.Background {
			continue
		}
		if (r.waits.now || now.Sub(r.waits.last) < behind) && !slices.Contains(clients, r.src.Client) {
			if clients = append(clients, r.src.Client); len(clients) == mostNeeds {
				break
			}
		}
	}
	return clients
}

// sourceFailed ends the readers whose source has that Key. Other readers ask again, each by its own source.
func (f *Flight) sourceFailed(key string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.relay.sourceFailed(key)
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

// end ends the flight; its readers get err, unless the blob is verified.
func (f *Flight) end(err error) {
	f.g.forget(f) // first, so that no reader that is told now returns to this flight
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life.ended = true
	if f.failed == nil && !f.hasher.verified {
		f.failed = err
	}
	f.idle.stop()
	f.cancel()
	f.tell()
	f.release()
}

// breakSpool ends the flight as a shared download: each reader continues by itself. A flight that is verified does not
// end.
func (f *Flight) breakSpool(err error) {
	f.mu.Lock()
	first, ends := f.broken == nil, !f.hasher.verified
	if first {
		f.broken = err
	}
	if ends {
		f.life.ended = true
		f.cancel() // after broken is set, which tells the hasher to finish with the bytes that are there
		f.tell()
		f.release()
	}
	f.mu.Unlock()
	if ends {
		f.g.forget(f)
	}
	if first {
		f.g.o.Log.WarnContext(f.ctx, "download is no longer cached; each client continues from its upstream",
			"digest", f.digest, "error", err)
	}
}

// leave removes a reader from the flight. It still uses the spool until it has released that.
func (f *Flight) leave(r *Reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.readers, r); i >= 0 {
		f.readers = slices.Delete(f.readers, i, i+1)
	}
	if len(f.readers) == 0 {
		f.idle.client, f.idle.paid, f.idle.background = r.src.Client, r.sent.Load(), r.src.Background
	}
	f.settle()
}

// done removes a user of the spool.
func (f *Flight) done() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life.users--
	f.release()
}

// release discards the spool of a flight that has ended, once it has no users. The lock is held.
func (f *Flight) release() {
	if !f.life.ended || f.life.users > 0 || f.life.held || f.life.released {
		return
	}
	f.life.released = true
	f.cancel() // or the group's context would keep a reference to it
	if f.spool == nil {
		return
	}
	if err := f.spool.Discard(); err != nil {
		f.g.o.Log.WarnContext(f.ctx, "a spool could not be removed; it is swept at the next start",
			"digest", f.digest, "error", err)
	}
}
