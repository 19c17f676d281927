package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// The shares of the pools, in 128ths of the budget. Answers have room for one list of the largest size.
const (
	shares      = 128
	sharesSmall = 12
	sharesLarge = 48
	sharesSend  = 68
)

// Small is the cost in bytes up to which a document is small: it waits for other small ones only.
const Small = 512 << 10

// A waiter that needs little passes a client whose turn it is and whose need is larger than what is free: one that needs up to
// a 256th of the pool, until those that have passed had an eighth of it together.
const (
	littlePart  = 256
	passingPart = 8
)

// maxWaiting is how many requests may wait in a pool. One more takes the place of the last one of the longest line.
const maxWaiting = 1000

// Class is the purpose of memory.
type Class int

// The classes.
const (
	Work   Class = iota // a document is fetched, verified, parsed
	Answer              // a list is fetched, or an answer is sent from memory, at the client's pace
)

// Options for a Budget. The zero value of a field means what its comment says.
type Options struct {
	Size int64         // bytes; 128 MiB
	Wait time.Duration // for room, at most; 10 s
}

// FullError says that a document had to wait for memory for too long, or that too many waited already.
type FullError struct {
	Need   int64         // bytes
	Size   int64         // of the pool
	Waited time.Duration // 0: too many requests waited
	Err    error         // the cause of a wait that ended early; nil: it lasted for Options.Wait
}

// Unwrap returns Err.
func (e *FullError) Unwrap() error { return e.Err }

func (e *FullError) Error() string {
	return fmt.Sprintf("all memory for documents is in use: %d of %d bytes needed, after %s", e.Need, e.Size,
		e.Waited.Round(time.Millisecond))
}

// Budget is safe for concurrent use.
type Budget struct {
	size int64
	wait time.Duration

	mu     sync.Mutex // guards the fields below; a leaf: stores are called without it
	kept   int64      // bytes in stores
	small  pool
	large  pool
	send   pool
	stores []Store
}

// Store keeps documents for later.
type Store interface {
	// Shrink gives back n bytes or more, by Drop, if it has them. It is called without any lock of the budget.
	Shrink(n int64)
}

// pool is one part of the budget, with the requests that wait for it.
type pool struct {
	most, used int64
	lines      map[string][]*waiter // by client, in order
	order      []string             // clients that have a line: the first one is served next
	waiting    int
}

// waiter is a request for room that waits.
type waiter struct {
	n      int64
	passed int64     // bytes of waiters that were served in its turn
	ready  chan bool // true: it has its room; false: it lost its place
}

// New makes an unused budget.
func New(o Options) *Budget {
	o.Size, o.Wait = cmp.Or(o.Size, 128<<20), cmp.Or(o.Wait, 10*time.Second)
	part := func(n int64) pool { return pool{most: o.Size / shares * n, lines: make(map[string][]*waiter)} }
	return &Budget{size: o.Size, wait: o.Wait, small: part(sharesSmall), large: part(sharesLarge), send: part(sharesSend)}
}

// Register adds a store, which Shrink is called of where a pool needs room.
func (b *Budget) Register(s Store) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stores = append(b.stores, s)
}

// Keep counts n bytes as a store's, or reports that there is no room for them now.
func (b *Budget) Keep(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used()+n > b.size {
		return false
	}
	b.kept += n
	return true
}

// Drop gives n bytes of a store back.
func (b *Budget) Drop(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept -= n
}

// Used is how many bytes are in use.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used()
}

// used is Used with the lock held.
func (b *Budget) used() int64 { return b.kept + b.small.used + b.large.used + b.send.used }

// pool is the one for a need.
func (b *Budget) pool(c Class, n int64) *pool {
	switch {
	case c == Answer:
		return &b.send
	case n <= Small:
		return &b.small
	}
	return &b.large
}

