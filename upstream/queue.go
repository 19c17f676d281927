package upstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Each endpoint sends so many blobs at once, the others wait. Manifests and HEADs don't: they are small, and pulls
// begin with them. Nor do blobs of up to 1 MiB wait behind larger ones: where no turn is free they have a queue of their
// own, with a quarter as many turns.
//
//	begin ──► a turn is free, no transfer waits ──► running ──► the end
//	  │                                             ▲     │
//	  │                                        given│     │taken, for a transfer that needs it more (see share.go)
//	  │                                             │     ▼
//	  └────► waits in its client's line ────────────┴── paused: it reads no further; waits in front of its client's line
//	           │                                                as soon as a reader has read what came
//	           └──► leaves: the caller, or after 24 s with a *QueueError
//
// A transfer that has had its turn goes on after breaks, and at another endpoint, without a second one: its client has
// the beginning already. For the same reason one that is paused waits for as long as its context lives. What a blob is
// fetched with beside its first connection gets a turn only while a quarter of them is free, never waits, and ends when
// its turn is taken: the first connection brings the rest.
const (
	defaultTransfers = 32
	smallBlob        = 1 << 20                // bytes up to which a blob doesn't wait behind larger ones
	idleTurn         = 5 * time.Second        // without a read: the disk or the client is slow, not the upstream
	nextPart         = 100 * time.Millisecond // for which a turn waits for the next part of its blob
	queueSpare       = time.Second            // by which the wait is shorter than the client's
	lookAgain        = 250 * time.Millisecond // after which a transfer that waits looks for turns that can be taken
	pausedOpen       = 8                      // times the turns: how many paused transfers keep their connection
)

// errTaken ends what goes beside a blob's first connection.
var errTaken = fmt.Errorf("its turn was needed for the first connection of another blob")

// queue decides which transfers of an endpoint run.
type queue struct {
	most int // 0: all

	// mu guards what follows. It is taken before the locks of needs, which are those of flights.
	mu      sync.Mutex
	running map[*turn]struct{}
	held    map[string]int // turns by client, as they were charged last
	counted time.Time      // when held was counted
	served  time.Time
	clients map[string]*line
	order   []*line // of clients that wait: the next one first
	waiting int     // in lines
	paused  []*turn // whose turn was taken, the longest first; those that need one again are in a line, too
}

// asker is a transfer that wants a turn.
type asker struct {
	client string // that it is fetched for; empty: for the mirror itself
	repo   string
	blob   oci.Digest
	part   bool // it goes beside the blob's first connection
	// needs are the clients that wait for the next bytes; empty: there is no hurry. Nil: client always does.
	needs func() []string
}

// turn is the right to transfer a blob.
type turn struct {
	asker
	q     *queue
	read  atomic.Int64  // when it was last read, in Unix nanoseconds; 0: now
	taken atomic.Bool   // the transfer has to resume before it reads on
	shut  chan struct{} // closed while it is paused: its connection is needed elsewhere

	// The queue's mutex guards what follows.
	ready   chan struct{} // closed when it is given
	begun   bool          // its client has the beginning
	since   time.Time     // when it was put into a line
	given   time.Time
	charged []string    // the clients that it was counted for
	ended   bool        // it is not in running any more
	lined   bool        // it is in a line
	closing bool        // shut is closed
	kept    *time.Timer // not nil: it waits for the next part
}

func newQueue(most int) *queue {
	return &queue{
		most: max(most, 0), running: make(map[*turn]struct{}), held: make(map[string]int),
		clients: make(map[string]*line),
	}
}

// enter gives a turn at once: to what has had one elsewhere.
func (q *queue) enter(a asker) *turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := &turn{q: q, asker: a}
	q.grant(t)
	return t
}

// spare gives a turn if there are enough, else nil.
func (q *queue) spare(a asker) *turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.most > 0 && (q.waiting > 0 || len(q.running) >= q.most*3/4) {
		return nil
	}
	t := &turn{q: q, asker: a}
	q.grant(t)
	return t
}

