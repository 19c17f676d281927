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

// peerOf is by what bytes and turns are shared fairly among clients: the address, as the proxies that we trust have it, or
// of IPv6 its network, of which one machine may have all addresses. A client can't choose it, as it can its name.
func peerOf(r *http.Request, proxies Proxies) string {
	address := addressOf(r, proxies)
	a, err := netip.ParseAddr(address)
	if err != nil || a.Unmap().Is4() {
		return address
	}
	network, err := a.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return network.String()
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
