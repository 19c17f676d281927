package limit

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/bounded"
)

// Spent is what used up a limit, as far as this mirror can know it. A registry counts an account or an address, which
// others may share.
type Spent struct {
	Since    time.Time // a window before Budget.At, or when counting began, if that was later
	Requests int64     // that this mirror made
	By       []Use     // the repositories with most of them, at most ten, the most first
	// Elsewhere is how many requests others made with the same account or address. -1: not known, since no window or no limit
	// was said, or the window began before counting did.
	Elsewhere int64
}

// Use is a part of what was spent.
type Use struct {
	Repository string // as clients know it
	Requests   int64
}

const (
	// defaultWindow is how far back requests are counted where a registry names no window.
	defaultWindow = 24 * time.Hour
	// slotsPerWindow is how exactly the beginning of the window is kept.
	slotsPerWindow = 24
	// maxSpenders is how many repositories are told apart in each slot, and maxNamed how many Spent names.
	maxSpenders, maxNamed = 100, 10
	// examinationTime is how long requests must have been counted to say what the mirror spends of a limit that an
	// examination asks for.
	examinationTime = time.Minute
)

// Spending counts the requests that were spent of an endpoint's limits, by credential and repository. It is safe for
// concurrent use. An examination beside the registry in use has limits of its own and shares this.
type Spending struct {
	began time.Time // of counting

	mu      sync.Mutex // guards ledgers; a leaf
	ledgers map[string]*ledger
}

// ledger is what one credential has spent. The lock is held.
func (s *Spending) ledger(credential string) *ledger {
	if s.ledgers[credential] == nil {
		bounded.Put(&s.ledgers, credential, new(ledger), maxCredentials)
	}
	return s.ledgers[credential]
}

// add counts a request, whose answer said b.
func (s *Spending) add(repository string, b Budget) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger(b.Credential).add(repository, b.Window, b.At)
}

// of is what was spent of a budget. Borrowed: it is asked for by an examination. Where no mirror runs, the examination's own
// request is all that was counted, which says nothing: then it is zero.
func (s *Spending) of(b Budget, borrowed bool) Spent {
	s.mu.Lock()
	defer s.mu.Unlock()
	spent := s.ledger(b.Credential).spent(b, s.began)
	if borrowed && b.At.Sub(s.began) < examinationTime && spent.Requests <= 1 {
		return Spent{}
	}
	return spent
}

// ledger counts requests in a window, by repository. Old requests leave it a slot at a time.
type ledger []slot

type slot struct {
	from     time.Time
	by       map[string]int64 // requests by repository
	requests int64
}

func horizon(window time.Duration) time.Duration {
	if window <= 0 {
		return defaultWindow
	}
	return window
}

func (l *ledger) add(repository string, window time.Duration, now time.Time) {
	width := horizon(window) / slotsPerWindow
	*l = slices.DeleteFunc(*l, func(s slot) bool { return now.Sub(s.from) >= horizon(window)+width })
	if n := len(*l); n == 0 || now.Sub((*l)[n-1].from) >= width {
		if n == 2*slotsPerWindow { // a window that has become longer
			*l = slices.Delete(*l, 0, 1)
		}
		*l = append(*l, slot{from: now, by: make(map[string]int64)})
	}
	s := &(*l)[len(*l)-1]
	s.requests++
	if _, known := s.by[repository]; known || len(s.by) < maxSpenders {
		s.by[repository]++
	}
}

// spent is what was spent of b in the window that ended when b was said. Counting began at a time.
func (l ledger) spent(b Budget, began time.Time) Spent {
	s := Spent{Since: b.At.Add(-horizon(b.Window)), Elsewhere: -1}
	width := horizon(b.Window) / slotsPerWindow
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
	s.By = s.By[:min(len(s.By), maxNamed)]
	switch {
	case began.After(s.Since):
		s.Since = began
	case b.Window > 0 && b.Limit > 0:
		s.Elsewhere = max(0, b.Limit-b.Remaining-s.Requests)
	}
	return s
}
