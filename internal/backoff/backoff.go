// Package backoff says how long to wait between attempts: twice as long after each failure, up to a limit.
//
// It counts nothing: the caller has the number of failures, and what a server has asked for.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is a row of waits.
type Backoff struct {
	First time.Duration // after the first failure
	Most  time.Duration // the longest wait
}

// After is the wait after so many failures in a row. None counts as one.
func (b Backoff) After(failures int) time.Duration {
	d := b.First
	for i := 1; i < failures && d < b.Most; i++ {
		d *= 2
	}
	return min(d, b.Most)
}

// Between is a random duration from least to most: many that have failed at one moment must not come back at one moment.
func Between(least, most time.Duration) time.Duration {
	return least + rand.N(max(most-least, 0)+1)
}

// Wait lets a time pass. False: the context has ended first.
func Wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