// try gives a turn that is free, if no transfer waits for it, else nil.
func (q *queue) try(a asker) *turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.most > 0 && (q.waiting > 0 || len(q.running) >= q.most) {
		return nil
	}
	t := &turn{q: q, asker: a}
	q.grant(t)
	return t
}

// wait gives a turn when it comes. ok is false when it did not within patience, or the context has ended.
func (q *queue) wait(ctx context.Context, a asker, patience time.Duration) (_ *turn, ok bool) {
	ready := make(chan struct{})
	t := &turn{q: q, asker: a, ready: ready}
	q.mu.Lock()
	if q.most == 0 || q.next(t) {
		q.grant(t)
		q.mu.Unlock()
		return t, true
	}
	if t.begun {
		patience = 1<<63 - 1
	}
	q.line(t)
	q.serve()
	q.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	for {
		select {
		case <-ready:
			return t, true
		case <-look.C:
			q.look()
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		q.leave(t)
		return nil, false
	}
}

// resume waits until a turn that was taken is given again. shut is called when its connection is needed elsewhere; what
// is still to come has to be asked for anew then. False: the context has ended.
func (q *queue) resume(ctx context.Context, t *turn, shut func()) bool {
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	q.again(t)
	q.mu.Lock()
	ready, closing := t.ready, t.shut
	q.mu.Unlock()
	if ready == nil { // it was given meanwhile
		return true
	}
	for {
		select {
		case <-ready:
			return true
		case <-closing:
			closing = nil
			shut()
		case <-look.C:
			q.again(t)
			q.look()
		case <-ctx.Done():
			return false // the turn is given back with the transfer
		}
	}
}

// again puts a paused transfer in front of its client's line if its readers wait.
func (q *queue) again(t *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.taken.Load() && !t.lined && len(t.needed()) > 0 {
		q.line(t)
		q.serve()
	}
}

// look is serve, as often as is of use.
func (q *queue) look() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now(); now.Sub(q.served) >= lookAgain/2 {
		q.serve()
	}
}

// next reports whether a transfer takes the turn that an earlier part of its blob has left, or a free one. The lock is
// held.
func (q *queue) next(t *turn) bool {
	same := func(old *turn) bool { return old.kept != nil && old.blob == t.blob && old.repo == t.repo }
	for old := range q.running {
		if same(old) {
			q.end(old)
			return true
		}
	}
	if i := slices.IndexFunc(q.paused, same); i >= 0 {
		q.end(q.paused[i])
		t.begun = true
	}
	q.idle()
	return q.waiting == 0 && len(q.running) < q.most
}

// leave takes a turn out of its line, or gives it back where it has been given just then.
func (q *queue) leave(t *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end(t)
	q.serve()
}

// end takes a turn back, wherever it is. The lock is held.
func (q *queue) end(t *turn) {
	if t.kept != nil {
		t.kept.Stop()
		t.kept = nil
	}
	if _, ok := q.running[t]; ok {
		delete(q.running, t)
		q.charge(t, nil)
	}
	if t.lined {
		q.unline(t)
	}
	q.unpause(t)
	t.ended = true
}

// give gives the turn back. keep: there is more of its blob to come, for which it stays a moment.
func (t *turn) give(keep bool) {
	q := t.q
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case t.ended:
	case keep && q.most > 0:
		if t.lined {
			q.unline(t)
		}
		t.kept = time.AfterFunc(nextPart, func() { t.give(false) })
	default:
		q.end(t)
		q.serve()
	}
}

// reading says that a reader waits for bytes, or, with false, that they have come.
func (t *turn) reading(now bool) {
	if now {
		t.read.Store(0)
	} else {
		t.read.Store(time.Now().UnixNano())
	}
}

// length is how many run and wait.
func (q *queue) length() (running, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.running), q.waiting
}
