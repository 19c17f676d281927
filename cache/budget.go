package cache

import (
	"io"
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// The marks of a budget. Above the high mark the cache evicts, down to the low one.
const (
	highMark = 10 // below the size by this part of it: 90 %
	lowMark  = 5  // 80 %
	// protectedThirds is how much of the budget content may have that was used again, in thirds.
	protectedThirds = 2
	// heldPart is the part of the budget that evicted content may have while it is open: an eighth.
	heldPart = 8
)

// fullFor is how long nothing is looked for after there was nothing more to evict.
const fullFor = time.Second

// budget is the account of a cache's bytes: what is stored, in which order it is evicted, what downloads hold and what is
// open. It has no lock and no clock, and touches no disk: Cache.mu guards it.
type budget struct {
	size   int64                            // bytes, for stored and reserved
	kept   func(oci.Digest, time.Time) bool // reports whether content is kept from eviction
	loaded bool                             // what is stored is known; until then nothing is evicted

	entries map[oci.Digest]*entry
	lru     segments
	stored  int64 // bytes of all entries

	// reserved is what downloads hold and may write; pending the part of it that the disk does not know of yet; claimed is
	// reserved and what they are going to need; parked is the part of reserved that may be dropped.
	reserved, pending, claimed, parked int64

	held      map[*entry]time.Time // evicted while open, and when
	heldBytes int64                // of these

	full struct { // what could not be had by eviction, and how long that is believed
		lack  shortfall
		until time.Time
	}
}

func newBudget(size int64, kept func(oci.Digest, time.Time) bool) *budget {
	b := &budget{size: size, kept: kept, entries: make(map[oci.Digest]*entry), held: make(map[*entry]time.Time)}
	b.lru.init(size / 3 * protectedThirds)
	return b
}

// shortfall is how much is missing. Negative: there is that much more.
type shortfall struct{ bytes, files int64 }

func (s shortfall) none() bool { return s.bytes <= 0 && s.files <= 0 }

// reservation is what one download has of a budget.
type reservation struct {
	reserved int64 // bytes
	claimed  int64 // bytes, the reserved ones included
	ended    bool
	parked   bool // no flight writes to it, and it may be dropped for its room
}

// aboveHigh reports whether the high mark is passed.
func (b *budget) aboveHigh() bool { return b.stored+b.reserved > b.size-b.size/highMark }

// excess is how many bytes are to be evicted: down to the low mark once the high one is passed.
func (b *budget) excess() int64 {
	if !b.aboveHigh() {
		return 0
	}
	return b.stored + b.reserved - (b.size - b.size/lowMark)
}

// add adds content, or updates its size. verified says that it was verified when it came.
func (b *budget) add(d oci.Digest, size int64, verified bool) *entry {
	e := b.entries[d]
	if e == nil {
		e = &entry{digest: d}
		b.entries[d] = e
	}
	l := e.list
	e.unlink() // its list counts bytes
	b.stored += size - e.size
	e.size, e.verified = size, verified
	if l != nil {
		l.pushFront(e)
	}
	return e
}

// addOldest adds content as the next to be evicted on probation.
func (b *budget) addOldest(e *entry) {
	b.entries[e.digest] = e
	b.stored += e.size
	b.lru.probation.pushBack(e)
}

// remove takes content out. It reports whether it was there.
func (b *budget) remove(d oci.Digest, now time.Time) bool {
	e := b.entries[d]
	if e == nil {
		return false
	}
	e.unlink()
	delete(b.entries, d)
	b.stored -= e.size
	if len(e.holds) > 0 && !e.lingering {
		e.lingering = true
		b.held[e] = now
		b.heldBytes += e.size
	}
	return true
}

// fits reports whether n bytes more could be had beside what downloads claim, if all that may go were evicted. disk is what
// the disk lacks.
func (b *budget) fits(n int64, disk shortfall, now time.Time) bool {
	missing := shortfall{
		bytes: max(disk.bytes+n+b.pending+b.claimed-b.reserved, b.stored+b.claimed+n-b.size),
		files: disk.files,
	}
	return !guard.Reservation || missing.none() || b.evictable(missing, now)
}

// reserve reserves n bytes where there is room in the budget and on the disk; else it returns what is missing. The bytes are
// pending until placed.
func (b *budget) reserve(r *reservation, n int64, disk shortfall) shortfall {
	if !guard.Reservation {
		return shortfall{}
	}
	missing := shortfall{bytes: max(disk.bytes+n+b.pending, b.stored+b.reserved+n-b.size), files: disk.files}
	if !missing.none() {
		return missing
	}
	b.pending += n
	if r.ended {
		return shortfall{}
	}
	b.reserved += n
	r.reserved += n
	if more := r.reserved - r.claimed; more > 0 {
		b.claim(r, more)
	}
	return shortfall{}
}

// placed says that the disk knows of n reserved bytes.
func (b *budget) placed(n int64) { b.pending -= n }

// claim claims n bytes more.
func (b *budget) claim(r *reservation, n int64) {
	if !r.ended {
		b.claimed += n
		r.claimed += n
	}
}

// park gives back what is reserved beyond the written bytes, and has the rest be dropped where room is needed.
func (b *budget) park(r *reservation, written int64) {
	if r.ended || r.parked {
		return
	}
	kept := min(r.reserved, written)
	b.reserved -= r.reserved - kept
	b.claimed -= r.claimed - kept
	r.reserved, r.claimed, r.parked = kept, kept, true
	b.parked += kept
}

// unpark is for a download that is written to again.
func (b *budget) unpark(r *reservation) {
	if r.parked {
		r.parked = false
		b.parked -= r.reserved
	}
}

// end gives back all of a reservation.
func (b *budget) end(r *reservation) {
	b.unpark(r)
	b.reserved -= r.reserved
	b.claimed -= r.claimed
	r.reserved, r.claimed, r.ended = 0, 0, true
}

// resume reserves n bytes that the disk has already, if there is room without eviction.
func (b *budget) resume(r *reservation, n int64) bool {
	if n > b.size-b.stored-b.claimed {
		return false
	}
	b.reserved += n
	b.claimed += n
	r.reserved, r.claimed = n, n
	return true
}

// allowed says which content may be evicted.
type allowed func(b *budget, e *entry, now time.Time) bool

// pick chooses content to evict until nothing is missing, and takes it off its lists.
func (b *budget) pick(missing shortfall, may allowed, now time.Time) (victims []*entry) {
	if !b.loaded { // what was used last is not known yet
		return nil
	}
	for e := range b.lru.victims {
		if missing.none() {
			break
		}
		if !may(b, e, now) || b.kept(e.digest, now) {
			continue
		}
		e.unlink()
		e.going = true
		missing.bytes -= e.size
		missing.files--
		victims = append(victims, e)
		if len(e.holds) > 0 { // one at a time: whether another one may be held so depends on it
			break
		}
	}
	return victims
}

// spare puts victims back that were not evicted, as the next ones.
func (b *budget) spare(victims []*entry) {
	for _, e := range victims {
		if e.going && b.entries[e.digest] == e {
			e.going = false
			b.lru.probation.pushBack(e)
		}
	}
}

// evictable reports whether what is missing could be had by eviction.
func (b *budget) evictable(missing shortfall, now time.Time) bool {
	if now.Before(b.full.until) && missing.bytes >= b.full.lack.bytes && missing.files >= b.full.lack.files {
		return false
	}
	least := missing
	missing.bytes -= b.parked
	if b.loaded {
		for e := range b.lru.victims {
			if missing.none() {
				break
			}
			if orOpenLong(b, e, now) && !b.kept(e.digest, now) {
				missing.bytes -= e.size
				missing.files--
			}
		}
	}
	if missing.none() {
		return true
	}
	// To look through all of it takes time with much content, and every miss asks.
	b.full.lack, b.full.until = least, now.Add(fullFor)
	return false
}

// Content that is open can be evicted, too: its readers keep the file, and the disk its bytes, until they close it. The
// budget does not count those bytes any more, so they are bounded:
//
//	stored, open < openFor ── stays: a reader is likely to be at it
//	stored, open for longer ── goes when nothing else can, while all that is held is at most heldPart of the budget
//	held for heldFor, or beyond that part ── its files are closed, and its readers go on from their own sources
const (
	openFor = time.Minute
	heldFor = time.Minute
)

// hold is one open file of an entry, or the open files of the spool that it came by.
type hold struct {
	e     *entry
	o     io.Closer // closing it ends the hold, sooner or later
	since time.Time
}

// hold adds an open file to an entry.
func (b *budget) hold(e *entry, h *hold, now time.Time) {
	h.e, h.since = e, now
	e.holds = append(e.holds, h)
}

// release ends a hold, if it is one. It reports whether bytes that were held became free.
func (b *budget) release(h *hold) bool {
	e := h.e
	if e == nil {
		return false
	}
	i := slices.Index(e.holds, h)
	e.holds = slices.Delete(e.holds, i, i+1)
	if len(e.holds) > 0 || !e.lingering {
		return false
	}
	delete(b.held, e)
	b.heldBytes -= e.size
	return true
}

// onlyClosed allows content that is not open.
func onlyClosed(_ *budget, e *entry, _ time.Time) bool { return len(e.holds) == 0 }

// orOpenLong allows content that has been open for a while as well.
func orOpenLong(b *budget, e *entry, now time.Time) bool {
	return len(e.holds) == 0 || guard.Held && now.Sub(e.holds[0].since) >= openFor && b.mayHold(e, now)
}

// mayHold reports whether an entry's bytes may stay on the disk uncounted, or those of others are about to be freed.
func (b *budget) mayHold(e *entry, now time.Time) bool {
	if b.heldBytes == 0 || b.heldBytes+e.size <= b.size/heldPart {
		return true
	}
	for _, since := range b.held {
		if now.Sub(since) >= heldFor {
			return true
		}
	}
	return false
}

// heldFiles returns the files of content that was evicted long ago; with all, of any that was evicted.
func (b *budget) heldFiles(all bool, now time.Time) (list []io.Closer) {
	for e, since := range b.held {
		if all || now.Sub(since) >= heldFor {
			for _, h := range e.holds {
				list = append(list, h.o)
			}
		}
	}
	return list
}
