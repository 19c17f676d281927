// Package wait is for conditions that come true in another process. It asks again and again until they do, or until the
// time that the caller allows is over; nothing here waits longer than it has to.
package wait

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// every is the pause between two looks.
const every = 20 * time.Millisecond

// For looks until cond returns nil. When limit is over, the test fails with its last error.
func For(t testing.TB, limit time.Duration, what string, cond func() error) {
	t.Helper()
	if err := Until(t.Context(), limit, cond); err != nil {
		t.Fatalf("waited %s for %s: %v", limit, what, err)
	}
}

// Until looks until cond returns nil, and returns its last error when limit or the context is over.
func Until(ctx context.Context, limit time.Duration, cond func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}
