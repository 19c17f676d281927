package cache

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// Options for a Cache. The zero value of a field means what its comment says.
type Options struct {
	Store Store
	Index Index // nil: recency does not outlive a restart
	// Size is the budget in bytes, for stored content and for reservations of downloads.
	Size int64
	// Free returns the space of the disk. Nil: MinFree is not used.
	Free    func() (Space, error)
	MinFree MinFree
	Dir     string       // of the store, for messages
	Log     *slog.Logger // nil: discard

	GoOn int64 // bytes that may be missing for a download to continue without readers; 64 MiB
	// ParallelAbove is the size in bytes above which a blob is fetched in parallel ranges. 0: no blob is.
	ParallelAbove int64
}

// MinFree is the space that stays free on the disk, whatever Size is: Percent of it, and of its inodes, where that is above
// zero, else Bytes.
type MinFree struct {
	Percent float64 // 0 to 100
	Bytes   int64
}

var errLoading = errors.New("what is stored is not known yet, shortly after the start")

// patience is how long a miss waits for Run to have found out what is stored, before it is served uncached: until then it
// is not known how much room there is.
const patience = 5 * time.Second

// Cache holds content by digest. Make one with New and have Run going; all methods are safe for concurrent use.
type Cache struct {
	o           Options
	flights     *flight.Group
	spoolFailed sync.Map // digests whose spool could not be made, for the Open that wanted it
	wake        signal   // has Run look whether there is too much
	freed       signal   // a reservation was given back
	health      *health
	began       time.Time // when it was made
	counts      counts
	noRoomLog   rate.Sometimes // logs that content is not cached
	leases      *leases        // has a lock of its own, which is a leaf
	loadedC     chan struct{}  // closed when what is stored is known

	// Locks are taken in this order: evicting, a stripe, mu. A flight's locks come before mu too, and none of them is
	// ever waited for with mu held.
	evicting sync.Mutex // one call at a time makes room, so that none takes another's victims for a lack
	stripes  stripes    // what happens to a file and to its entry happens at once

	mu     sync.Mutex // guards the fields below; nothing is called while holding it
	budget *budget
	// dirty is the content whose use or removal the index does not have yet: it was removed where it has no entry.
	dirty map[oci.Digest]struct{}
}

// counts are the counters of Stats.
type counts struct {
	hits, misses, joined, uncached, evicted, evictedBytes atomic.Int64
}

// New makes a cache. Nothing runs, and nothing is read, before Run.
func New(o Options) *Cache {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	leases := newLeases(maxKept)
	c := &Cache{
		o:       o,
		wake:    newSignal(),
		freed:   newSignal(),
		budget:  newBudget(o.Size, leases.has),
		dirty:   make(map[oci.Digest]struct{}),
		loadedC: make(chan struct{}),
		leases:  leases,
		health:  newHealth(o),
		began:   time.Now(),

		noRoomLog: rate.Sometimes{Interval: time.Minute},
	}
	c.flights = flight.New(flight.Options{
		Open: c.openForFlight, Create: c.create, GoOn: o.GoOn, Log: o.Log,
		ParallelAbove: o.ParallelAbove,
	})
	return c
}

// Open returns the content, from the store, from a download that is under way, or from one that it starts with s. size is
// the one that the caller expects in bytes, -1 where it doesn't know; then Open waits for the source to tell. Content that
// can't be stored comes straight from s. The context bounds that wait alone. The caller closes the object.
func (c *Cache) Open(ctx context.Context, d oci.Digest, size int64, s Source) (Object, Outcome, error) {
	if o := c.hit(d, size); o != nil {
		c.counts.hits.Add(1)
		return o, Hit, nil
	}
	if !c.flights.Flying(d) {
		if err := c.Room(ctx, size); err != nil {
			if ctx.Err() != nil {
				return nil, Miss, err
			}
			c.logUncached(ctx, d, size, err)
			return c.direct(ctx, d, size, s)
		}
	}
	o, joined, err := c.flights.Join(ctx, d, size, s)
	if err != nil {
		c.spoolFailed.Delete(d)
		if joined {
			return nil, Joined, err
		}
		return nil, Miss, err
	}
	if _, ok := o.(*flight.Reader); !ok { // committed since
		c.counts.hits.Add(1)
		return o, Hit, nil
	}
	if joined {
		c.counts.joined.Add(1)
		return o, Joined, nil
	}
	if _, failed := c.spoolFailed.LoadAndDelete(d); failed {
		c.counts.uncached.Add(1)
		return o, Uncached, nil
	}
	c.counts.misses.Add(1)
	return o, Miss, nil
}

// direct serves from the caller's own source.
func (c *Cache) direct(ctx context.Context, d oci.Digest, size int64, s Source) (Object, Outcome, error) {
	c.counts.uncached.Add(1)
	r, err := c.flights.Direct(ctx, d, size, s)
	if err != nil {
		return nil, Uncached, err
	}
	return r, Uncached, nil
}

