package flight

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/registrymirror/mirror/oci"
)

// Options for a Group. The zero value of a field means what its comment says.
type Options struct {
	// Open looks for finished content. The group calls it before it starts a flight, and again if a flight has ended
	// meanwhile, so that a commit and a Join never miss each other. Any error means that there is none. Nil: there never is.
	Open func(d oci.Digest) (Object, error)
	// Create reserves space and makes the spool of a blob of size bytes, -1 where that is not known.
	Create func(d oci.Digest, size int64) (Spool, error)
	Linger time.Duration // after the last reader has left; 10 s
	Park   time.Duration // how long an unfinished spool is kept; 1 h
	GoOn   int64         // bytes that may be missing for a fill to continue without readers; 64 MiB
	// ParallelAbove is the size in bytes above which a blob is fetched in several parts at a time while that is faster.
	// 0: none is.
	ParallelAbove int64
	Lanes         int // most parts of one blob at a time; 8
	LanesPerHost  int // most parts beside each blob's first, of all blobs from one host; 21
	// Unread is how many bytes are fetched without readers for one client, in ten minutes; 64 MiB. Negative: no limit.
	Unread int64
	Log    *slog.Logger // nil: discard
}

// Group holds the flights of a cache: one for each digest, and of a digest that was spoilt, one for each Key.
type Group struct {
	o      Options
	sizes  sizes
	hosts  hosts
	unread unread
	ctx    context.Context // ends with Close: the life of every fetch
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of every flight
	ended  chan struct{}  // closed at the end of Close

	mu      sync.Mutex // guards the fields below; taken before a Flight's mutex, never while one is held
	flights map[place]*Flight
	spoilt  map[oci.Digest]time.Time // whose bytes of several Keys were wrong: until when Keys are kept apart
	ends    uint64                   // how many flights have been removed
	closed  bool
}

// ErrClosed says that the group was closed: the mirror is stopping.
var ErrClosed = errors.New("the cache is closed")

// errOtherSize sends a reader past a flight. It never leaves this package.
var errOtherSize = errors.New("the flight has another size")

// New makes a group. Close ends it.
func New(o Options) *Group {
	o.Linger, o.Park, o.GoOn = cmp.Or(o.Linger, 10*time.Second), cmp.Or(o.Park, time.Hour), cmp.Or(o.GoOn, 64<<20)
	o.Lanes, o.LanesPerHost, o.Unread = cmp.Or(o.Lanes, 8), cmp.Or(o.LanesPerHost, 21), cmp.Or(o.Unread, 64<<20)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	// The context is the group's own: fetches outlive the requests that started them.
	ctx, cancel := context.WithCancel(context.Background())
	return &Group{
		o: o, sizes: usual, ctx: ctx, cancel: cancel, ended: make(chan struct{}), flights: make(map[place]*Flight),
		hosts: hosts{most: o.LanesPerHost, lanes: make(map[string]int)},
		unread: unread{
			most: o.Unread, clients: make(map[string]*rate.Limiter), all: allowance(unreadAll * o.Unread),
		},
	}
}

// Join returns the blob's finished content, or a *Reader of the flight that brings it, which it starts if there is
// none. joined is true when there was a flight already. size is -1 where it is not known; then Join waits for it. Where a
// flight has another size, which is not known to be the right one, the Reader bypasses the flight. The context bounds only
// the waits for sources.
func (g *Group) Join(ctx context.Context, d oci.Digest, size int64, s Source) (o Object, joined bool, err error) {
	r, o, joined, err := g.attach(d, size, s)
	if errors.Is(err, errOtherSize) {
		if r, err = g.Direct(ctx, d, size, s); err == nil {
			return r, false, nil
		}
		return nil, false, err
	}
	if err != nil || o != nil {
		return o, false, err
	}
	if !joined {
		r.f.makeSpool()
	}
	if err := r.sized(ctx); err != nil {
		return nil, joined, err
	}
	return r, joined, nil
}

// attach returns the finished content, or a reader of the flight, which it makes where there is none.
func (g *Group) attach(d oci.Digest, size int64, s Source) (r *Reader, o Object, joined bool, err error) {
	var foreign *Flight
	defer func() { // without the lock
		if foreign != nil {
			foreign.end(ErrClosed)
		}
	}()
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		if g.closed {
			return nil, nil, false, ErrClosed
		}
		at := g.place(d, s.Key)
		if f := g.flights[at]; f != nil && f.endForeign(s.Key) {
			foreign = f
			g.drop(f)
		}
		seen, ends := g.flights[at], g.ends
		if seen != nil {
			if r, err := seen.join(size, s); r != nil || err != nil {
				return r, nil, true, err
			}
		}
		if o := g.open(d); o != nil {
			return nil, o, false, nil
		}
		if g.closed || g.flights[at] != seen || g.ends != ends {
			continue // another Join was faster, or a flight has committed the content since
		}
		f := newFlight(g, at, size)
		r, err := f.join(size, s)
		if err != nil {
			return nil, nil, false, err
		}
		g.flights[at] = f
		return r, nil, false, nil
	}
}

// open looks for finished content. The lock is held, and released meanwhile: a disk may be slow.
func (g *Group) open(d oci.Digest) Object {
	if g.o.Open == nil {
		return nil
	}
	g.mu.Unlock()
	defer g.mu.Lock()
	o, err := g.o.Open(d)
	if err != nil {
		return nil
	}
	return o
}

// forget removes a flight that has ended from the group.
func (g *Group) forget(f *Flight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(f)
}

// drop is forget with the lock held.
func (g *Group) drop(f *Flight) {
	if g.flights[f.place] == f {
		delete(g.flights, f.place)
		g.ends++
	}
}

// Flying reports whether a flight of d is running or parked.
func (g *Group) Flying(d oci.Digest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, apart := g.spoilt[d]; !apart {
		return g.flights[place{digest: d}] != nil
	}
	for at := range g.flights {
		if at.digest == d {
			return true
		}
	}
	return false
}

// Parked is how many flights are parked: they have neither readers nor fetches, and are kept for readers that return.
func (g *Group) Parked() int { return len(g.parked()) }

// DropParked ends the parked flights, to free their space. It reports whether there were any.
func (g *Group) DropParked() bool {
	list := g.parked()
	for _, f := range list {
		f.expire()
	}
	return len(list) > 0
}

func (g *Group) parked() (list []*Flight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.flights {
		if f.isParked() {
			list = append(list, f)
		}
	}
	return list
}

// Close ends every flight: fetches are cancelled, readers get ErrClosed, unfinished spools that can outlive the process
// are kept for the next one, others are discarded. It returns when the last goroutine has ended, in every call.
func (g *Group) Close() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		<-g.ended
		return
	}
	defer close(g.ended)
	g.closed = true
	var all []*Flight
	for _, f := range g.flights {
		all = append(all, f)
	}
	g.mu.Unlock()
	g.cancel()
	for _, f := range all {
		f.hold()
		f.end(ErrClosed)
	}
	g.wg.Wait()
	var kept int
	var bytes int64
	for _, f := range all {
		if n := f.keep(); n > 0 {
			kept++
			bytes += n
		}
	}
	if kept > 0 {
		g.o.Log.Info("unfinished downloads are kept for the next start", "downloads", kept, "bytes", bytes)
	}
}
