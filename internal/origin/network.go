package origin

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network is one in memory, for tests in a bubble of testing/synctest: a goroutine that waits for its bytes is durably blocked, so
// time goes on while everybody waits. Its addresses look like those of loopback. What has been written and was not read
// yet is readable after the writer has closed or reset the connection, as with TCP where it has arrived.
//
// The zero value is ready. All methods are safe for concurrent use.
type Network struct {
	// Buffer is how many bytes of one direction of a connection can be on their way. 0: 64 KiB.
	Buffer int

	mu        sync.Mutex // guards all below
	listeners map[string]*netListener
	ports     int // given out so far
}

// Listen listens on an address; on one of its own choice where it is empty.
func (n *Network) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports++
	if addr == "" {
		addr = fmt.Sprintf("127.0.0.1:%d", 10_000+n.ports)
	}
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: netAddr(addr), Err: syscall.EADDRINUSE}
	}
	if n.listeners == nil {
		n.listeners = make(map[string]*netListener)
	}
	l := &netListener{n: n, addr: addr, conns: make(chan net.Conn, 1024), done: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// Dial connects to an address, or is refused.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: netAddr(addr), Err: err}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports++
	from := fmt.Sprintf("127.0.0.1:%d", 10_000+n.ports)
	l := n.listeners[addr]
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: netAddr(addr), Err: syscall.ECONNREFUSED}
	}
	limit := n.Buffer
	if limit == 0 {
		limit = 64 << 10
	}
	up, down := newHalf(limit), newHalf(limit)
	here := &netConn{in: down, out: up, local: netAddr(from), remote: netAddr(addr)}
	there := &netConn{in: up, out: down, local: netAddr(addr), remote: netAddr(from)}
	for _, c := range []*netConn{here, there} {
		c.reads, c.writes = makeDeadline(), makeDeadline()
	}
	select {
	case l.conns <- there:
		return here, nil
	default:
		return nil, &net.OpError{Op: "dial", Net: network, Addr: netAddr(addr), Err: syscall.ECONNREFUSED}
	}
}

func netAddr(addr string) net.Addr {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return &net.TCPAddr{} // a name: nothing is looked up here
	}
	return net.TCPAddrFromAddrPort(a)
}

type netListener struct {
	n     *Network
	addr  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *netListener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Close stops listening, and resets connections that were not accepted.
func (l *netListener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		delete(l.n.listeners, l.addr)
		l.n.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.conns:
				c.(*netConn).Reset()
			default:
				return
			}
		}
	})
	return nil
}

func (l *netListener) Addr() net.Addr { return netAddr(l.addr) }

// half is one direction of a connection.
type half struct {
	limit    int
	readable chan struct{} // capacity 1: something may have changed for readers
	writable chan struct{} // capacity 1: and for writers

	mu   sync.Mutex // guards all below
	buf  []byte     // buf[from:] is on its way
	from int
	end  error // what the reader gets behind it; nil: more may come
	gone bool  // there is no reader any more
}

func newHalf(limit int) *half {
	return &half{limit: limit, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take reads what is there. It reports whether there was something to say.
func (h *half) take(p []byte) (int, error, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.gone:
		return 0, net.ErrClosed, true
	case h.from < len(h.buf):
		n := copy(p, h.buf[h.from:])
		if h.from += n; h.from == len(h.buf) {
			h.buf, h.from = h.buf[:0], 0
		}
		poke(h.writable)
		if h.from < len(h.buf) {
			poke(h.readable)
		}
		return n, nil, true
	case h.end != nil:
		poke(h.readable) // for other readers
		return 0, h.end, true
	}
	return 0, nil, false
}

// give writes what there is room for.
func (h *half) give(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.end == io.EOF: //nolint:errorlint // our own
		poke(h.writable)
		return 0, net.ErrClosed
	case h.gone, h.end != nil:
		poke(h.writable)
		return 0, syscall.ECONNRESET
	}
	room := h.limit - (len(h.buf) - h.from)
	if room <= 0 {
		return 0, nil
	}
	if h.from > 0 && len(h.buf)+min(room, len(p)) > cap(h.buf) {
		h.buf = h.buf[:copy(h.buf, h.buf[h.from:])]
		h.from = 0
	}
	n := min(room, len(p))
	h.buf = append(h.buf, p[:n]...)
	poke(h.readable)
	if n < room {
		poke(h.writable)
	}
	return n, nil
}

// finish ends it for the reader, leave for the writer.
func (h *half) finish(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end == nil {
		h.end = err
	}
	poke(h.readable)
	poke(h.writable)
}

func (h *half) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone, h.buf, h.from = true, nil, 0
	poke(h.readable)
	poke(h.writable)
}

// netConn is one end of a connection.
type netConn struct {
	in, out       *half
	local, remote net.Addr
	reads, writes *deadline
}

func (c *netConn) fail(op string, err error) error {
	if err == io.EOF { //nolint:errorlint // our own
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

func (c *netConn) Read(p []byte) (int, error) {
	for {
		if c.reads.over() {
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		}
		if n, err, ok := c.in.take(p); ok {
			if err != nil {
				err = c.fail("read", err)
			}
			return n, err
		}
		select {
		case <-c.in.readable:
		case <-c.reads.wait():
		}
	}
}

func (c *netConn) Write(p []byte) (done int, err error) {
	for {
		if c.writes.over() {
			return done, c.fail("write", os.ErrDeadlineExceeded)
		}
		n, err := c.out.give(p[done:])
		if done += n; err != nil {
			return done, c.fail("write", err)
		}
		if done == len(p) {
			return done, nil
		}
		select {
		case <-c.out.writable:
		case <-c.writes.wait():
		}
	}
}

// Close ends both directions. The other side reads what was written, and then EOF.
func (c *netConn) Close() error {
	c.out.finish(io.EOF)
	c.in.leave()
	return nil
}

// Reset is Close with an RST.
func (c *netConn) Reset() {
	c.out.finish(syscall.ECONNRESET)
	c.in.leave()
}

func (c *netConn) LocalAddr() net.Addr                { return c.local }
func (c *netConn) RemoteAddr() net.Addr               { return c.remote }
func (c *netConn) SetReadDeadline(t time.Time) error  { c.reads.set(t); return nil }
func (c *netConn) SetWriteDeadline(t time.Time) error { c.writes.set(t); return nil }

func (c *netConn) SetDeadline(t time.Time) error {
	c.reads.set(t)
	c.writes.set(t)
	return nil
}

// deadline is a time that may be moved.
type deadline struct {
	mu    sync.Mutex // guards all below
	timer *time.Timer
	done  chan struct{} // closed when it is over
}

func makeDeadline() *deadline { return &deadline{done: make(chan struct{})} }

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func (d *deadline) over() bool {
	select {
	case <-d.wait():
		return true
	default:
		return false
	}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // it fires, or has
	}
	d.timer = nil
	over := false
	select {
	case <-d.done:
		over = true
	default:
	}
	if t.IsZero() {
		if over {
			d.done = make(chan struct{})
		}
		return
	}
	if left := time.Until(t); left > 0 {
		if over {
			d.done = make(chan struct{})
		}
		done := d.done
		d.timer = time.AfterFunc(left, func() { close(done) })
		return
	}
	if !over {
		close(d.done)
	}
}
