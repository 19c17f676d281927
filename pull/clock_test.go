package pull_test

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/registrymirror/mirror/pull"
)

// jumped is a time as a clock shows it that has been set by d: the same moment, another time of day.
func jumped(t time.Time, d time.Duration) time.Time {
	const monotonic, second = 1 << 63, 1 << 30 // of time.Time's first word
	wall := (*uint64)(unsafe.Pointer(&t))
	if *wall&monotonic == 0 {
		panic("a time without a monotonic reading")
	}
	*wall += uint64(int64(d/time.Second) * second)
	return t
}

// Leases are renewed once a minute, whatever is done to the machine's clock.
func TestClockThatJumps(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{-3 * time.Hour, 3 * time.Hour, -30 * 24 * time.Hour} {
		var at atomic.Int64
		now := time.Now()
		for i, tt := range []struct {
			after time.Duration
			jump  time.Duration
			want  bool
		}{
			{0, 0, true},
			{time.Second, 0, false},
			{2 * time.Second, jump, false},
			{61 * time.Second, jump, true},
			{62 * time.Second, 0, false},
			{122 * time.Second, 0, true},
		} {
			if got := pull.Due(&at, jumped(now.Add(tt.after), tt.jump)); got != tt.want {
				t.Errorf("a jump of %s, %d: due after %s: %v", jump, i, tt.after, got)
			}
		}
	}
}
