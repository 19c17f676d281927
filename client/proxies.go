package client

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

// Proxies are the networks of the proxies in front of the mirror that are trusted to name the client: by the PROXY protocol,
// versions 1 and 2, and by X-Forwarded-For.
type Proxies []netip.Prefix

// Trust reports whether an address is that of a trusted proxy.
func (p Proxies) Trust(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(a) })
}

// forwarded is the client of a request that came from an address. If that is a proxy's, it is the last address of
// X-Forwarded-For that is not a proxy: the client itself may have written the addresses before it.
func (p Proxies) forwarded(from netip.Addr, h http.Header) netip.Addr {
	if !p.Trust(from) {
		return from
	}
	hops := strings.Split(strings.Join(h.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		next, ok := parseHop(strings.TrimSpace(hop))
		if !ok {
			return from
		}
		if from = next; !p.Trust(from) {
			return from
		}
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

// Preface is the header of the PROXY protocol, which a proxy may send before the client's own bytes, and the connection
// behind it. It is safe for concurrent use, as far as the connection is.
type Preface struct {
	conn *net.TCPConn
	wait time.Duration

	once   sync.Once
	rest   *bufio.Reader // the bytes that were read with the header
	client net.Addr      // nil: the proxy does not say
	err    error
}

// Preface returns the preface of a connection, which has to come within a time. Nil: the connection is not a proxy's.
func (p Proxies) Preface(c *net.TCPConn, wait time.Duration) *Preface {
	from, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok || !p.Trust(from.AddrPort().Addr()) {
		return nil
	}
	return &Preface{conn: c, wait: wait}
}

// IsPreface reports whether the first bytes of a connection begin a header of the PROXY protocol.
func IsPreface(b []byte) bool {
	return bytes.HasPrefix(b, proxyproto.SIGV2) || bytes.HasPrefix(b, proxyproto.SIGV1)
}

// read reads the header, once. The first call that needs the client or its bytes waits for it.
func (p *Preface) read() {
	p.once.Do(func() {
		_ = p.conn.SetReadDeadline(time.Now().Add(p.wait)) // the server sets its own deadlines later
		defer func() { _ = p.conn.SetReadDeadline(time.Time{}) }()
		p.rest = bufio.NewReader(p.conn)
		h, err := proxyproto.Read(p.rest)
		if errors.Is(err, proxyproto.ErrNoProxyProtocol) {
			return
		}
		if err != nil {
			p.err = fmt.Errorf("read the PROXY header of %s: %w", p.conn.RemoteAddr(), err)
			return // the connection ends with it
		}
		if a, ok := h.SourceAddr.(*net.TCPAddr); ok && !h.Command.IsLocal() {
			p.client = a
		}
	})
}

// Read reads the client's bytes, which come behind the header.
func (p *Preface) Read(b []byte) (int, error) {
	p.read()
	switch {
	case p.err != nil:
		return 0, p.err
	case p.rest.Buffered() > 0:
		return p.rest.Read(b)
	}
	return p.conn.Read(b)
}

// RemoteAddr is the client's address, where the proxy gives it, else that of the connection.
func (p *Preface) RemoteAddr() net.Addr {
	p.read()
	if p.client != nil {
		return p.client
	}
	return p.conn.RemoteAddr()
}
