package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/registrymirror/mirror/client"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 32 << 10 // containers/image sends 1,024 ranges in one header
	stallTimeout      = 60 * time.Second
	// spareConns is how many connections above the limit are accepted, to answer that the mirror is overloaded, and health
	// checks. Further ones wait to be accepted.
	spareConns = 64
)

// HTTPServer returns a server of s with its timeouts and limits. There is no write timeout: a pull may take hours, as
// long as it makes progress; see Listen. tlsConfig may be nil, for Serve. HTTP/2 is offered only if http2 is set and there is
// TLS: over HTTP/1.1 bytes cost half as much, and no runtime asks for HTTP/2.
func (s *Server) HTTPServer(tlsConfig *tls.Config, http2 bool) *http.Server {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(http2)
	return &http.Server{
		Handler:           s,
		TLSConfig:         tlsConfig,
		Protocols:         &p,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState:         TrackConnections,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if c := connOf(c); c != nil {
				return context.WithValue(ctx, connKey{}, c)
			}
			return ctx
		},
	}
}

// connOf is the connection that the listener of Listen returned; nil: it is of another listener.
func connOf(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	mine, _ := c.(*conn)
	return mine
}

type connKey struct{}

// connIn is the connection that a request came over; nil: it is not of Listen.
func connIn(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// overloaded reports whether a request came over a connection above the limit.
func overloaded(ctx context.Context) bool {
	c := connIn(ctx)
	return c != nil && c.overLimit
}

// ConnEnd is why the mirror has ended or refused a connection of a client.
type ConnEnd string

// The causes.
const (
	ForRoom      ConnEnd = "idle"        // it had no request, and a new connection needed its place
	ByLimit      ConnEnd = "overloaded"  // it was above the limit, and told so
	ByShare      ConnEnd = "refused"     // it was above the limit and those that are told so
	BySlowHeader ConnEnd = "slow-header" // the header of a request, or the handshake, did not come in time
	ByStall      ConnEnd = "stalled"     // the client read nothing for a minute: of the connection, or of a stream of it, which continues
	ByFlood      ConnEnd = "http2-flood" // the client sent more frames without requests, or resets, than it may
)

// ConnEnds are all of them.
func ConnEnds() []ConnEnd {
	return []ConnEnd{ForRoom, ByLimit, ByShare, BySlowHeader, ByStall, ByFlood}
}

// ListenOptions say how connections are accepted.
type ListenOptions struct {
	// Limit is the number of connections. Near it, connections without a request are closed for new ones; a few above it get
	// the answer that the mirror is overloaded, if their address has many, and further ones wait. The server must have
	// TrackConnections as its ConnState hook. Zero: no limit.
	Limit int
	// Proxies are trusted to name the client by the PROXY protocol: it is the RemoteAddr of their connections then.
	Proxies client.Proxies
	// TLS says that clients have to speak TLS. Mismatch is called for one that speaks the other protocol, TLS or plain HTTP. It
	// must not block. Nil: not called.
	TLS      bool
	Mismatch func(from net.Addr)
	// Ended is called for each connection that the mirror ends or refuses, and for each stalled stream of HTTP/2. It must not block. Nil:
	// not called.
	Ended func(ConnEnd)
	Log   *slog.Logger // nil: discard
}

// Listen wraps a TCP listener. Its connections end when the client reads nothing of the written bytes for a minute, however
// long a response takes.
//
// Pass it to Serve or ServeTLS as it is: another wrapper would lose sendfile.
func Listen(l net.Listener, o ListenOptions) net.Listener { return listen(l, o, stallTimeout) }

func listen(l net.Listener, o ListenOptions, stall time.Duration) net.Listener {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Ended == nil {
		o.Ended = func(ConnEnd) {}
	}
	return &listener{Listener: l, ListenOptions: o, stall: stall, seats: newSeats(o.Limit, o.Log, o.Ended)}
}

type listener struct {
	net.Listener
	ListenOptions
	stall time.Duration
	seats *seats
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		if !l.seats.wait() {
			return nil, fmt.Errorf("accept: %w", net.ErrClosed)
		}
		c, err := l.Listener.Accept()
		if err != nil {
			l.seats.failed(err)
			return nil, err
		}
		t, ok := c.(*net.TCPConn)
		if !ok {
			_ = c.Close()
			return nil, fmt.Errorf("accept: %T is not a TCP connection", c)
		}
		mine := &conn{TCPConn: t, l: l, preface: l.Proxies.Preface(t, readHeaderTimeout)}
		if mine.overLimit, ok = l.seats.take(mine, client.SourceOf(t.RemoteAddr())); ok {
			return mine, nil
		}
		_ = mine.Close()
	}
}

