package client

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
)

// NodeHeader is the request header in which a node's configuration gives the node's name.
const NodeHeader = "Mirror-Node"

// maxNode is how many bytes a node's name may have.
const maxNode = 253

// Name is the client's name in logs and records: the node's, where its configuration gives it, else its address.
func Name(r *http.Request, proxies Proxies) string {
	if node := r.Header.Get(NodeHeader); node != "" && len(node) <= maxNode && isPrintable(node) && !isLogin(node) {
		return node
	}
	host, addr := addressOf(r, proxies)
	if addr.IsValid() && len(proxies) > 0 {
		return addr.String()
	}
	return host
}

// isLogin reports whether a name looks like the label of a client that has logged in. No node is called so.
func isLogin(name string) bool {
	return strings.HasPrefix(name, "user:") || strings.HasPrefix(name, "sa:")
}

// Source is the address by which turns, bytes and everything else that is bounded are shared out: the client can't choose it.
// For IPv6 it is the network, since one client may have all of its addresses.
func Source(r *http.Request, proxies Proxies) string {
	host, addr := addressOf(r, proxies)
	if addr.IsValid() {
		return network(addr)
	}
	return host
}

// addressOf is the client's address, as the connection has it, and parsed, as a trusted proxy gives it. It is not parsed where
// it is IPv4 and there are no proxies, or where it is not an address.
func addressOf(r *http.Request, proxies Proxies) (string, netip.Addr) {
	host := hostOf(r.RemoteAddr)
	if len(proxies) == 0 && strings.IndexByte(host, ':') < 0 {
		return host, netip.Addr{}
	}
	from, err := netip.ParseAddr(host)
	if err != nil {
		return host, netip.Addr{}
	}
	return host, proxies.forwarded(from.Unmap().WithZone(""), r.Header)
}

// network is an address, or the /64 of an IPv6 one.
func network(a netip.Addr) string {
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}

// AddressOf is the address, without port, of the other end of a connection.
func AddressOf(a net.Addr) string { return hostOf(a.String()) }

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return printable(addr)
	}
	return host
}

// SourceOf is the Source of a connection.
func SourceOf(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return ""
	}
	return network(tcp.AddrPort().Addr().Unmap().WithZone(""))
}

// nodePattern is what a node may be called.
var nodePattern = regexp.MustCompile(`^[a-z0-9.-]+$`)

// IsNode reports whether a client is known by a name, which is its node's, and not by an address.
func IsNode(name string) bool {
	_, err := netip.ParseAddr(name)
	return err != nil && nodePattern.MatchString(name)
}

// isPrintable reports whether a text is words of printable ASCII, separated by single spaces.
func isPrintable(s string) bool {
	return strings.Join(strings.Fields(s), " ") == s && printable(s) == s
}

// printable is the beginning of a text with ? for each byte that is not printable ASCII.
func printable(s string) string {
	b := []byte(s[:min(len(s), maxNode)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
