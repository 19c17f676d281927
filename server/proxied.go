package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// Proxies are the networks of those that stand between clients and us, and whose word on who the client is we take: by
// the PROXY protocol, versions 1 and 2, and by X-Forwarded-For. What they say is a label, as every client is; it is never a
// right.
type Proxies []netip.Prefix

// Trust reports whether an address is one of theirs.
func (p Proxies) Trust(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(a) })
}

// forwarded is the client of a request that came from an address: if that is a proxy's, who X-Forwarded-For says it was,
// the last one that is no proxy itself. What stands before that was written by nobody whom we trust.
func (p Proxies) forwarded(from netip.Addr, h http.Header) netip.Addr {
	hops := strings.Split(strings.Join(h.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !p.Trust(from) {
			return from
		}
		next, ok := parseHop(strings.TrimSpace(hop))
		if !ok {
			return from
		}
		from = next
	}
	return from
}

// parseHop reads an address, perhaps with a port, as some proxies write it.
func parseHop(text string) (netip.Addr, bool) {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return a.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return a.Unmap().WithZone(""), err == nil
}

// preface is what a proxy sends before the client's own bytes. It may send none.
type preface struct {
	once   sync.Once
	rest   *bufio.Reader // of what was read with it
	client net.Addr      // nil: not said
	err    error
}

// read reads the preface, once: the first who wants to know who the client is, or what it says, waits for it.
func (p *preface) read(c *net.TCPConn) {
	p.once.Do(func() {
		_ = c.SetReadDeadline(time.Now().Add(readHeaderTimeout)) // what others set comes later
		defer func() { _ = c.SetReadDeadline(time.Time{}) }()
		p.rest = bufio.NewReader(c)
		h, err := proxyproto.Read(p.rest)
		if errors.Is(err, proxyproto.ErrNoProxyProtocol) {
			return
		}
		if err != nil {
			p.err = fmt.Errorf("read the PROXY header of %s: %w", c.RemoteAddr(), err)
			return // the connection ends with it
		}
		if a, ok := h.SourceAddr.(*net.TCPAddr); ok && !h.Command.IsLocal() {
			p.client = a
		}
	})
}

// Read gives what comes behind the preface.
func (c *conn) Read(b []byte) (int, error) {
	if c.preface == nil {
		n, err := c.TCPConn.Read(b)
		if !c.began && n > 0 {
			c.began = true
			if bytes.HasPrefix(b[:n], proxyproto.SIGV2) || bytes.HasPrefix(b[:n], proxyproto.SIGV1) {
				c.l.stranger(c.TCPConn.RemoteAddr())
			}
		}
		return n, err
	}
	c.preface.read(c.TCPConn)
	if c.preface.err != nil {
		return 0, c.preface.err
	}
	if c.preface.rest.Buffered() > 0 {
		return c.preface.rest.Read(b)
	}
	return c.TCPConn.Read(b)
}

// sayAgain is how often it is told that somebody sends what is not taken.
const sayAgain = time.Minute

// stranger tells of a proxy that is not one of ours: its clients get a 400, and nobody else knows why.
func (l *listener) stranger(from net.Addr) {
	now, last := steady(time.Now()), l.warned.Load()
	if last != 0 && now-last < int64(sayAgain) || !l.warned.CompareAndSwap(last, now) {
		return
	}
	l.Log.Warn("a connection begins with a PROXY header, which is taken from trustedProxies alone, so it is refused; add the proxy's "+
		"network to trustedProxies, or turn the header off there", "from", from.String())
}

// RemoteAddr is the client's, where a proxy says it, else that of the connection.
func (c *conn) RemoteAddr() net.Addr {
	if c.preface == nil {
		return c.TCPConn.RemoteAddr()
	}
	c.preface.read(c.TCPConn)
	if c.preface.client != nil {
		return c.preface.client
	}
	return c.TCPConn.RemoteAddr()
}

// preface of a connection; nil: who has made it is no proxy.
func (p Proxies) preface(c *net.TCPConn) *preface {
	from, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok || !p.Trust(from.AddrPort().Addr()) {
		return nil
	}
	return new(preface)
}