func (l *listener) Close() error {
	l.seats.close()
	return l.Listener.Close()
}

// conn is a TCP connection whose writes have to make progress. It keeps sendfile, which is in the ReadFrom of *net.TCPConn:
// that gets bounded pieces, each with its own deadline.
type conn struct {
	*net.TCPConn
	l    *listener
	seat seat

	overLimit bool

	preface *proxyproto.Conn // nil: the peer is not a trusted proxy
	began   bool             // the first bytes were read
	fed     atomic.Bool      // bytes were read since it was idle
	active  atomic.Bool      // a request is under way
	known   atomic.Bool      // whether it speaks HTTP/2
	counted atomic.Bool      // why it ended was counted
	frames  frames
	// until is the write deadline that callers have set, by steady; 0: none. Its own is never later: closing a TLS connection
	// allows five seconds for the last record, not sixty.
	until atomic.Int64
	// since is when its own deadline was last set, by steady; 0: the deadline of a caller is set.
	since atomic.Int64
}

// epoch is the time from which steady counts.
var epoch = time.Now()

// steady is a time in nanoseconds on a clock that never jumps, never 0: with the clock of the machine, setting it back would
// leave a deadline that is never renewed, and end running downloads.
func steady(t time.Time) int64 {
	if n := int64(t.Sub(epoch)); n != 0 {
		return n
	}
	return 1
}

// SetDeadline is net.Conn's.
func (c *conn) SetDeadline(t time.Time) error {
	c.setUntil(t)
	return c.TCPConn.SetDeadline(t)
}

// SetWriteDeadline is net.Conn's.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.setUntil(t)
	return c.TCPConn.SetWriteDeadline(t)
}

func (c *conn) setUntil(t time.Time) {
	c.since.Store(0)
	if t.IsZero() {
		c.until.Store(0)
	} else {
		c.until.Store(steady(t))
	}
}

// extend sets the deadline of the next write: half of the time for which a client may stall, see pace. A deadline that was
// set a moment ago stays, since each costs a timer.
func (c *conn) extend() error {
	t, ok := c.deadline(time.Now())
	if !ok {
		return nil
	}
	return c.TCPConn.SetWriteDeadline(t)
}

// deadline is the deadline of a write that begins now; not ok: the deadline that is set stays.
func (c *conn) deadline(now time.Time) (t time.Time, ok bool) {
	if since := c.since.Load(); since != 0 && steady(now)-since < int64(c.l.stall/64) {
		return t, false
	}
	t = now.Add(c.l.stall / 2)
	if u := c.until.Load(); u != 0 && u < steady(t) {
		return epoch.Add(time.Duration(u)), true
	}
	c.since.Store(steady(now))
	return t, true
}

// Close frees the connection's seat.
func (c *conn) Close() error {
	c.l.seats.leave(c)
	return c.TCPConn.Close()
}

// pace judges whether a client makes progress. A full socket accepts writes again only after a third of it was read, which is
// megabytes; so the progress of a slow client shows in the queued bytes long before a write continues.
type pace struct {
	stalled int // deadlines in a row without progress
	queued  int // bytes in the socket at the last deadline; -1: not known
}

// progresses reports, after a deadline, whether the client still makes progress: n bytes were written before it, and queued
// bytes are in the socket now.
func (p *pace) progresses(n int64, queued int) bool {
	if n > 0 || queued >= 0 && queued < p.queued {
		p.stalled = 0
	} else {
		p.stalled++
	}
	p.queued = queued
	return p.stalled < 2
}

// Write continues as long as the client reads.
func (c *conn) Write(b []byte) (n int, err error) {
	var p pace
	for {
		if err := c.extend(); err != nil {
			return n, err
		}
		m, err := c.TCPConn.Write(b[n:])
		n += m
		if n == len(b) || !errors.Is(err, os.ErrDeadlineExceeded) || !p.progresses(int64(m), queued(c.TCPConn)) {
			c.frames.wrote(int64(n))
			c.countStall(err)
			return n, err
		}
	}
}

