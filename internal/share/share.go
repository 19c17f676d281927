package share

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/guard"
)

const (
	// Patience is how long a request waits for its turn. Clients give up after 25 seconds or so.
	Patience = 10 * time.Second
	// waitingFor is how many requests of a client may wait for each that runs.
	waitingFor = 4
	// burst is the time for which a client that has sent nothing may send at once.
	burst = time.Second
	// maxIdle bounds the clients without a request whose bandwidth recovers.
	maxIdle = 16_384
	// A piece is what a client sends in one turn: a twentieth of a second of the smaller bandwidth, within these.
	minPiece, maxPiece = 16 << 10, 1 << 20
)

// Event is what a limit has done to a request.
type Event string

// The events.
const (
	Waited  Event = "waited"  // it had its turn after a wait
	Refused Event = "refused" // it had no turn in time
	Paced   Event = "paced"   // its body waited for bandwidth; once for each request
)

// Settings are the limits. Zero: there is none.
type Settings struct {
	Requests  int   // of each client at once
	Bandwidth int64 // of each client, bytes a second
	Total     int64 // of all clients, bytes a second
}

// Limits hold clients to their settings. A nil *Limits has none. It is safe for concurrent use.
type Limits struct {
	set     Settings
	piece   int64
	observe func(Event)

	mu      sync.Mutex // guards the fields below and all accounts
	clients map[Client]*account
	idle    list.List // accounts without a request, the one that is idle longest in front
	total   gauge
	turns   list.List   // accounts with bodies that wait for the total, the next one in front
	timer   *time.Timer // of the next turn; nil: it was never needed
	armed   bool
}

// Client names one: by what it has shown of itself, or else by its address. The zero Client stands for all without either: they have
// no limits of their own, and one share of the total together.
type Client struct{ Identity, Address string }

// account is the state of a client.
type account struct {
	client  Client
	running int
	waiting list.List // of chan struct{}: requests that wait for their turn
	sent    gauge
	bodies  list.List     // of *body, which wait for the total
	idle    *list.Element // in Limits.idle; nil: it has requests
	turn    *list.Element // in Limits.turns; nil: no body of it waits
}

type body struct {
	n     int64
	ready chan struct{}
}

// gauge holds bytes to a rate. It is the time at which all that was taken will have been sent.
type gauge struct{ until time.Time }

// take notes n bytes, and returns the time from which they may be sent.
func (g *gauge) take(now time.Time, n, rate int64, burst time.Duration) (from time.Time) {
	if least := now.Add(-burst); g.until.Before(least) {
		g.until = least
	}
	from = g.until
	g.until = from.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return from
}

// New makes Limits. observe must not block; nil: it is not called. Without any limit New returns nil.
func New(set Settings, observe func(Event)) *Limits {
	if set == (Settings{}) {
		return nil
	}
	if observe == nil {
		observe = func(Event) {}
	}
	rate := set.Bandwidth
	if rate == 0 || set.Total > 0 && set.Total < rate {
		rate = set.Total
	}
	return &Limits{
		set: set, observe: observe, clients: make(map[Client]*account),
		piece: min(max(rate/20, minPiece), maxPiece),
	}
}

// FullError says that a request had no turn in time.
type FullError struct {
	Most   int           // requests that the client may have at once
	Waited time.Duration // zero: too many of them wait already
}

func (e *FullError) Error() string {
	return fmt.Sprintf("the client has %d requests at once, as many as it may have", e.Most)
}

// Request is one of a client. A nil *Request has no limits.
type Request struct {
	l     *Limits
	a     *account
	paced bool
}

// Begin returns when a request of a client may begin. Its error is a *FullError, or the context's cause. The caller ends it.
func (l *Limits) Begin(ctx context.Context, c Client) (*Request, error) {
	if l == nil || c == (Client{}) && l.set.Total == 0 {
		return nil, nil
	}
	l.mu.Lock()
	a := l.account(c)
	most := l.set.Requests
	if !guard.Limits || most == 0 || c == (Client{}) || a.running < most {
		a.running++
		l.mu.Unlock()
		return &Request{l: l, a: a}, nil
	}
	if a.waiting.Len() >= waitingFor*most {
		l.mu.Unlock()
		l.observe(Refused)
		return nil, &FullError{Most: most}
	}
	ready := make(chan struct{})
	at := a.waiting.PushBack(ready)
	l.mu.Unlock()

	began := time.Now()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	var err error
	select {
	case <-ready:
		l.observe(Waited)
		return &Request{l: l, a: a}, nil
	case <-timer.C:
		err = &FullError{Most: most, Waited: time.Since(began)}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-ready: // in the same moment
		l.end(a)
	default:
		a.waiting.Remove(at)
	}
	if ctx.Err() == nil {
		l.observe(Refused)
	}
	return nil, err
}

// End ends a request, and lets the next one of its client begin.
func (r *Request) End() {
	if r == nil {
		return
	}
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.l.end(r.a)
}

func (l *Limits) end(a *account) {
	if first := a.waiting.Front(); first != nil {
		close(a.waiting.Remove(first).(chan struct{}))
		return
	}
	if a.running--; a.running > 0 {
		return
	}
	if l.set.Bandwidth == 0 || a.client == (Client{}) {
		delete(l.clients, a.client)
		return
	}
	a.idle = l.idle.PushBack(a)
	l.forget(time.Now())
}

// account is that of a client, which has a request now.
func (l *Limits) account(c Client) *account {
	l.forget(time.Now())
	a := l.clients[c]
	if a == nil {
		a = &account{client: c}
		l.clients[c] = a
	}
	if a.idle != nil {
		l.idle.Remove(a.idle)
		a.idle = nil
	}
	return a
}

// forget removes clients whose bandwidth has recovered, and those that are idle longest where there are too many.
func (l *Limits) forget(now time.Time) {
	for first := l.idle.Front(); first != nil; first = l.idle.Front() {
		a := first.Value.(*account)
		if l.idle.Len() <= maxIdle && a.sent.until.Add(burst).After(now) {
			return
		}
		l.idle.Remove(first)
		delete(l.clients, a.client)
	}
}

// Clients is how many have state.
func (l *Limits) Clients() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.clients)
}

// Next returns when bytes of the body may be sent, up to want, and how many. The caller sends them, or ends the request. The error is
// the context's cause.
func (r *Request) Next(ctx context.Context, want int64) (int64, error) {
	if r == nil {
		return want, nil
	}
	l, n := r.l, min(want, r.l.piece)
	if guard.Limits && l.set.Bandwidth > 0 && r.a.client != (Client{}) {
		l.mu.Lock()
		wait := time.Until(r.a.sent.take(time.Now(), n, l.set.Bandwidth, burst))
		l.mu.Unlock()
		if wait > 0 {
			r.pace()
			if !backoff.Wait(ctx, wait) {
				return 0, context.Cause(ctx)
			}
		}
	}
	if l.set.Total > 0 {
		if err := r.queue(ctx, n); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// Sent counts bytes that had to be sent at once: later ones wait for them.
func (r *Request) Sent(n int64) {
	if r == nil || n <= 0 {
		return
	}
	l, now := r.l, time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set.Bandwidth > 0 {
		r.a.sent.take(now, n, l.set.Bandwidth, burst)
	}
	if l.set.Total > 0 {
		l.total.take(now, n, l.set.Total, totalBurst)
	}
}

func (r *Request) pace() {
	if !r.paced {
		r.paced = true
		r.l.observe(Paced)
	}
}