// logUncached logs why content is not cached, once a minute.
func (c *Cache) logUncached(ctx context.Context, d oci.Digest, size int64, err error) {
	c.noRoomLog.Do(func() {
		c.o.Log.WarnContext(ctx, "content is served without being cached", "digest", d, "size", size, "error", err)
	})
}

// hit opens stored content, or returns nil.
func (c *Cache) hit(d oci.Digest, size int64) Object {
	o, err := c.o.Store.Open(d)
	if errors.Is(err, ErrNotFound) {
		c.dropMissing(d)
		return nil
	}
	if err != nil {
		c.o.Log.Warn("cached content can't be opened; it is fetched again", "digest", d, "error", err)
		return nil
	}
	n := o.Size()
	if c.hasSize(d, size, n) {
		c.use(d, o)
		return o
	}
	_ = o.Close()
	c.o.Log.Warn("cached content has the wrong size; it is removed and fetched again", "digest", d, "bytes", n, "size", size)
	if err := c.Remove(d); err != nil {
		c.health.fail(err)
	}
	return nil
}

// hasSize judges the size n of stored content. Content that was verified when it came has the right size whatever a caller
// expects: a manifest that lies about a layer must not have the layer removed.
func (c *Cache) hasSize(d oci.Digest, size, n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.budget.entries[d]; e != nil && e.verified {
		return e.size == n
	}
	return size < 0 || size == n
}

// openForFlight is hit for a flight that is about to start. It holds the group's lock and must be quick: suspect content
// was hashed, and damaged content removed, by the hit before.
func (c *Cache) openForFlight(d oci.Digest) (Object, error) {
	o, err := c.o.Store.Open(d)
	if err != nil {
		return nil, err
	}
	if !c.hasSize(d, -1, o.Size()) {
		_ = o.Close()
		return nil, ErrNotFound
	}
	c.use(d, o)
	return o, nil
}

// use records a use of content, and that it is open until o is closed.
func (c *Cache) use(d oci.Digest, o Object) {
	var h *hold
	if n, ok := o.(CloseNotifier); ok {
		h = &hold{o: o}
		n.OnClose(func() { // before another goroutine can close it
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.budget.release(h) {
				c.freed.send()
			}
		})
	}
	c.mu.Lock()
	e := c.budget.entries[d]
	if e == nil {
		c.mu.Unlock()
		c.adopt(d)
		c.mu.Lock()
		if e = c.budget.entries[d]; e == nil {
			c.mu.Unlock()
			return
		}
	}
	c.touch(e)
	if h != nil {
		c.budget.hold(e, h, time.Now())
	}
	c.mu.Unlock()
}

// touch makes an entry the latest used. The lock is held.
func (c *Cache) touch(e *entry) {
	c.budget.lru.touch(e, minute(c.now()))
	c.dirty[e.digest] = struct{}{}
}

// add adds content, or records that it came again. The lock and the digest's stripe are held.
func (c *Cache) add(d oci.Digest, size int64, verified bool) *entry {
	e := c.budget.add(d, size, verified)
	c.touch(e)
	if c.budget.aboveHigh() {
		c.wake.send()
	}
	return e
}

// drop takes out content that is not stored any more. The lock and the digest's stripe are held.
func (c *Cache) drop(d oci.Digest) {
	if c.budget.remove(d, time.Now()) {
		c.dirty[d] = struct{}{}
	}
}

// now is the time for recency: the clock's at the start, and the time that has passed since. So a clock that is set makes
// nothing old or new.
func (c *Cache) now() time.Time { return c.began.Add(time.Since(c.began)) }

// adopt adds content that is in the store and was not known: not loaded yet, or put there by hand.
func (c *Cache) adopt(d oci.Digest) {
	l := c.stripes.of(d)
	l.Lock()
	defer l.Unlock()
	o, err := c.o.Store.Open(d) // again, since it may have been removed
	if err != nil {
		return
	}
	defer o.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.budget.entries[d] == nil {
		c.add(d, o.Size(), false)
	}
}

// dropMissing takes out an entry whose content is not in the store any more.
func (c *Cache) dropMissing(d oci.Digest) {
	c.mu.Lock()
	e := c.budget.entries[d]
	c.mu.Unlock()
	if e == nil {
		return
	}
	l := c.stripes.of(d)
	l.Lock()
	defer l.Unlock()
	o, err := c.o.Store.Open(d) // it may have been stored again
	if err == nil {
		_ = o.Close()
		return
	}
	if errors.Is(err, ErrNotFound) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drop(d)
	}
}

// stripes are locks by digest.
type stripes [64]sync.Mutex

// of returns the lock of a digest.
func (s *stripes) of(d oci.Digest) *sync.Mutex {
	var h uint32
	for i := range len(d) {
		h = h*31 + uint32(d[i])
	}
	return &s[h%uint32(len(s))]
}
