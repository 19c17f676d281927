package journal

import (
	"sync"

	"github.com/registrymirror/mirror/internal/guard"
)

// event is a request that ended, or a blob that began to be sent.
type event struct {
	Request
	begin bool
}

// queue holds events until they are recorded. Sending never blocks: an event for which there is no room is lost, and
// counted.
type queue struct {
	size   int           // events; as many again wait beyond it, of sources that have few
	some   chan struct{} // an event waits
	urgent chan struct{} // an event waits that must be recorded at once, or many do

	mu      sync.Mutex // guards the fields below; a leaf
	waiting []event
	sources map[string]int // waiting events by source; counted only once half of size wait
	dropped int64          // events lost since the start

	taken    []event // the batch that is being recorded; used by Run alone
	reported int64   // of dropped, those that the log has; used by Run alone
}

func newQueue(size int) *queue {
	return &queue{size: size, some: make(chan struct{}, 1), urgent: make(chan struct{}, 1), sources: make(map[string]int)}
}

func (q *queue) send(e event) {
	q.mu.Lock()
	n := len(q.waiting) + 1
	if n > q.size/2 && !q.admits(n, e.holder().source) {
		q.dropped++
		q.mu.Unlock()
		return
	}
	q.waiting = append(q.waiting, e)
	q.mu.Unlock()
	switch {
	case e.Finding != nil || n == q.size/4:
		signal(q.urgent)
	case n == 1:
		signal(q.some)
	}
}

// admits reports whether the nth waiting event, which is a source's, has room. When the queue is full, as much room again
// is for the sources that have less than their share of it: a source that floods loses its own events, and no others. The
// lock is held.
func (q *queue) admits(n int, source string) bool {
	if len(q.sources) == 0 {
		for _, e := range q.waiting {
			q.sources[e.holder().source]++
		}
	}
	if n > q.size && (!guard.Share || n > 2*q.size || (q.sources[source]+1)*max(1, len(q.sources)) > q.size) {
		return false
	}
	q.sources[source]++
	return true
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take hands all waiting events to record. Run alone calls it.
func (q *queue) take(record func(event)) {
	q.mu.Lock()
	q.taken, q.waiting = q.waiting, q.taken[:0]
	clear(q.sources)
	q.mu.Unlock()
	for _, e := range q.taken {
		record(e)
	}
	clear(q.taken) // keep nothing that it points to
}

func (q *queue) lost() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// newlyLost is how many events were lost since it was last called. Run alone calls it.
func (q *queue) newlyLost() int64 {
	lost := q.lost()
	n := lost - q.reported
	q.reported = lost
	return n
}
