package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// Options for a Cache. The zero value of a field means what its comment says.
type Options struct {
	Store Store
	Index Index // nil: recency does not outlive a restart
	// Size is the budget in bytes, for what is stored and what is reserved for downloads.
	Size int64
	// Free tells what the disk has left. Nil: MinFree is not looked at.
	Free    func() (Space, error)
	MinFree MinFree
	Dir     string       // of the store, for messages
	Log     *slog.Logger // nil: discard

	// How long a download goes on without readers, how long what it has is kept, and how many bytes may be missing for
	// it to go on to the end: 10 s, 1 h, 64 MiB. See flight.Options.
	Linger time.Duration
	Park   time.Duration
	GoOn   int64

	// ParallelAbove is the size in bytes above which a blob is fetched in parallel ranges. 0: none is.
	ParallelAbove int64
}

// MinFree is what stays free on the disk whatever Size says: Percent of it, and of its inodes, where that is above
// zero, else Bytes.
type MinFree struct {
	Percent float64 // 0 to 100
	Bytes   int64
}

var errLoading = errors.New("what is stored is not known yet, shortly after the start")

// patience is how long a miss waits for Run to have found out what is stored, before it is served uncached: without
// that nobody knows how much room there is.
const patience = 5 * time.Second

// Cache holds content by digest. Make one with New and have Run going; all methods are safe for concurrent use.
type Cache struct {
	o       Options
	flights *flight.Group
	failed  sync.Map      // digests whose spool could not be made, for the Open that wanted it
	wake    chan struct{} // has Run look whether there is too much; capacity 1
	freed   chan struct{} // a reservation was given back; capacity 1
	broken  atomic.Bool   // the disk failed; Run probes it
	health  *health
	began   time.Time // when it was made

	hits, misses, joined, uncached, evicted, evictedBytes atomic.Int64
	warned                                                atomic.Int64 // since began, when it last said that there is no room

	// Locks are taken in this order: evicting, a stripe, mu. A flight's locks come before mu too, and none of them is
	// ever waited for with mu held.
	evicting sync.Mutex     // one who makes room at a time, so that none mistakes another's victims for a lack
	stripes  [64]sync.Mutex // by digest: what happens to a file and to its entry happens at once

	leases *leases // has a lock of its own, which is a leaf

	mu      sync.Mutex // guards what follows; nothing is called while holding it
	entries map[oci.Digest]*entry
	lru     segments
	stored  int64 // bytes of all entries
	// reserved is what downloads hold and may write; pending the part of it that the disk does not know of yet; claimed
	// is reserved and what they are going to need; parkedBytes is the part of reserved that may be dropped.
	reserved, pending, claimed, parkedBytes int64
	held                                    map[*entry]time.Time // taken out while open, and since when
	heldBytes                               int64                // of them
	full                                    struct {             // what could not be had by eviction, and how long that is believed
		lack  lack
		until time.Time
	}
	dirty   map[oci.Digest]struct{} // to be recorded in the index
	gone    map[oci.Digest]struct{} // to be taken out of the index
	loaded  bool
	loadedC chan struct{}           // closed when it is
	removed map[oci.Digest]struct{} // while not loaded: what the load must not bring back
}

// New makes a cache. Nothing runs, and nothing is read, before Run.
func New(o Options) *Cache {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{
		o:       o,
		wake:    make(chan struct{}, 1),
		freed:   make(chan struct{}, 1),
		entries: make(map[oci.Digest]*entry),
		dirty:   make(map[oci.Digest]struct{}),
		gone:    make(map[oci.Digest]struct{}),
		removed: make(map[oci.Digest]struct{}),
		loadedC: make(chan struct{}),
		held:    make(map[*entry]time.Time),
		leases:  newLeases(maxKept),
		health:  newHealth(o),
		began:   time.Now(),
	}
	c.lru.init(o.Size / 3 * 2)
	c.flights = flight.New(flight.Options{
		Open: c.again, Create: c.create, Linger: o.Linger, Park: o.Park, GoOn: o.GoOn, Log: o.Log,
		ParallelAbove: o.ParallelAbove,
	})
	return c
}

// Open returns the content, from the store, from a download that is under way, or from one that it starts with s. size
// is what the caller expects in bytes, -1 where it doesn't know; then Open waits for the source to say. What can't be
// stored comes straight from s. The context bounds that wait alone. The caller closes the object.
func (c *Cache) Open(ctx context.Context, d oci.Digest, size int64, s Source) (Object, Outcome, error) {
	if o := c.hit(d, size); o != nil {
		c.hits.Add(1)
		return o, Hit, nil
	}
	if !c.flights.Flying(d) {
		if err := c.room(ctx, size); err != nil {
			if ctx.Err() != nil {
				return nil, Miss, err
			}
			c.sayUncached(ctx, d, size, err)
			return c.direct(ctx, d, size, s)
		}
	}
	o, joined, err := c.flights.Join(ctx, d, size, s)
	if err != nil {
		c.failed.Delete(d)
		return nil, outcome(joined), err
	}
	if _, ok := o.(*flight.Reader); !ok { // committed since
		c.hits.Add(1)
		return o, Hit, nil
	}
	if joined {
		c.joined.Add(1)
		return o, Joined, nil
	}
	if _, failed := c.failed.LoadAndDelete(d); failed {
		c.uncached.Add(1)
		return o, Uncached, nil
	}
	c.misses.Add(1)
	return o, Miss, nil
}

