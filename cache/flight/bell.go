package flight

import (
	"sync"
	"time"
)

// A progress is told to waiting readers at most every tellEvery, or after tellBytes: fifty readers that wake for every
// packet cost more than the copy.
const (
	tellEvery = 4 * time.Millisecond
	tellBytes = 1 << 20
)

// bell wakes those who wait for progress of one kind.
type bell struct {
	mu     *sync.Mutex   // the flight's, which guards what follows. All methods are called with it held
	change chan struct{} // closed, and replaced, when there is news; nil while nobody waits
	untold int64         // bytes since the last news
	told   time.Time
	timer  *time.Timer
}

// news is the channel that closes at the next ring.
func (b *bell) news() <-chan struct{} {
	if b.change == nil {
		b.change = make(chan struct{})
	}
	return b.change
}

// ring wakes everybody now.
func (b *bell) ring() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.untold, b.told = 0, time.Now()
	if b.change != nil {
		close(b.change)
		b.change = nil
	}
}

// progress rings for n more bytes, now or soon.
func (b *bell) progress(n int64) {
	b.untold += n
	if b.change == nil {
		return
	}
	since := time.Since(b.told)
	switch {
	case b.untold >= tellBytes || since >= tellEvery:
		b.ring()
	case b.timer == nil:
		b.timer = time.AfterFunc(tellEvery-since, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.ring()
		})
	}
}
