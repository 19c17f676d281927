package server_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/registrymirror/mirror/server"
)

// jumped is the same moment on a clock that was set by d: another time of day.
func jumped(t time.Time, d time.Duration) time.Time {
	const monotonic, second = 1 << 63, 1 << 30 // of time.Time's first word
	wall := (*uint64)(unsafe.Pointer(&t))
	if *wall&monotonic == 0 {
		panic("a time without a monotonic reading")
	}
	*wall += uint64(int64(d/time.Second) * second)
	return t
}

// Setting the clock during a download does not change for how long the client may stall: neither the deadline of each write,
// nor one that a caller set.
func TestClockThatJumps(t *testing.T) {
	t.Parallel()
	const stall = time.Minute
	for _, jump := range []time.Duration{-3 * time.Hour, 3 * time.Hour, -30 * 24 * time.Hour, 30 * 24 * time.Hour} {
		w, now := server.NewWriteDeadline(stall), time.Now()
		if at := jumped(now, jump); at.Sub(now) != 0 || at.Unix()-now.Unix() != int64(jump/time.Second) {
			t.Fatalf("a jump of %s is one of %s", jump, at.Round(0).Sub(now.Round(0)))
		}
		if got, ok := w.At(now); !ok || got.Sub(now) != stall/2 {
			t.Errorf("%s: at first %s, %v", jump, got.Sub(now), ok)
		}
		if _, ok := w.At(jumped(now.Add(stall/100), jump)); ok {
			t.Errorf("%s: a deadline that was just set is renewed", jump)
		}
		later := now.Add(stall / 4)
		if got, ok := w.At(jumped(later, jump)); !ok || got.Sub(later) != stall/2 {
			t.Errorf("%s: a write later gets %s, %v", jump, got.Sub(later), ok)
		}
		w.SetUntil(now.Add(5 * time.Second))
		if got, ok := w.At(jumped(now, jump)); !ok || got.Sub(now) != 5*time.Second {
			t.Errorf("%s: the last words get %s, %v", jump, got.Sub(now), ok)
		}
	}
}
