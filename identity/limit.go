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
	// Where those at an address are used up: first tries of users there.
	firstBurst, firstEvery = 100, 10 * time.Second
	// Tokens at an address that an API server has refused, and whose signature could not be checked before.
	forgedBurst, forgedEvery = 30, 2 * time.Second
	// maxLimits is how many of each are remembered.
	maxLimits = 16_384
	// patience is how long a password or a token waits to be checked.
	patience = 5 * time.Second
)

// pair is a user at an address.
type pair struct{ user, source string }

// limits count wrong passwords. A check takes from each count before it begins, and a right password gives that back: checks at the
// same time can't exceed a count.
//
// A user whose own count at an address is used up is refused there. Where that of the address, or that of the user at all addresses,
// is used up, a login is still checked if nothing speaks against it: it is the first try of a user there, or a user has logged in
// there before. So neither wrong passwords for others at the same address, nor wrong passwords from elsewhere, lock a user out. First
// tries have a count of their own at each address, from which only users that exist take: it bounds how many of them one client can
// try a password with, and made-up names don't use it up.
type limits struct {
	mu       sync.Mutex // guards the counts
	existing names
	madeUp   names // apart, so that made-up names displace no count of a user
	sources  *bounded.LRU[string, *count]
	firsts   *bounded.LRU[string, *count]
	forged   *bounded.LRU[string, *count]
	seen     *bounded.LRU[pair, struct{}] // users at addresses from which they have logged in
}

// names are counts by the name that a client has sent.
type names struct {
	pairs *bounded.LRU[pair, *count]
	users *bounded.LRU[string, *count]
}

func newLimits() *limits {
	return &limits{
		existing: newNames(), madeUp: newNames(), sources: newCounts[string](), firsts: newCounts[string](), forged: newCounts[string](),
		seen: bounded.NewLRU(bounded.Options[pair, struct{}]{Budget: maxLimits}),
	}
}

func newNames() names { return names{newCounts[pair](), newCounts[string]()} }

func newCounts[K comparable]() *bounded.LRU[K, *count] {
	return bounded.NewLRU(bounded.Options[K, *count]{Budget: maxLimits})
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

// try is a password or a token that may be checked.
type try struct {
	l    *limits
	at   pair
	took []*count
}

// begin takes a try of a user from an address. exists: the user is one of the file. Nil: it may not be made.
func (l *limits) begin(user, source string, exists bool, now time.Time) *try {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.madeUp
	if exists {
		of = l.existing
	}
	t := &try{l: l, at: pair{user, source}}
	own := countOf(of.pairs, t.at, pairBurst, pairEvery, now)
	_, seen := l.seen.Get(t.at)
	fresh := own.left >= own.burst
	for _, c := range []struct {
		of     *count
		exempt bool
	}{
		{own, false},
		{countOf(of.users, user, userBurst, userEvery, now), seen},
		{countOf(l.sources, source, sourceBurst, sourceEvery, now), seen || fresh && l.first(t, exists, now)},
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

// first reports whether a first try may be made where the count of the address is used up, and then takes it. The lock is held.
func (l *limits) first(t *try, exists bool, now time.Time) bool {
	if of, known := l.sources.Get(t.at.source); !known || of.left >= 1 {
		return false // it is not needed
	}
	c := countOf(l.firsts, t.at.source, firstBurst, firstEvery, now)
	if c.left < 1 {
		return false
	}
	if exists {
		t.took = append(t.took, c)
	}
	return true
}

// unproven takes a try of a token whose signature can't be checked, from an address. Nil: it may not be made.
func (l *limits) unproven(source string, now time.Time) *try {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := countOf(l.forged, source, forgedBurst, forgedEvery, now)
	if c.left < 1 {
		return nil
	}
	c.left--
	return &try{l: l, took: []*count{c}}
}

// known reports whether a password that was right elsewhere may be used from an address: the user has logged in there, or the limits
// would let it be compared. Else the answer would tell right guesses from wrong ones without a limit.
func (l *limits) known(user, source string, now time.Time) bool {
	if _, seen := l.seen.Get(pair{user, source}); seen {
		return true
	}
	t := l.begin(user, source, true, now)
	if t != nil {
		t.succeeded()
	}
	return t != nil
}

// undo gives back what was taken: the password or token was right, or was not checked.
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

// turns let logins be checked: a few for each address, and a few for all of them, so that a flood from one address does not hold up
// the logins of others.
//
//	user at the address: 1  ──►  address: each  ──►  all
//
// A login waits in front of the address only while none of its user does: wrong ones for one user hold up another user by one check.
type turns struct {
	each int // checks at once at an address
	all  chan struct{}

	mu sync.Mutex // guards of
	of map[pair]*turn
}

// turn is that of a user at an address, or that of an address, which has no user.
type turn struct {
	places chan struct{} // holds a value for each check
	uses   int           // logins that are checked or wait
}

func newTurns(each, most int) *turns {
	return &turns{each: each, all: make(chan struct{}, most), of: make(map[pair]*turn)}
}

// do runs a check when it is the turn of a user at an address; of an address alone if the user is empty. False: it was not in time.
func (t *turns) do(ctx context.Context, at pair, check func()) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	places := []chan struct{}{t.enter(pair{source: at.source}, t.each), t.all}
	defer t.leave(pair{source: at.source})
	if at.user != "" {
		places = append([]chan struct{}{t.enter(at, 1)}, places...)
		defer t.leave(at)
	}
	return within(ctx, places, check)
}

// alone runs what costs nothing when it is the turn of a user at an address, whatever other users do. False: it was not in time.
func (t *turns) alone(ctx context.Context, at pair, check func()) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer t.leave(at)
	return within(ctx, []chan struct{}{t.enter(at, 1)}, check)
}

// within runs a check with a place of each kind. False: there was none in time.
func within(ctx context.Context, places []chan struct{}, check func()) bool {
	for _, place := range places {
		select {
		case place <- struct{}{}:
			defer func() { <-place }()
		case <-ctx.Done():
			return false
		}
	}
	check()
	return true
}

// enter is the beginning of a use of a turn, and leave its end.
func (t *turns) enter(at pair, most int) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.of[at]
	if own == nil {
		own = &turn{places: make(chan struct{}, most)}
		t.of[at] = own
	}
	own.uses++
	return own.places
}

func (t *turns) leave(at pair) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own := t.of[at]; own.uses == 1 {
		delete(t.of, at)
	} else {
		own.uses--
	}
}
