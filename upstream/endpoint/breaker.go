package endpoint

import (
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
)

const (
	maxFailures = 3           // in a row that open the breaker
	steadyAfter = time.Minute // of working, after which the next time down is short again
)

// downFor is how long it is until the next attempt to close a breaker.
var downFor = backoff.Backoff{First: time.Second, Most: time.Minute}

// breaker is a circuit breaker: whether something works. It refuses nothing, Health.Ready decides about the order alone. The
// lock of Health guards it.
//
//	up ──► unreachable, silent, or three failures in a row ──► down, for 1 s, 2 s ... 60 s
//	 ▲                                                          │
//	 └── a ping is answered, or a request that had no other ◄───┘ after each of these times: a ping
//	     endpoint to go to
type breaker struct {
	down     time.Time // since when it does not work; zero: it does
	nextTry  time.Time // when to try again; only while it is down
	failures int       // in a row
	level    int       // how many times in a row it was down: each one is longer
	up       time.Time // since when it works again; zero: it was never down
}

// fail records a failure and reports whether it opened the breaker. Severe: one is enough.
func (b *breaker) fail(now time.Time, severe bool) (opened bool) {
	b.failures++
	if !b.down.IsZero() || !severe && b.failures < maxFailures {
		return false
	}
	if b.up.IsZero() || now.Sub(b.up) > steadyAfter {
		b.level = 0
	}
	b.down = now
	b.delay(now)
	return true
}

// delay sets the next try later than the last one was.
func (b *breaker) delay(now time.Time) {
	b.level++
	d := downFor.After(b.level)
	b.nextTry = now.Add(backoff.Between(d*3/4, d*5/4)) // not all mirrors at the same moment
}

// succeed records a success, and reports whether it closed the breaker, and how long it was down.
func (b *breaker) succeed(now time.Time) (closed bool, downFor time.Duration) {
	b.failures = 0
	if b.down.IsZero() {
		return false, 0
	}
	downFor = now.Sub(b.down)
	b.down, b.up = time.Time{}, now
	return true, downFor
}
