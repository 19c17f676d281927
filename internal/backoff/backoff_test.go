package backoff_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
)

func TestAfter(t *testing.T) {
	t.Parallel()
	b := backoff.Backoff{First: 200 * time.Millisecond, Most: time.Second}
	for failures, want := range map[int]time.Duration{
		0: 200 * time.Millisecond, 1: 200 * time.Millisecond, 2: 400 * time.Millisecond, 3: 800 * time.Millisecond,
		4: time.Second, 1000: time.Second,
	} {
		if got := b.After(failures); got != want {
			t.Errorf("after %d failures: %s, want %s", failures, got, want)
		}
	}
	if got := (backoff.Backoff{First: time.Hour, Most: time.Minute}).After(1); got != time.Minute {
		t.Errorf("a first wait above the longest: %s", got)
	}
	if got := (backoff.Backoff{First: 1, Most: math.MaxInt64 / 2}).After(1000); got != math.MaxInt64/2 {
		t.Errorf("a long row: %s", got)
	}
}

func TestBetween(t *testing.T) {
	t.Parallel()
	for range 1000 {
		if d := backoff.Between(3*time.Second, 5*time.Second); d < 3*time.Second || d > 5*time.Second {
			t.Fatal(d)
		}
	}
	if d := backoff.Between(time.Second, time.Second); d != time.Second {
		t.Error(d)
	}
	if d := backoff.Between(time.Second, 0); d != time.Second {
		t.Error(d)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !backoff.Wait(t.Context(), time.Minute) || time.Since(began) != time.Minute {
			t.Errorf("a wait of a minute took %s, or did not come to its end", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if backoff.Wait(ctx, time.Minute) || time.Since(began) != time.Minute+time.Second {
			t.Errorf("a wait that its context ends came to its end, or took %s", time.Since(began)-time.Minute)
		}
	})
}
