package upstream

import (
	"cmp"
	"slices"
	"time"
)

// Spent is who has spent a limit, as far as it can be known from here. A registry counts an account or an address, which
// others may share.
type Spent struct {
	Since    time.Time // of Budget.At, as long as the limit's window, or since the Registry is there
	Requests int64     // that were made here
	By       []Use     // of those, the repositories with most, at most ten, the most first
	// Elsewhere is what others have spent of the limit, who have the same account or address. -1: not known, since no
	// window or no limit was said, or the window began before the Registry did.
	Elsewhere int64
}

// Use is a part of what was spent.
type Use struct {
	Repository string // as clients know it
	Requests   int64
}

const (
	// spentFor is how far back what was spent is counted where a registry says no window.
	spentFor = 24 * time.Hour
	// slotsOfWindow is how exactly its beginning is kept.
	slotsOfWindow = 24
	// mostSpenders is how many repositories are told apart in each slot, and mostNamed how many are told.
	mostSpenders, mostNamed = 100, 10
)

// ledger counts what was spent of a limit in its window, by repository. What is older goes a slot at a time.
type ledger []slot

type slot struct {
	from     time.Time
	by       map[string]int64
	requests int64
}

func horizon(window time.Duration) time.Duration {
	if window <= 0 {
		return spentFor
	}
	return window
}

// spend notes a request that counts.
func (l *ledger) spend(repository string, window time.Duration, now time.Time) {
	width := horizon(window) / slotsOfWindow
	*l = slices.DeleteFunc(*l, func(s slot) bool { return now.Sub(s.from) >= horizon(window)+width })
	if n := len(*l); n == 0 || now.Sub((*l)[n-1].from) >= width {
		if n == 2*slotsOfWindow { // a window that has become longer
			*l = slices.Delete(*l, 0, 1)
		}
		*l = append(*l, slot{from: now, by: make(map[string]int64)})
	}
	s := &(*l)[len(*l)-1]
	s.requests++
	if _, known := s.by[repository]; known || len(s.by) < mostSpenders {
		s.by[repository]++
	}
}

// spent is what was spent of b in the window that ended when b was said. It was counted since began.
func (l ledger) spent(b Budget, began time.Time) Spent {
	s := Spent{Since: b.At.Add(-horizon(b.Window)), Elsewhere: -1}
	width := horizon(b.Window) / slotsOfWindow
	by := make(map[string]int64)
	for _, x := range l {
		if x.from.Add(width).After(s.Since) {
			s.Requests += x.requests
			for repository, n := range x.by {
				by[repository] += n
			}
		}
	}
	for repository, n := range by {
		s.By = append(s.By, Use{repository, n})
	}
	slices.SortFunc(s.By, func(a, b Use) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Repository, b.Repository))
	})
	s.By = s.By[:min(len(s.By), mostNamed)]
	switch {
	case began.After(s.Since):
		s.Since = began
	case b.Window > 0 && b.Limit > 0:
		s.Elsewhere = max(0, b.Limit-b.Remaining-s.Requests)
	}
	return s
}