// acquire waits for n bytes, and returns how many it got: never more than all of the pool.
func (b *Budget) acquire(ctx context.Context, p *pool, client string, n int64) (int64, error) {
	if !guard.Memory {
		return 0, nil
	}
	n = min(n, p.most)
	b.mu.Lock()
	if p.waiting == 0 && p.used+n <= p.most {
		p.used += n
		b.mu.Unlock()
		b.shrink()
		return n, nil
	}
	w := &waiter{n: n, ready: make(chan bool, 1)}
	full := &FullError{Need: n, Size: p.most}
	if p.waiting >= maxWaiting && !p.shed(client) {
		b.mu.Unlock()
		return 0, full
	}
	p.enter(client, w)
	p.serve() // it may need little
	b.mu.Unlock()

	began := time.Now()
	timer := time.NewTimer(b.wait)
	defer timer.Stop()
	select {
	case ok := <-w.ready:
		if !ok {
			full.Waited = time.Since(began)
			return 0, full
		}
		b.shrink()
		return n, nil
	case <-timer.C:
	case <-ctx.Done():
		full.Err = context.Cause(ctx)
	}
	full.Waited = time.Since(began)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !p.leave(client, w) && <-w.ready { // it got its room at the same moment
		p.used -= n
	}
	p.serve()
	return 0, full
}

// release gives n bytes back, for the requests that wait.
func (b *Budget) release(p *pool, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.used -= n
	p.serve()
}

// shrink has the stores give back the bytes above the budget.
func (b *Budget) shrink() {
	b.mu.Lock()
	stores := slices.Clip(b.stores)
	b.mu.Unlock()
	for _, s := range stores {
		if over := b.Used() - b.size; over > 0 {
			s.Shrink(over)
		}
	}
}

// enter puts a waiter into its client's line.
func (p *pool) enter(client string, w *waiter) {
	if len(p.lines[client]) == 0 {
		p.order = append(p.order, client)
	}
	p.lines[client] = append(p.lines[client], w)
	p.waiting++
}

// shed refuses the last waiter of the longest line, in favour of a client whose own line is shorter. False: there is none.
func (p *pool) shed(client string) bool {
	longest, most := "", len(p.lines[client])+1
	for other, line := range p.lines {
		if len(line) > most {
			longest, most = other, len(line)
		}
	}
	if longest == "" {
		return false
	}
	line := p.lines[longest]
	w := line[len(line)-1]
	p.leave(longest, w)
	w.ready <- false
	return true
}

// leave takes a waiter out. False: it is not in its line any more.
func (p *pool) leave(client string, w *waiter) bool {
	i := slices.Index(p.lines[client], w)
	if i < 0 {
		return false
	}
	p.lines[client] = slices.Delete(p.lines[client], i, i+1)
	p.waiting--
	if len(p.lines[client]) == 0 {
		delete(p.lines, client)
		p.order = slices.DeleteFunc(p.order, func(c string) bool { return c == client })
	}
	return true
}

// serve gives room to waiting requests, one client after the other, while there is room. Before the next one in turn only
// requests that need little are served, and not many of them, so that a large document gets its room as well.
func (p *pool) serve() {
	for len(p.order) > 0 {
		client := p.order[0]
		w := p.lines[client][0]
		if p.used+w.n > p.most {
			if client, w = p.pass(w); w == nil {
				return
			}
		}
		p.used += w.n
		p.leave(client, w)
		if len(p.lines[client]) > 0 { // its next turn is after all others
			p.order = append(slices.DeleteFunc(p.order, func(c string) bool { return c == client }), client)
		}
		w.ready <- true
	}
}

// pass finds the next waiter, of another client, that needs little and may be served before first.
func (p *pool) pass(first *waiter) (string, *waiter) {
	for _, client := range p.order[1:] {
		w := p.lines[client][0]
		if w.n <= p.most/littlePart && w.n < first.n && p.used+w.n <= p.most && first.passed+w.n <= p.most/passingPart {
			first.passed += w.n
			return client, w
		}
	}
	return "", nil
}
