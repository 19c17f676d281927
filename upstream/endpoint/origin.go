package endpoint

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/registrymirror/mirror/internal/glob"
)

// Origin is the scheme, host and port of a URL. Credentials are bound to it.
type Origin struct{ Scheme, Host, port string }

// OriginOf reads a URL's origin, with the default port filled in. False: it is not a URL that may be asked.
func OriginOf(u *url.URL) (Origin, bool) {
	o := Origin{Scheme: strings.ToLower(u.Scheme), Host: strings.ToLower(u.Hostname()), port: u.Port()}
	if u.Opaque != "" || !isHost(o.Host) {
		return o, false
	}
	switch {
	case o.Scheme != "https" && o.Scheme != "http":
		return o, false
	case o.port == "":
		o.port = defaultPort(o.Scheme)
	default:
		n, err := strconv.ParseUint(o.port, 10, 16)
		if err != nil || n == 0 {
			return o, false
		}
		o.port = strconv.FormatUint(n, 10)
	}
	return o, true
}

func defaultPort(scheme string) string {
	if scheme == "http" {
		return "80"
	}
	return "443"
}

// String is host[:port], without the default port of the scheme.
func (o Origin) String() string {
	if o.port == defaultPort(o.Scheme) || o.port == "" {
		if strings.Contains(o.Host, ":") {
			return "[" + o.Host + "]"
		}
		return o.Host
	}
	return net.JoinHostPort(o.Host, o.port)
}

// literal is the host as an address, where it is one.
func (o Origin) literal() (netip.Addr, bool) {
	a, err := netip.ParseAddr(o.Host)
	return a, err == nil
}

// isHost reports whether s has only bytes of a DNS name or an address. A host with other bytes is an attempt to be read as
// two hosts by two readers.
func isHost(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	if strings.Contains(s, ":") {
		a, err := netip.ParseAddr(s)
		return err == nil && a.Zone() == ""
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

// Names is a list of hosts that the operator named: "host" with any port, or "host:port". A label may be *.
type names []named

type named struct{ host, port string }

// ParseNames reads a list of hosts.
func ParseNames(list []string) (names, error) {
	var ns names
	for _, s := range list {
		host, port := strings.ToLower(s), ""
		if h, p, err := net.SplitHostPort(host); err == nil {
			host, port = h, p
		}
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
			return nil, fmt.Errorf("host %q: port %q is not a number from 1 to 65535", s, port)
		}
		if !isHost(strings.ReplaceAll(host, "*", "x")) {
			return nil, fmt.Errorf("host %q is not HOST or HOST:PORT; leave out scheme and path", s)
		}
		for label := range strings.SplitSeq(host, ".") {
			if strings.Contains(label, "*") && label != "*" {
				return nil, fmt.Errorf("host %q: a * stands for a whole label", s)
			}
		}
		ns = append(ns, named{host, port})
	}
	return ns, nil
}

func (ns names) Has(o Origin) bool {
	return slices.ContainsFunc(ns, func(n named) bool { return (n.port == "" || n.port == o.port) && n.fits(o.Host) })
}

// fits reports whether a host is one of the name's: * stands for one whole label of a name, never of an address.
func (n named) fits(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return n.host == host
	}
	return glob.Host(n.host, host)
}
