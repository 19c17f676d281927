package client

import (
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
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

// Preface returns the connection behind the header of the PROXY protocol, which a proxy may send before the client's own
// bytes, within a time. Its RemoteAddr is the client's, where the proxy gives it. Nil: the connection is not a proxy's.
func (p Proxies) Preface(c *net.TCPConn, wait time.Duration) *proxyproto.Conn {
	from, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok || !p.Trust(from.AddrPort().Addr()) {
		return nil
	}
	return proxyproto.NewConn(c, proxyproto.WithPolicy(proxyproto.USE), proxyproto.SetReadHeaderTimeout(wait))
}

// IsPreface reports whether the first bytes of a connection begin a header of the PROXY protocol.
func IsPreface(b []byte) bool {
	return bytes.HasPrefix(b, proxyproto.SIGV2) || bytes.HasPrefix(b, proxyproto.SIGV1)
}
