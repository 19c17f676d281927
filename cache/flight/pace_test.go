package flight

import (
	"fmt"
	"testing"
	"time"
)

// TestPace judges steps by rates that are given for each look, in bytes a second.
func TestPace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		before, after int
		base          int64
		rates         []int64 // -1: not all connections bring bytes
		want          verdict
		looks         int // until the verdict
	}{
		{"none on trial", 0, 0, 0, []int64{100}, paid, 1},
		{"none on trial, and no byte yet", 0, 0, 0, []int64{-1, -1, 100}, paid, 3},
		{"twice as fast", 1, 2, 100, []int64{150, 200}, paid, 2},
		{"the first look does not count", 1, 2, 100, []int64{200, 100, 100, 100, 100}, failed, 5},
		{"a third of what could be gained", 2, 4, 100, []int64{100, 134}, paid, 2},
		{"less", 2, 4, 100, []int64{100, 130, 130, 130, 130}, failed, 5},
		{"it takes a while", 4, 8, 100, []int64{100, 100, 110, 120, 180}, paid, 5},
		{"a small step", 4, 6, 100, []int64{100, 117}, paid, 2},
		{"they begin late", 1, 2, 100, []int64{-1, -1, -1, -1, -1, -1, 150, 190}, paid, 8},
		{"slower", 1, 2, 100, []int64{50, 50, 50, 50, 50}, failed, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			now, brought := time.Unix(0, 0), int64(0)
			p := pace{at: now, rate: float64(tt.base)}
			p.step(tt.before, tt.after)
			for i, rate := range tt.rates {
				now = now.Add(time.Second)
				brought += max(0, rate)
				got, want := p.look(now, brought, rate >= 0), undecided
				if i+1 == tt.looks {
					want = tt.want
				}
				if got != want {
					t.Fatalf("look %d: %v, want %v", i+1, got, want)
				}
			}
		})
	}
	t.Run("they never begin", func(t *testing.T) {
		t.Parallel()
		p := pace{}
		p.step(1, 2)
		for i := range startLooks {
			if got := p.look(time.Unix(int64(i), 0), 0, false); (got == failed) != (i == startLooks-1) {
				t.Fatalf("look %d: %v", i+1, got)
			}
		}
	})
}

// The memory of upstreams is bounded, and a figure that is built upon expires when the first one would have.
func TestHostsForget(t *testing.T) {
	t.Parallel()
	var h hosts
	for i := range provenMost + 10 {
		h.remember(fmt.Sprint(i), 4, false, provenFor)
	}
	h.remember("", 8, false, provenFor)
	if n := len(h.proven); n == 0 || n > provenMost {
		t.Errorf("%d upstreams are remembered", n)
	}
	if n, settled := h.recall(""); n != 1 || settled {
		t.Errorf("an upstream without a name is remembered: %d, %t", n, settled)
	}
	last := fmt.Sprint(provenMost + 9)
	if n, _ := h.recall(last); n != 4 {
		t.Errorf("the last one is not remembered: %d", n)
	}
	until := h.proven[last].until
	h.remember(last, 8, true, provenFor)
	if n, settled := h.recall(last); n != 8 || !settled || h.proven[last].until != until {
		t.Errorf("%d, %t, until %v, before %v", n, settled, h.proven[last].until, until)
	}
	h.remember(last, 3, true, refusedFor)
	if n, settled := h.recall(last); n != 3 || !settled || !h.proven[last].until.Before(until) {
		t.Errorf("%d, %t, until %v, before %v", n, settled, h.proven[last].until, until)
	}
}
