package server

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// seats share out a listener's connections. Up to seven eighths of the limit they are for the taking. Above, each new
// connection closes one on which no request is under way. Above the limit a source has its part of it and no more: further
// connections of one that has more are told that the mirror is overloaded, or closed; those of others are served.
//
// A source is an address, or the /64 of an IPv6 one. A cluster behind one address is one source, and alone has all.
type seats struct {
	limit int // zero: there is none
	log   *slog.Logger

	mu      sync.Mutex // guards what follows, and the seats of connections
	given   sync.Cond  // something of it has become free; its lock is mu
	n       int
	sources map[string]int
	idle    seat // the ring of those of connections without a request under way: behind it the one idle longest
	closed  bool
	told    map[string]time.Time // when each warning was last logged
}

// lookAt is how many idle connections are looked at for one of the source that has most.
const lookAt = 64

// seat is a connection's. What is in it is guarded by the lock of seats. It is its own list, since it is put there and
// taken off with each request.
type seat struct {
	conn       *conn
	source     string
	prev, next *seat // nil: a request is under way, or the connection is closed
	left       bool
}

func newSeats(limit int, log *slog.Logger) *seats {
	s := &seats{limit: limit, log: log, sources: make(map[string]int), told: make(map[string]time.Time)}
	s.given.L = &s.mu
	s.idle.prev, s.idle.next = &s.idle, &s.idle
	return s
}

// wait returns when there may be one connection more; false: the listener is closed.
func (s *seats) wait() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && s.limit > 0 && s.n >= s.limit+spareConns {
		if s.makeRoom() == nil {
			s.given.Wait()
		}
	}
	return !s.closed
}

// take gives a connection its seat. Over: it is told that the mirror is overloaded. Not ok: it has to be closed.
func (s *seats) take(c *conn, source string) (over, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var evicted *conn
	if guard.Seat && s.limit > 0 && s.n >= s.limit-s.limit/8 {
		evicted = s.makeRoom()
	}
	s.n++
	s.sources[source]++
	c.seat = seat{conn: c, source: source}
	s.spare(&c.seat)
	if evicted != nil {
		s.warn("nearly as many connections are open as may be: for new ones those without a request are closed; raise the limit on open "+
			"files (LimitNOFILE, ulimit -n) if it stays", "open", s.n, "limit", s.limit, "from", source, "ofThose", s.sources[source])
	}
	if s.limit == 0 || s.n <= s.limit {
		return false, true
	}
	share := max(1, s.limit/len(s.sources))
	over = !guard.Seat || s.sources[source] > share
	ok = !over || !guard.Seat || s.n <= s.limit+spareConns/2
	if evicted == nil {
		s.warn("as many connections are open as may be, each with a request under way: further ones of addresses that have many are "+
			"refused; raise the limit on open files (LimitNOFILE, ulimit -n), or run more mirrors", "open", s.n, "limit", s.limit,
			"from", source, "ofThose", s.sources[source])
	}
	return over, ok
}

// makeRoom closes the connection without a request that can be spared most, among those idle longest that of the source
// which has most; nil: there is none.
func (s *seats) makeRoom() (spared *conn) {
	most := 0
	for at, i := s.idle.next, 0; guard.Seat && at != &s.idle && i < lookAt; at, i = at.next, i+1 {
		if n := s.sources[at.source]; n > most {
			spared, most = at.conn, n
		}
	}
	if spared != nil {
		s.free(spared)
		_ = spared.TCPConn.Close() // it does not wait
	}
	return spared
}

// state follows what a connection does.
func (s *seats) state(c *conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.seat.left:
	case state == http.StateIdle && c.seat.next == nil:
		s.spare(&c.seat)
		s.given.Signal()
	case state == http.StateActive || state == http.StateHijacked:
		c.seat.busy()
	}
}

// spare puts a seat behind those that can be spared.
func (s *seats) spare(at *seat) {
	at.prev, at.next = s.idle.prev, &s.idle
	at.prev.next, s.idle.prev = at, at
}

// busy takes a seat off those that can be spared.
func (at *seat) busy() {
	if at.next != nil {
		at.prev.next, at.next.prev = at.next, at.prev
		at.prev, at.next = nil, nil
	}
}

// leave gives the seat of a connection back.
func (s *seats) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free(c)
}

func (s *seats) free(c *conn) {
	if c.seat.left {
		return
	}
	c.seat.left = true
	c.seat.busy()
	s.n--
	if s.sources[c.seat.source]--; s.sources[c.seat.source] == 0 {
		delete(s.sources, c.seat.source)
	}
	s.given.Signal()
}

func (s *seats) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.given.Broadcast()
}

// failed tells of a connection that could not be accepted, and closes one that can be spared.
func (s *seats) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.makeRoom()
	s.warn("a connection can't be accepted, so that clients wait; raise the limit on open files (LimitNOFILE, ulimit -n) if it is "+
		"used up", "err", err, "open", s.n)
}

// warn logs a warning, at most once a minute.
func (s *seats) warn(msg string, attrs ...any) {
	now := time.Now()
	if last, ok := s.told[msg]; ok && now.Sub(last) < sayAgain {
		return
	}
	s.told[msg] = now
	s.log.Warn(msg, attrs...)
}

// TrackConnections is the hook by which a server that serves a listener of Listen says what its connections do.
func TrackConnections(c net.Conn, state http.ConnState) {
	if c := ours(c); c != nil {
		c.l.seats.state(c, state)
	}
}