func outcome(joined bool) Outcome {
	if joined {
		return Joined
	}
	return Miss
}

// direct serves from the caller's own source.
func (c *Cache) direct(ctx context.Context, d oci.Digest, size int64, s Source) (Object, Outcome, error) {
	c.uncached.Add(1)
	r, err := c.flights.Direct(ctx, d, size, s)
	if err != nil {
		return nil, Uncached, err
	}
	return r, Uncached, nil
}

// sayUncached logs why, once a minute.
func (c *Cache) sayUncached(ctx context.Context, d oci.Digest, size int64, err error) {
	now, last := int64(time.Since(c.began)), c.warned.Load()
	if last != 0 && now-last < int64(time.Minute) || !c.warned.CompareAndSwap(last, max(now, 1)) {
		return
	}
	c.o.Log.WarnContext(ctx, "content is served without being cached", "digest", d, "size", size, "err", err)
}

// hit opens stored content, or returns nil.
func (c *Cache) hit(d oci.Digest, size int64) Object {
	o, err := c.o.Store.Open(d)
	if errors.Is(err, ErrNotFound) {
		c.lost(d)
		return nil
	}
	if err != nil {
		c.o.Log.Warn("cached content can't be opened; it is fetched again", "digest", d, "err", err)
		return nil
	}
	n := o.Size()
	if c.right(d, size, n) {
		c.use(d, o)
		return o
	}
	_ = o.Close()
	c.o.Log.Warn("cached content has the wrong size; it is removed and fetched again", "digest", d, "size", n,
		"expected", size)
	if err := c.Remove(d); err != nil {
		c.diskFailed(err)
	}
	return nil
}

// right judges the size n of what is stored. What was verified when it came has the right size whatever a caller
// expects: a manifest that lies about a layer must not have the layer thrown away.
func (c *Cache) right(d oci.Digest, size, n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[d]; e != nil && e.known {
		return e.size == n
	}
	return size < 0 || size == n
}

// again is hit for a flight that is about to start. It holds the group's lock and must be quick: what is in doubt was
// hashed, and what is wrong removed, by the hit before.
func (c *Cache) again(d oci.Digest) (Object, error) {
	o, err := c.o.Store.Open(d)
	if err != nil {
		return nil, err
	}
	if !c.right(d, -1, o.Size()) {
		_ = o.Close()
		return nil, ErrNotFound
	}
	c.use(d, o)
	return o, nil
}

// use notes a use, and that the content is open until o is closed.
func (c *Cache) use(d oci.Digest, o Object) {
	var h *hold
	if n, ok := o.(CloseNotifier); ok {
		h = &hold{o: o}
		n.OnClose(func() { // before another goroutine can close it
			c.mu.Lock()
			defer c.mu.Unlock()
			c.letGo(h)
		})
	}
	c.mu.Lock()
	e := c.entries[d]
	if e == nil {
		c.mu.Unlock()
		c.adopt(d)
		c.mu.Lock()
		if e = c.entries[d]; e == nil {
			c.mu.Unlock()
			return
		}
	}
	c.touch(e)
	if h != nil {
		c.hold(e, h)
	}
	c.mu.Unlock()
}

// touch makes an entry the latest used. The lock is held.
func (c *Cache) touch(e *entry) {
	c.lru.touch(e, minute(c.now()))
	c.dirty[e.digest] = struct{}{}
}

// now is the time for recency: what the clock said at the start, and what has passed since. So a clock that is set makes
// nothing old or new.
func (c *Cache) now() time.Time { return c.began.Add(time.Since(c.began)) }

// adopt takes content in that is in the store and was not known: not loaded yet, or put there by hand.
func (c *Cache) adopt(d oci.Digest) {
	l := c.stripe(d)
	l.Lock()
	defer l.Unlock()
	o, err := c.o.Store.Open(d) // again, since it may be gone by now
	if err != nil {
		return
	}
	defer o.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[d] == nil {
		c.add(d, o.Size(), false)
	}
}

// lost forgets an entry whose content is not there any more.
func (c *Cache) lost(d oci.Digest) {
	c.mu.Lock()
	e := c.entries[d]
	c.mu.Unlock()
	if e == nil {
		return
	}
	l := c.stripe(d)
	l.Lock()
	defer l.Unlock()
	o, err := c.o.Store.Open(d) // it may have come back
	if err == nil {
		_ = o.Close()
		return
	}
	if errors.Is(err, ErrNotFound) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.forget(d)
	}
}

// stripe is the lock of a digest.
func (c *Cache) stripe(d oci.Digest) *sync.Mutex {
	var h uint32
	for i := range len(d) {
		h = h*31 + uint32(d[i])
	}
	return &c.stripes[h%uint32(len(c.stripes))]
}
