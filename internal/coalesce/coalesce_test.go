package coalesce_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/internal/coalesce"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slow is a call that takes a second, and counts how often it was made and how often it was cancelled.
type slow struct{ made, cancelled atomic.Int64 }

func (s *slow) call(ctx context.Context) (int64, error) {
	n := s.made.Add(1)
	select {
	case <-time.After(time.Second):
		return n, nil
	case <-ctx.Done():
		s.cancelled.Add(1)
		return 0, context.Cause(ctx)
	}
}

func TestOneCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int64]
		var s slow
		var started atomic.Int64
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				v, first, err := g.Do(t.Context(), "a", s.call)
				if v != 1 || err != nil {
					t.Errorf("%d, %v", v, err)
				}
				if first {
					started.Add(1)
				}
			})
		}
		synctest.Wait()
		if !g.Running("a") || g.Running("b") {
			t.Error("the wrong calls run")
		}
		wg.Wait()
		if s.made.Load() != 1 || started.Load() != 1 || g.Running("a") {
			t.Errorf("%d calls made, %d say that they started one", s.made.Load(), started.Load())
		}
		if v, first, err := g.Do(t.Context(), "a", s.call); v != 2 || !first || err != nil {
			t.Errorf("after the end of the first: %d, %v, %v", v, first, err)
		}
	})
}

func TestOtherKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int64]{Most: 2}
		var s slow
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b"} {
			wg.Go(func() { _, _, _ = g.Do(t.Context(), key, s.call) })
		}
		synctest.Wait()
		if _, _, err := g.Do(t.Context(), "c", s.call); !errors.Is(err, coalesce.ErrFull) {
			t.Errorf("a third key: %v", err)
		}
		if _, first, err := g.Do(t.Context(), "b", s.call); first || err != nil {
			t.Errorf("the second key again: %v, %v", first, err)
		}
		wg.Wait()
		if s.made.Load() != 2 {
			t.Errorf("%d calls", s.made.Load())
		}
	})
}

// A caller that leaves gets its own error, and those that stay get the result. The last one to leave ends the call, and
// the next caller begins anew.
func TestLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int64]
		var s slow
		gone := errors.New("gone")
		var wg sync.WaitGroup
		do := func(after time.Duration, want error) {
			wg.Go(func() {
				ctx, cancel := context.WithTimeoutCause(t.Context(), after, gone)
				defer cancel()
				if _, _, err := g.Do(ctx, "a", s.call); !errors.Is(err, want) {
					t.Errorf("after %s: %v, want %v", after, err, want)
				}
			})
		}
		do(100*time.Millisecond, gone) // the first one, to which the call does not belong alone
		synctest.Wait()
		do(2*time.Second, nil)
		wg.Wait()
		if s.made.Load() != 1 || s.cancelled.Load() != 0 {
			t.Errorf("%d calls, %d cancelled", s.made.Load(), s.cancelled.Load())
		}

		do(100*time.Millisecond, gone)
		do(200*time.Millisecond, gone)
		wg.Wait()
		synctest.Wait()
		if s.made.Load() != 2 || s.cancelled.Load() != 1 || g.Running("a") {
			t.Errorf("%d calls, %d cancelled", s.made.Load(), s.cancelled.Load())
		}
		do(2*time.Second, nil)
		wg.Wait()
	})
}

func TestLasting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int64]{Lasting: true}
		var s slow
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, _, err := g.Do(ctx, "a", s.call); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if v, first, err := g.Do(t.Context(), "a", s.call); v != 1 || first || err != nil {
			t.Errorf("the next caller: %d, %v, %v", v, first, err)
		}
	})
}

// A call has the values of the context of its first caller.
func TestValues(t *testing.T) {
	t.Parallel()
	type key struct{}
	var g coalesce.Group[string, any]
	ctx := context.WithValue(t.Context(), key{}, "here")
	v, _, err := g.Do(ctx, "a", func(ctx context.Context) (any, error) { return ctx.Value(key{}), nil })
	if v != "here" || err != nil {
		t.Errorf("%v, %v", v, err)
	}
}