// ReadFrom sends an io.LimitedReader of a file by sendfile, and continues as long as the client reads. The kernel gets all of
// it at once. Other readers are copied.
func (c *conn) ReadFrom(src io.Reader) (n int64, err error) {
	lr, ok := src.(*io.LimitedReader)
	if !ok {
		return copyTo(c, src)
	}
	file, ok := lr.R.(interface {
		syscall.Conn
		io.ReadSeeker
	})
	if !ok {
		return copyTo(c, src)
	}
	start, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return copyTo(c, src)
	}
	var p pace
	for lr.N > 0 {
		if err := c.extend(); err != nil {
			return n, err
		}
		m, err := c.TCPConn.ReadFrom(&io.LimitedReader{R: file, N: lr.N})
		n += m
		lr.N -= m
		if !errors.Is(err, os.ErrDeadlineExceeded) || !p.progresses(m, queued(c.TCPConn)) {
			c.countStall(err)
			return n, err // all of it, the end of the file, or an error
		}
		// Where the kernel has no sendfile for it, net has read more than it has written.
		if _, err := file.Seek(start+n, io.SeekStart); err != nil {
			return n, err
		}
	}
	return n, nil
}

// Read reads the client's bytes, and reports once if the first of them are not of the listener's protocol.
func (c *conn) Read(b []byte) (n int, err error) {
	if c.preface != nil {
		n, err = c.preface.Read(b)
	} else {
		n, err = c.TCPConn.Read(b)
	}
	if !c.began && n > 0 {
		c.began = true
		c.reportFirst(b[:n])
	}
	switch {
	case n > 0:
		if !c.fed.Load() {
			c.fed.Store(true)
		}
		if !c.frames.read(n) {
			c.flooded()
			return 0, errFlood
		}
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.active.Load() && (c.fed.Load() || !c.began):
		c.count(BySlowHeader)
	}
	return n, err
}

// count counts why the connection ends, once.
func (c *conn) count(why ConnEnd) {
	if !c.counted.Swap(true) {
		c.l.Ended(why)
	}
}

// countStall counts a connection whose client reads nothing.
func (c *conn) countStall(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.count(ByStall)
	}
}

// countStream counts a stream of HTTP/2 that was ended since its client reads nothing of it. Where the whole connection ended, that was
// counted.
func countStream(ctx context.Context) {
	if c := connIn(ctx); c != nil && !c.counted.Load() {
		c.l.Ended(ByStall)
	}
}

// follow keeps what is known of the connection up to date with its state.
func (c *conn) follow(outer net.Conn, state http.ConnState) {
	if !c.known.Swap(true) && speaksHTTP2(outer) {
		c.frames.begin()
	}
	switch state {
	case http.StateIdle:
		c.fed.Store(false)
		c.active.Store(false)
	case http.StateActive, http.StateHijacked:
		c.active.Store(true)
	case http.StateNew, http.StateClosed:
	}
}

// RemoteAddr is the client's address, where a trusted proxy gives it, else that of the connection.
func (c *conn) RemoteAddr() net.Addr {
	if c.preface != nil {
		if a, ok := c.preface.RemoteAddr().(*net.TCPAddr); ok {
			return a
		}
	}
	return c.TCPConn.RemoteAddr()
}

// reportFirst reports a client whose first bytes are not of the listener's protocol: net/http only closes such a connection,
// and the client's own message names neither the cause nor the remedy.
func (c *conn) reportFirst(b []byte) {
	if c.preface == nil && client.IsPreface(b) {
		c.l.reportProxy(c.TCPConn.RemoteAddr())
		return
	}
	if c.l.Mismatch == nil {
		return
	}
	const handshake = 0x16 // a TLS record of that type, RFC 8446, 5.1
	switch first := b[0]; {
	case !c.l.TLS && first == handshake, c.l.TLS && 'A' <= first && first <= 'Z':
		c.l.Mismatch(c.RemoteAddr())
	}
}

// reportProxy logs a proxy that is not trusted: its clients get a 400 without a reason.
func (l *listener) reportProxy(from net.Addr) {
	l.seats.report("connection refused: it begins with a PROXY header, and trustedProxies does not list its address; add the proxy's "+
		"network to trustedProxies, or turn the header off there", "client", from.String())
}
