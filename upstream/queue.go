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
// begin with them.
//
//	begin ──► a turn is free, nobody waits ──► running ──► the end, or 5 s without a read
//	  │                                           ▲                    │
//	  └────► waits in its repository's line ──────┴── the lines in turn┘
//	           └──► leaves: the caller, or after 24 s with a *QueueError
//
// A transfer that has had its turn goes on after breaks, and at another endpoint, without a second one: its client has
// the beginning already. What a blob is fetched with beside its first connection gets a turn only while a quarter of
// them is free, and never waits.
const (
	defaultTransfers = 32
	idleTurn         = 5 * time.Second        // without a read: whoever reads it is slow, not the upstream
	nextPart         = 100 * time.Millisecond // for which a turn waits for the next part of its blob
	queueSpare       = time.Second            // by which the wait is shorter than the client's
)

// QueueError says that a blob waited too long for its turn, since the mirror was busy with others of that endpoint.
type QueueError struct {
	Endpoint string        // as Registry.State names it
	Most     int           // transfers at once
	Waiting  int           // when it gave up
	Waited   time.Duration // 0: it doesn't wait
}

func (e *QueueError) Error() string {
	return fmt.Sprintf("all %d transfers from %s are in use, after %s", e.Most, e.Endpoint, e.Waited.Round(time.Millisecond))
}

// queue is who gets blobs of an endpoint.
type queue struct {
	most int // 0: all

	mu      sync.Mutex // guards what follows; a leaf
	running map[*turn]struct{}
	lines   map[string][]*turn // who waits, by repository, in order
	order   []string           // repositories that have a line: the first one is served next
	waiting int
}

// turn is the right to transfer a blob.
type turn struct {
	q     *queue
	repo  string
	blob  oci.Digest
	ready chan struct{} // closed when it is given
	read  atomic.Int64  // when it was last read, in Unix nanoseconds; 0: now
	ended bool          // guarded by the queue's mutex: it is not in running
	kept  *time.Timer   // guarded likewise; not nil: it waits for the next part
}

func newQueue(most int) *queue {
	return &queue{most: max(most, 0), running: make(map[*turn]struct{}), lines: make(map[string][]*turn)}
}

// enter gives a turn at once: to whoever has had one elsewhere.
func (q *queue) enter(repo string, blob oci.Digest) *turn {
	t := &turn{q: q, repo: repo, blob: blob}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running[t] = struct{}{}
	return t
}

// spare gives a turn if there are enough, else nil.
func (q *queue) spare(repo string, blob oci.Digest) *turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.most > 0 && (q.waiting > 0 || len(q.running) >= q.most*3/4) {
		return nil
	}
	t := &turn{q: q, repo: repo, blob: blob}
	q.running[t] = struct{}{}
	return t
}

// wait gives a turn when it comes. ok is false when it did not within patience, or the context has ended.
func (q *queue) wait(ctx context.Context, repo string, blob oci.Digest, patience time.Duration) (_ *turn, ok bool) {
	t := &turn{q: q, repo: repo, blob: blob, ready: make(chan struct{})}
	q.mu.Lock()
	if q.most == 0 || q.next(t) {
		q.running[t] = struct{}{}
		q.mu.Unlock()
		return t, true
	}
	if len(q.lines[repo]) == 0 {
		q.order = append(q.order, repo)
	}
	q.lines[repo] = append(q.lines[repo], t)
	q.waiting++
	q.serve()
	q.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-t.ready:
			return t, true
		case <-look.C: // some may have become idle
			q.mu.Lock()
			q.serve()
			q.mu.Unlock()
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		q.leave(t)
		return nil, false
	}
}

// next reports whether a transfer takes the turn that an earlier part of its blob has left, or a free one. The lock is
// held.
func (q *queue) next(t *turn) bool {
	for old := range q.running {
		if old.kept != nil && old.blob == t.blob && old.repo == t.repo {
			q.end(old)
			return true
		}
	}
	q.idle()
	return q.waiting == 0 && len(q.running) < q.most
}

// leave takes a turn out of its line, or gives it back where it has been given just then.
func (q *queue) leave(t *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[t.repo]
	if i := slices.Index(line, t); i >= 0 {
		q.waiting--
		q.setLine(t.repo, slices.Delete(line, i, i+1))
		return
	}
	q.end(t)
	q.serve()
}

// setLine changes who waits for a repository. The lock is held.
func (q *queue) setLine(repo string, line []*turn) {
	if len(line) > 0 {
		q.lines[repo] = line
		return
	}
	delete(q.lines, repo)
	q.order = slices.DeleteFunc(q.order, func(r string) bool { return r == repo })
}

// serve gives free turns to the lines, one each. The lock is held.
func (q *queue) serve() {
	if q.waiting > 0 && len(q.running) >= q.most {
		q.idle()
	}
	for q.waiting > 0 && len(q.running) < q.most {
		repo := q.order[0]
		line := q.lines[repo]
		t := line[0]
		q.setLine(repo, line[1:])
		if len(line) > 1 { // behind the others
			q.order = append(slices.Delete(q.order, 0, 1), repo)
		}
		q.waiting--
		q.running[t] = struct{}{}
		close(t.ready)
	}
}

// idle takes the turns of those whom nobody reads. They go on, uncounted. The lock is held.
func (q *queue) idle() {
	before := time.Now().Add(-idleTurn).UnixNano()
	for t := range q.running {
		if at := t.read.Load(); at != 0 && at < before {
			q.end(t)
		}
	}
}

// end takes a turn back. The lock is held.
func (q *queue) end(t *turn) {
	t.ended = true
	if t.kept != nil {
		t.kept.Stop()
		t.kept = nil
	}
	delete(q.running, t)
}

// give gives the turn back. keep: there is more of its blob to come, for which it stays a moment.
func (t *turn) give(keep bool) {
	q := t.q
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case t.ended:
	case keep && q.most > 0:
		t.kept = time.AfterFunc(nextPart, func() { t.give(false) })
	default:
		q.end(t)
		q.serve()
	}
}

// reading says that somebody waits for bytes, or, with false, that they have come.
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
