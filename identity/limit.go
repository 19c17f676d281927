package identity

import (
	"context"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/bounded"
)

// How many wrong passwords are checked: of a user at an address, of a user at all addresses together, and at an address. Of each, one
// more is allowed after an interval.
const (
	pairBurst, pairEvery     = 5, 30 * time.Second
	userBurst, userEvery     = 50, 5 * time.Second
	sourceBurst, sourceEvery = 30, 2 * time.Second
	// maxLimits is how many of each are remembered.
	maxLimits = 16_384
	// patience is how long a password waits to be checked.
	patience = 5 * time.Second
)

// pair is a user at an address.
type pair struct{ user, source string }

// limits count wrong passwords. A check takes from each count before it begins, and a right password gives that back: checks at the
// same time can't exceed a count.
//
// A user whose own count at an address is used up is refused there. Where that of the address, or that of the user at all addresses,
// is used up, a login is still checked if nothing speaks against it: it is the first try of a user there, or a user has logged in
// there before. So neither wrong passwords for others at the same address, nor wrong passwords from elsewhere, lock a user out.
type limits struct {
	mu      sync.Mutex // guards the counts
	pairs   *bounded.LRU[pair, *count]
	users   *bounded.LRU[string, *count]
	sources *bounded.LRU[string, *count]
	seen    *bounded.LRU[pair, struct{}] // users at addresses from which they have logged in
}

func newLimits() *limits {
	return &limits{
		pairs:   bounded.NewLRU(bounded.Options[pair, *count]{Budget: maxLimits}),
		users:   bounded.NewLRU(bounded.Options[string, *count]{Budget: maxLimits}),
		sources: bounded.NewLRU(bounded.Options[string, *count]{Budget: maxLimits}),
		seen:    bounded.NewLRU(bounded.Options[pair, struct{}]{Budget: maxLimits}),
	}
}

// count is how many tries are left. golang.org/x/time/rate can't give back what was taken and used.
type count struct {
	left, burst float64
	every       time.Duration // after which there is one more
	at          time.Time     // of left
}

// refill adds what has come since the last look.
func (c *count) refill(now time.Time) {
	if since := now.Sub(c.at); since > 0 {
		c.left = min(c.burst, c.left+float64(since)/float64(c.every))
		c.at = now
	}
}

// countOf is the count of a key.
func countOf[K comparable](of *bounded.LRU[K, *count], key K, burst float64, every time.Duration, now time.Time) *count {
	c, ok := of.Get(key)
	if !ok {
		c = &count{left: burst, burst: burst, every: every, at: now}
		of.Put(key, c, 1)
	}
	c.refill(now)
	return c
}

// try is a password that may be compared.
type try struct {
	l    *limits
	at   pair
	took []*count
}

// begin takes a try of a user from an address. Nil: it may not be made.
func (l *limits) begin(user, source string, now time.Time) *try {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &try{l: l, at: pair{user, source}}
	own := countOf(l.pairs, t.at, pairBurst, pairEvery, now)
	_, seen := l.seen.Get(t.at)
	fresh := own.left >= own.burst
	for _, c := range []struct {
		of     *count
		exempt bool
	}{
		{own, false},
		{countOf(l.users, user, userBurst, userEvery, now), seen},
		{countOf(l.sources, source, sourceBurst, sourceEvery, now), seen || fresh},
	} {
		switch {
		case c.of.left >= 1:
			t.took = append(t.took, c.of)
		case !c.exempt:
			return nil
		}
	}
	for _, c := range t.took {
		c.left--
	}
	return t
}

// known reports whether a password that was right elsewhere may be used from an address: the user has logged in there, or the limits
// would let it be compared. Else the answer would tell right guesses from wrong ones without a limit.
func (l *limits) known(user, source string, now time.Time) bool {
	if _, seen := l.seen.Get(pair{user, source}); seen {
		return true
	}
	t := l.begin(user, source, now)
	if t != nil {
		t.succeeded()
	}
	return t != nil
}

// undo gives back what was taken: the password was not compared.
func (t *try) undo() {
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	for _, c := range t.took {
		c.left = min(c.burst, c.left+1)
	}
}

// succeeded notes that the password was right.
func (t *try) succeeded() {
	t.undo()
	t.l.seen.Put(t.at, struct{}{}, 1)
}

// turns let passwords be computed: one at a time for each address, and a few for all of them, so that a flood from one address does
// not hold up the logins of others for longer than one takes.
type turns struct {
	all chan struct{}

	mu      sync.Mutex // guards sources
	sources map[string]*turn
}

type turn struct {
	one  chan struct{} // holds a value while a password is computed
	uses int           // requests that compute or wait
}

func newTurns(most int) *turns {
	return &turns{all: make(chan struct{}, most), sources: make(map[string]*turn)}
}

// do computes when it is the turn of an address. False: it was not in time.
func (t *turns) do(ctx context.Context, source string, compute func()) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t.mu.Lock()
	own := t.sources[source]
	if own == nil {
		own = &turn{one: make(chan struct{}, 1)}
		t.sources[source] = own
	}
	own.uses++
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.uses--; own.uses == 0 {
			delete(t.sources, source)
		}
	}()
	for _, place := range []chan struct{}{own.one, t.all} {
		select {
		case place <- struct{}{}:
			defer func() { <-place }()
		case <-ctx.Done():
			return false
		}
	}
	compute()
	return true
}
