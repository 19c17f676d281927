package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// endpoint is a server on a port that stays its own while it refuses connections: a second socket is bound to it all
// the time, and never listens.
type endpoint struct {
	host   string
	server *http.Server
	tls    bool
	net    *Network // nil: the machine's own
	hold   int      // file descriptor of the socket that holds the port, -1 on a Network

	serving sync.WaitGroup
	mu      sync.Mutex // guards all below
	ln      net.Listener
	conns   map[net.Conn]struct{}
	mode    mode
}

type mode int

const (
	modeUp mode = iota
	modeDown
	modeSilent
	modeClosed
)

func listen(on *Network, h http.Handler, ca *authority, h2 bool) (*endpoint, error) {
	e := &endpoint{net: on, hold: -1, conns: make(map[net.Conn]struct{}), mode: modeDown}
	e.server = &http.Server{
		Handler:     h,
		ErrorLog:    log.New(io.Discard, "", 0),
		ConnState:   e.track,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		Protocols:   new(http.Protocols),
	}
	e.server.Protocols.SetHTTP1(true)
	if ca != nil {
		e.tls = true
		e.server.Protocols.SetHTTP2(h2)
		e.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{ca.leaf}, MinVersion: tls.VersionTLS12}
	}
	ln, err := e.listen()
	if err != nil {
		return nil, err
	}
	e.host = ln.Addr().String()
	if on != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.start(ln, modeUp)
		return e, nil
	}
	if e.hold, err = hold(ln.Addr().(*net.TCPAddr).Port); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("hold %s: %w", e.host, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.start(ln, modeUp)
	return e, nil
}

// listen listens on its host, or for the first time on any.
func (e *endpoint) listen() (net.Listener, error) {
	switch {
	case e.net != nil:
		return e.net.Listen(e.host)
	case e.host != "":
		return reusing(e.host)
	}
	return reusing("127.0.0.1:0")
}

type connKey struct{}

// reusing listens so that the port can be bound once more.
func reusing(addr string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = reuse(int(fd)) }); e != nil {
			return e
		}
		return err
	}}
	return lc.Listen(context.Background(), "tcp4", addr)
}

// unlisten ends listening at once. To close is not enough: for as long as another goroutine starts a program, its child
// has the socket too, which goes on to accept connections and then resets them.
func unlisten(ln net.Listener) {
	s, ok := ln.(syscall.Conn)
	if !ok {
		return
	}
	if c, err := s.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

func reuse(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// hold binds a socket to the port and does not listen on it.
func hold(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd)
	err = reuse(fd)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// start begins to accept. The lock is held.
func (e *endpoint) start(ln net.Listener, m mode) {
	e.ln, e.mode = ln, m
	e.serving.Go(func() {
		switch {
		case m == modeSilent:
			e.swallow(ln)
		case e.tls:
			_ = e.server.ServeTLS(ln, "", "") // ends when the listener is closed
		default:
			_ = e.server.Serve(ln)
		}
	})
}

// swallow accepts and says nothing.
func (e *endpoint) swallow(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		e.mu.Lock()
		if e.ln == ln {
			e.conns[c] = struct{}{}
		} else {
			_ = c.Close()
		}
		e.mu.Unlock()
	}
}

// track keeps the connections that are open. A hijacked one belongs to its new owner.
func (e *endpoint) track(c net.Conn, s http.ConnState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch s {
	case http.StateNew:
		if e.mode != modeUp { // it was accepted while the listener was being closed
			reset(c)
			return
		}
		e.conns[c] = struct{}{}
	case http.StateClosed:
		delete(e.conns, c)
	}
}

func (e *endpoint) forget(c net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}

// halt stops accepting and resets what is open. It returns false where the endpoint is closed for good.
func (e *endpoint) halt(m mode) bool {
	e.mu.Lock()
	if e.mode == modeClosed {
		e.mu.Unlock()
		return false
	}
	e.mode = m
	if e.ln != nil {
		unlisten(e.ln)
		_ = e.ln.Close()
		e.ln = nil
	}
	for c := range e.conns {
		reset(c)
	}
	clear(e.conns)
	e.mu.Unlock()
	e.serving.Wait()
	return true
}

func (e *endpoint) down() { e.halt(modeDown) }

func (e *endpoint) silent() { e.again(modeSilent) }

func (e *endpoint) up() { e.again(modeUp) }

func (e *endpoint) again(m mode) {
	e.mu.Lock()
	same := e.mode == m
	e.mu.Unlock()
	if same || !e.halt(modeDown) {
		return
	}
	ln, err := e.listen()
	if err != nil {
		panic(fmt.Sprintf("origin: listen on %s again: %v", e.host, err)) // the port is held, so this is a bug
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.start(ln, m)
}

func (e *endpoint) close() {
	if !e.halt(modeClosed) {
		return
	}
	_ = e.server.Close()
	if e.hold >= 0 {
		_ = unix.Close(e.hold)
	}
}

// tcp is the connection below TLS.
func tcp(c net.Conn) *net.TCPConn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	t, _ := c.(*net.TCPConn)
	return t
}

// reset closes with an RST.
func reset(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if n, ok := c.(*netConn); ok {
		n.Reset()
		return
	}
	t := tcp(c)
	if t == nil {
		_ = c.Close()
		return
	}
	_ = t.SetLinger(0)
	_ = t.Close()
}

// unsent is how many bytes the other side has not acknowledged. Where the system does not say it is 0.
func unsent(c net.Conn) int {
	t := tcp(c)
	if t == nil {
		return 0
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		if v, e := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ); e == nil {
			n = v
		}
	})
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return 0
	}
	return n
}
