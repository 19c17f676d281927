package flight

import (
	"sync"
	"time"
)

// Waiting readers are told of progress every tellEvery, or after tellBytes: fifty readers that wake for every packet cost
// more than the copy.
const (
	tellEvery = 4 * time.Millisecond
	tellBytes = 1 << 20
)

// bell wakes the goroutines that wait for progress of one kind.
type bell struct {
	mu     *sync.Mutex   // the flight's, which guards the fields below and is held in every call
	change chan struct{} // closed, and replaced, when there is news; nil while no goroutine waits
	bytes  int64         // since the last news
	rung   time.Time     // when there was news last
	timer  *time.Timer   // that rings soon; nil: none
}

// news is the channel that closes at the next ring.
func (b *bell) news() <-chan struct{} {
	if b.change == nil {
		b.change = make(chan struct{})
	}
	return b.change
}

// ring wakes all of them now.
func (b *bell) ring() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.bytes, b.rung = 0, time.Now()
	if b.change != nil {
		close(b.change)
		b.change = nil
	}
}

// progress rings for n more bytes, now or soon.
func (b *bell) progress(n int64) {
	b.bytes += n
	if b.change == nil {
		return
	}
	since := time.Since(b.rung)
	switch {
	case b.bytes >= tellBytes || since >= tellEvery:
		b.ring()
	case b.timer == nil:
		b.timer = time.AfterFunc(tellEvery-since, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.ring()
		})
	}
}
