package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// clientOf names the client for records: the node that its configuration says it is, else its address, as the proxies that
// we trust have it. It is a label, never a right.
func clientOf(r *http.Request, proxies Proxies) string {
	if node := r.Header.Get("Mirror-Node"); node != "" && len(node) <= 253 && printable(node, 253) == node {
		return node
	}
	return addressOf(r, proxies)
}

func addressOf(r *http.Request, proxies Proxies) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return printable(r.RemoteAddr, 100)
	}
	if len(proxies) == 0 {
		return host
	}
	from, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	return proxies.forwarded(from.Unmap().WithZone(""), r.Header).String()
}

// sourceOf is the address that a client can't choose, by which turns, bytes and all that is bounded are shared out: that of
// the connection, or what a proxy that we trust says. Of IPv6 it is the network, since one owner has all of its addresses.
func sourceOf(r *http.Request, proxies Proxies) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return printable(r.RemoteAddr, 100)
	}
	if len(proxies) == 0 && strings.IndexByte(host, ':') < 0 {
		return host
	}
	from, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	return network(proxies.forwarded(from.Unmap().WithZone(""), r.Header))
}

// network is an address, or the /64 of an IPv6 one.
func network(a netip.Addr) string {
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}

// loops reports whether a request has been through this process already.
func loops(r *http.Request, via string) bool {
	if via == "" {
		return false
	}
	for _, line := range r.Header.Values("Via") {
		for hop := range strings.SplitSeq(line, ",") {
			// RFC 9110, 7.6.3: received-protocol received-by [comment].
			if f := strings.Fields(hop); len(f) >= 2 && strings.EqualFold(f[1], via) {
				return true
			}
		}
	}
	return false
}
