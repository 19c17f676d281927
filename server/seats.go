package server

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// seats limit a listener's connections. Up to seven eighths of the limit each connection gets a seat. Above, each new
// connection closes one without a request. Above the limit each source has an equal share: further connections of a source
// with more are answered that the mirror is overloaded, or closed; those of other sources are served.
//
// A source is an address, or the /64 of an IPv6 one. A cluster behind one address is one source; without others it has all.
type seats struct {
	limit int // connections; zero: no limit
	log   *slog.Logger
	ended func(ConnEnd)

	mu      sync.Mutex     // guards the fields below, and the seats of connections
	freed   sync.Cond      // a seat was freed, or the listener closed; its lock is mu
	n       int            // connections
	sources map[string]int // connections of each source
	idle    seat           // the ring of connections without a request; the next one is idle longest
	closed  bool
	warned  map[string]time.Time // when each warning was last logged
}

// maxExamined is how many idle connections are examined for one of the source with most connections.
const maxExamined = 64

// seat is the seat of a connection, guarded by the lock of seats. It is an element of the idle ring, since each request puts
// it there and takes it off.
type seat struct {
	conn       *conn
	source     string
	prev, next *seat // in the ring; nil: a request is under way, or the connection is closed
	freed      bool
}

func newSeats(limit int, log *slog.Logger, ended func(ConnEnd)) *seats {
	s := &seats{limit: limit, log: log, ended: ended, sources: make(map[string]int), warned: make(map[string]time.Time)}
	s.freed.L = &s.mu
	s.idle.prev, s.idle.next = &s.idle, &s.idle
	return s
}

// wait returns when the listener may accept one more connection; false: the listener is closed.
func (s *seats) wait() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && s.limit > 0 && s.n >= s.limit+spareConns {
		if s.makeRoom() == nil {
			s.freed.Wait()
		}
	}
	return !s.closed
}

// take gives a connection its seat. overLimit: its requests are answered that the mirror is overloaded. Not ok: the caller
// closes the connection.
func (s *seats) take(c *conn, source string) (overLimit, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var evicted *conn
	if guard.Seat && s.limit > 0 && s.n >= s.limit-s.limit/8 {
		evicted = s.makeRoom()
	}
	s.n++
	s.sources[source]++
	c.seat = seat{conn: c, source: source}
	s.addIdle(&c.seat)
	if evicted != nil {
		s.warn("connection limit nearly reached; closing idle connections for new ones; raise the limit on open files "+
			"(LimitNOFILE, ulimit -n) if it stays", "count", s.n, "limit", s.limit, "source", source, "source_count", s.sources[source])
	}
	if s.limit == 0 || s.n <= s.limit {
		return false, true
	}
	share := max(1, s.limit/len(s.sources))
	overLimit = !guard.Seat || s.sources[source] > share
	ok = !overLimit || !guard.Seat || s.n <= s.limit+spareConns/2
	switch {
	case !ok:
		s.ended(ByShare)
	case overLimit:
		s.ended(ByLimit)
	}
	if evicted == nil {
		s.warn("connection limit reached; refusing further connections of addresses with many; raise the limit on open files "+
			"(LimitNOFILE, ulimit -n), or run more mirrors", "count", s.n, "limit", s.limit, "source", source,
			"source_count", s.sources[source])
	}
	return overLimit, ok
}

// makeRoom closes a connection without a request and returns it: among those idle longest, one of the source with most
// connections. nil: each connection has a request.
func (s *seats) makeRoom() (victim *conn) {
	most := 0
	for at, i := s.idle.next, 0; guard.Seat && at != &s.idle && i < maxExamined; at, i = at.next, i+1 {
		if n := s.sources[at.source]; n > most {
			victim, most = at.conn, n
		}
	}
	if victim != nil {
		s.free(victim)
		s.ended(ForRoom)
		_ = victim.TCPConn.Close() // it does not wait
	}
	return victim
}

// state follows the state of a connection.
func (s *seats) state(c *conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.seat.freed:
	case state == http.StateIdle && c.seat.next == nil:
		s.addIdle(&c.seat)
		s.freed.Signal()
	case state == http.StateActive || state == http.StateHijacked:
		c.seat.removeIdle()
	}
}

// addIdle puts a seat at the end of the idle ring.
func (s *seats) addIdle(at *seat) {
	at.prev, at.next = s.idle.prev, &s.idle
	at.prev.next, s.idle.prev = at, at
}

// removeIdle takes a seat off the idle ring, if it is there.
func (at *seat) removeIdle() {
	if at.next != nil {
		at.prev.next, at.next.prev = at.next, at.prev
		at.prev, at.next = nil, nil
	}
}

// leave frees the seat of a connection.
func (s *seats) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free(c)
}

func (s *seats) free(c *conn) {
	if c.seat.freed {
		return
	}
	c.seat.freed = true
	c.seat.removeIdle()
	s.n--
	if s.sources[c.seat.source]--; s.sources[c.seat.source] == 0 {
		delete(s.sources, c.seat.source)
	}
	s.freed.Signal()
}

func (s *seats) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.freed.Broadcast()
}

// failed logs that a connection could not be accepted, and closes an idle one.
func (s *seats) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.makeRoom()
	s.warn("a connection can't be accepted; clients wait; raise the limit on open files (LimitNOFILE, ulimit -n) if it is used up",
		"error", err, "count", s.n)
}

// report is warn without the lock held.
func (s *seats) report(msg string, attrs ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warn(msg, attrs...)
}

// warnInterval is the least time between two log lines about the same condition.
const warnInterval = time.Minute

// warn logs a warning, at most once in warnInterval. The lock is held.
func (s *seats) warn(msg string, attrs ...any) {
	now := time.Now()
	if last, ok := s.warned[msg]; ok && now.Sub(last) < warnInterval {
		return
	}
	s.warned[msg] = now
	s.log.Warn(msg, attrs...)
}

// TrackConnections is the ConnState hook of a server that serves a listener of Listen.
func TrackConnections(c net.Conn, state http.ConnState) {
	if mine := connOf(c); mine != nil {
		if state == http.StateActive || state == http.StateIdle || state == http.StateHijacked {
			mine.follow(c, state)
		}
		mine.l.seats.state(mine, state)
	}
}
