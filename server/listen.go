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
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 32 << 10 // containers/image sends 1,024 ranges in one header
	stallTimeout      = 60 * time.Second
	// spareConns is how many connections beyond the limit are answered that the mirror is overloaded, and that it
	// lives; those beyond them wait to be accepted.
	spareConns = 64
)

// HTTPServer returns a server of s with its timeouts and limits. There is no write timeout: a pull may take hours, as
// long as it moves; see Listen. tlsConfig may be nil, for Serve. HTTP/2 is offered only if http2 is set and there is
// TLS: over HTTP/1.1 bytes cost half as much, and no pulling client asks for the other.
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
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState:         TrackConnections,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if c := ours(c); c != nil && c.over {
				return context.WithValue(ctx, overKey{}, true)
			}
			return ctx
		},
	}
}

// ours is a connection as the listener gave it out; nil: it is of another listener.
func ours(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	mine, _ := c.(*conn)
	return mine
}

type overKey struct{}

// overloaded reports whether a request came over a connection beyond the limit.
func overloaded(ctx context.Context) bool { return ctx.Value(overKey{}) != nil }

// ListenOptions say how connections are taken. The zero value of a field means what its comment says.
type ListenOptions struct {
	// Limit is over how many connections requests under /v2/ are served. Near it, connections without a request are closed
	// for new ones; a few beyond are told that the mirror is overloaded, if their address has many, and further ones wait.
	// The server must have TrackConnections as its hook. Zero: there is none.
	Limit int
	// Proxies may say by the PROXY protocol who the client is: then that is the RemoteAddr of their connections.
	Proxies Proxies
	Log     *slog.Logger // nil: discard
}

// Listen wraps a TCP listener. Its connections end when the client takes nothing of what is written to them for a
// minute, however long a response takes.
//
// Pass it to Serve or ServeTLS as it is: who wraps it again loses sendfile.
func Listen(l net.Listener, o ListenOptions) net.Listener { return listen(l, o, stallTimeout) }

func listen(l net.Listener, o ListenOptions, stall time.Duration) net.Listener {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &listener{Listener: l, ListenOptions: o, stall: stall, seats: newSeats(o.Limit, o.Log)}
}

type listener struct {
	net.Listener
	ListenOptions
	stall  time.Duration
	seats  *seats
	warned atomic.Int64 // when strangers were last told of, by steady; 0: never
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
		mine := &conn{TCPConn: t, l: l, preface: l.Proxies.preface(t)}
		if mine.over, ok = l.seats.take(mine, sourceOfConn(t)); ok {
			return mine, nil
		}
		_ = mine.Close()
	}
}

// sourceOfConn is the source of a connection, as sourceOf is that of a request.
func sourceOfConn(c *net.TCPConn) string {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	return network(a.AddrPort().Addr().Unmap().WithZone(""))
}

func (l *listener) Close() error {
	l.seats.close()
	return l.Listener.Close()
}

// conn is a TCP connection whose writes have to make progress. It keeps sendfile: *net.TCPConn's ReadFrom is what does
// it, and only bounded pieces are handed to that, each with time of its own.
type conn struct {
	*net.TCPConn
	l    *listener
	seat seat
	over bool

	preface *preface // nil: there is none
	began   bool     // something was read
	// until is the write deadline that others have set, by steady; 0: none. Ours is never later: a TLS connection that is
	// closed gives its last words five seconds, not sixty.
	until atomic.Int64
	// since is when ours was set last, by steady; 0: another one is set.
	since atomic.Int64
}

// epoch is a moment from which steady counts.
var epoch = time.Now()

// steady is a time as nanoseconds on a clock that never jumps, never 0: a machine's clock that is set back would have a
// deadline that is never renewed, and running downloads cut.
func steady(t time.Time) int64 {
	if n := int64(t.Sub(epoch)); n != 0 {
		return n
	}
	return 1
}

// SetDeadline is net.Conn's.
func (c *conn) SetDeadline(t time.Time) error {
	c.keep(t)
	return c.TCPConn.SetDeadline(t)
}

// SetWriteDeadline is net.Conn's.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.keep(t)
	return c.TCPConn.SetWriteDeadline(t)
}

func (c *conn) keep(t time.Time) {
	c.since.Store(0)
	if t.IsZero() {
		c.until.Store(0)
	} else {
		c.until.Store(steady(t))
	}
}

// extend gives the next write its time: half of what a client may stand still for, see pace. One that was set a moment
// ago will do, since each time costs a timer.
func (c *conn) extend() error {
	t, ok := c.deadline(time.Now())
	if !ok {
		return nil
	}
	return c.TCPConn.SetWriteDeadline(t)
}

// deadline is the one for a write that begins now; not ok: that which is set will do.
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

// Close gives the connection's place to another one.
func (c *conn) Close() error {
	c.l.seats.leave(c)
	return c.TCPConn.Close()
}

// pace judges whether a client moves. A full socket can be written to again only after a third of it has been taken,
// which are megabytes; so a slow client shows in how much of it is still queued, long before a write gets on.
type pace struct {
	still  int // deadlines in a row at which nothing had moved
	queued int // bytes in the socket at the last one; -1: not known
}

// on is asked after a deadline before which n bytes were written, with the bytes that are queued now.
func (p *pace) on(n int64, queued int) bool {
	if n > 0 || queued >= 0 && queued < p.queued {
		p.still = 0
	} else {
		p.still++
	}
	p.queued = queued
	return p.still < 2
}

// Write goes on as long as the client takes something.
func (c *conn) Write(b []byte) (n int, err error) {
	var p pace
	for {
		if err := c.extend(); err != nil {
			return n, err
		}
		m, err := c.TCPConn.Write(b[n:])
		n += m
		if n == len(b) || !errors.Is(err, os.ErrDeadlineExceeded) || !p.on(int64(m), queued(c.TCPConn)) {
			return n, err
		}
	}
}

// ReadFrom sends a file, or an io.LimitedReader of one, by sendfile, and goes on as long as the client takes something.
// The kernel is handed the whole of it. What is no file is copied.
func (c *conn) ReadFrom(src io.Reader) (n int64, err error) {
	lr, ok := src.(*io.LimitedReader)
	if !ok {
		return c.copy(src)
	}
	file, ok := lr.R.(interface {
		syscall.Conn
		io.ReadSeeker
	})
	if !ok {
		return c.copy(src)
	}
	start, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return c.copy(src)
	}
	var p pace
	for lr.N > 0 {
		if err := c.extend(); err != nil {
			return n, err
		}
		m, err := c.TCPConn.ReadFrom(&io.LimitedReader{R: file, N: lr.N})
		n += m
		lr.N -= m
		if !errors.Is(err, os.ErrDeadlineExceeded) || !p.on(m, queued(c.TCPConn)) {
			return n, err // all of it, the end of the file, or an error
		}
		// Where the kernel can't do it, net has read more than it has written.
		if _, err := file.Seek(start+n, io.SeekStart); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (c *conn) copy(src io.Reader) (int64, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(onlyWriter{c}, onlyReader{src}, *buf)
}
