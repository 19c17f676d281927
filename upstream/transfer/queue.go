package transfer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// An endpoint sends a number of blobs at once, the others wait for their turn. Manifests and HEADs need no turn: they are
// small, and pulls begin with them. Blobs of up to 1 MiB do not wait behind larger ones: where no turn is free they have a
// queue of their own, with a quarter as many turns.
//
//	begin ──► a turn is free, no transfer waits ──► running ──► the end
//	  │                                             ▲     │
//	  │                                      granted│     │revoked, for a transfer that needs it more (see share.go)
//	  │                                             │     ▼
//	  └────► waits in its client's queue ───────────┴── paused: it reads no further, and waits first in its client's queue
//	           │                                                as soon as a reader has read all that came
//	           └──► gives up: with its caller, or after 24 s with a *fault.QueueError
//
// A transfer that has had its turn goes on after breaks, and at another endpoint, without a second one: its client has the
// beginning already. For the same reason a paused one waits for as long as its context lives. A further connection for a blob
// gets a turn only while a quarter of them is free, never waits, and ends when its turn is revoked: the first connection
// brings the rest.
//
// A transfer for background work waits behind all others (see background.go).
const (
	smallBlob   = 1 << 20                // bytes up to which a blob does not wait behind larger ones
	idleAfter   = 5 * time.Second        // without a read: then the disk or the client is slow, not the upstream
	reserveFor  = 100 * time.Millisecond // how long a turn is kept for the next part of its blob
	queueMargin = time.Second            // by which the wait is shorter than the client's
	checkEvery  = 250 * time.Millisecond // how often a waiting transfer checks whether a turn can be revoked for it
	pausedOpen  = 8                      // times the turns: how many paused transfers keep their connection
)

// errRevoked ends a further connection of a blob.
var errRevoked = fmt.Errorf("%w: its turn was needed for the first connection of another blob", flight.ErrBusy)

// queue decides which transfers of an endpoint run.
type queue struct {
	limit int // transfers at once; 0: any number

	// mu guards the following fields. It is taken before the locks of applicant.waiters, which are those of flights.
	mu           sync.Mutex
	running      map[*turn]struct{}
	charged      map[string]int // turns by client, as they were charged last
	chargedAt    time.Time      // when charged was computed
	dispatchedAt time.Time
	clients      map[string]*clientQueue
	order        []*clientQueue // the next one first
	waiting      int            // transfers in client queues
	background   []*turn        // for background work, that wait for their first turn, the longest first
	clientsAt    time.Time      // when a transfer was last seen to run that a client waited for
	paused       []*turn        // whose turn was revoked, the longest first; those that need one again are queued, too
}

// applicant is a transfer that needs a turn.
type applicant struct {
	client string // that the blob is fetched for; empty: for the mirror itself
	repo   string
	blob   oci.Digest
	extra  bool // it is a further connection for the blob
	// waiters returns the clients that wait for the next bytes; none: there is no hurry. Nil: client always waits.
	waiters func() []string
	// live reports whether the blob is fetched for a client. False: for background work. Nil: for a client.
	live   func() bool
	joined <-chan struct{} // closed when a client joins background work
}

// turn is the right to transfer a blob.
type turn struct {
	applicant
	q        *queue
	lastRead atomic.Int64  // Unix nanoseconds; 0: a read is under way
	revoked  atomic.Bool   // the transfer has to resume before it reads on
	hangUp   chan struct{} // closed while it is paused: its connection is needed elsewhere

	// The queue's mutex guards the following fields.
	ready     chan struct{} // closed when it is granted
	started   bool          // its client has the beginning
	queuedAt  time.Time
	grantedAt time.Time
	charged   []string    // the clients that it is charged to
	ended     bool        // it is not in running any more
	unclaimed bool        // its client is background work that began it, and no client that joined
	queued    bool        // it is in a client's queue
	hungUp    bool        // hangUp is closed
	reserved  *time.Timer // ends the time that it is kept for the next part; nil: it is not kept
}

func newQueue(limit int) *queue {
	return &queue{
		limit: max(limit, 0), running: make(map[*turn]struct{}), charged: make(map[string]int),
		clients: make(map[string]*clientQueue),
	}
}

// grantNow grants a turn at once: to a transfer that has had one elsewhere.
func (q *queue) grantNow(a applicant) *turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.newTurn(a)
	q.grant(t)
	return t
}

func (q *queue) newTurn(a applicant) *turn {
	return &turn{q: q, applicant: a, unclaimed: a.isBackground()}
}

// try grants a turn while fewer than limit transfers run and none waits, else nil.
func (q *queue) try(a applicant, limit int) *turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.newTurn(a)
	if q.limit > 0 && !q.isFree(t, limit) {
		return nil
	}
	q.grant(t)
	return t
}

// wait returns a turn once it is granted. False: it was not within patience, or the context has ended.
func (q *queue) wait(ctx context.Context, a applicant, patience time.Duration) (*turn, bool) {
	ready, joined := make(chan struct{}), a.joined
	t := q.newTurn(a)
	t.ready = ready
	q.mu.Lock()
	if q.limit == 0 || q.inherit(t) {
		q.grant(t)
		q.mu.Unlock()
		return t, true
	}
	if t.started {
		patience = 1<<63 - 1
	}
	if t.unclaimed {
		q.background = append(q.background, t)
	} else {
		q.enqueue(t)
		joined = nil // it has waited for none
	}
	q.dispatch()
	q.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		select {
		case <-ready:
			return t, true
		case <-joined:
			joined = nil
			q.look()
			continue
		case <-check.C:
			if t.isBackground() {
				timer.Reset(patience) // that of a client begins when one joins
			}
			q.check()
			continue
		case <-timer.C:
			if t.isBackground() {
				timer.Reset(max(patience, checkEvery))
				continue
			}
		case <-ctx.Done():
		}
		t.release(false)
		return nil, false
	}
}

// resume waits until a revoked turn is granted again. It calls hangUp when the connection is needed elsewhere; the rest of the
// blob has to be asked for anew then. False: the context has ended, and the transfer releases the turn.
func (q *queue) resume(ctx context.Context, t *turn, hangUp func()) bool {
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	q.requeue(t)
	q.mu.Lock()
	ready, hangUpNow, joined := t.ready, t.hangUp, t.joined
	if !t.unclaimed {
		joined = nil
	}
	q.mu.Unlock()
	if ready == nil { // it was granted meanwhile
		return true
	}
	for {
		select {
		case <-ready:
			return true
		case <-hangUpNow:
			hangUpNow = nil
			hangUp()
		case <-joined:
			joined = nil
			q.requeue(t)
		case <-check.C:
			q.requeue(t)
			q.check()
		case <-ctx.Done():
			return false
		}
	}
}

// requeue puts a paused transfer into its client's queue if its readers wait.
func (q *queue) requeue(t *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.revoked.Load() && !t.queued && q.claimed(t) {
		q.enqueue(t)
		q.dispatch()
	}
}

// look is dispatch, with the lock.
func (q *queue) look() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dispatch()
}

// check is dispatch, unless that was a moment ago.
func (q *queue) check() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.dispatchedAt) >= checkEvery/2 {
		q.dispatch()
	}
}

// inherit reports whether a transfer takes the turn that an earlier part of its blob has left, or a free one. The lock is
// held.
func (q *queue) inherit(t *turn) bool {
	sameBlob := func(old *turn) bool { return old.reserved != nil && old.blob == t.blob && old.repo == t.repo }
	for old := range q.running {
		if sameBlob(old) {
			q.remove(old)
			return true
		}
	}
	if i := slices.IndexFunc(q.paused, sameBlob); i >= 0 {
		q.remove(q.paused[i])
		t.started = true
	}
	q.removeIdle()
	return q.isFree(t, q.limit)
}

// remove ends a turn, in whatever state it is. The lock is held.
func (q *queue) remove(t *turn) {
	if t.reserved != nil {
		t.reserved.Stop()
		t.reserved = nil
	}
	if _, ok := q.running[t]; ok {
		delete(q.running, t)
		q.charge(t, nil)
	}
	if t.queued {
		q.dequeue(t)
	}
	q.unpause(t)
	q.background = without(q.background, t)
	t.ended = true
}

// release gives the turn back. Keep: there is more of its blob to come, and the turn is kept for that for a moment.
func (t *turn) release(keep bool) {
	q := t.q
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case t.ended:
	case keep && q.limit > 0 && !t.isBackground():
		if t.queued {
			q.dequeue(t)
		}
		t.reserved = time.AfterFunc(reserveFor, func() { t.release(false) })
	default:
		q.remove(t)
		q.dispatch()
	}
}

// reading records that a read begins, or that it has ended.
func (t *turn) reading(begins bool) {
	if begins {
		t.lastRead.Store(0)
	} else {
		t.lastRead.Store(time.Now().UnixNano())
	}
}

func (q *queue) load() (running, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.running), q.waiting + len(q.background)
}
