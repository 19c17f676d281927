package endpoint

import (
	"context"
	"net"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/upstream/fault"
)

// Reach is which addresses may be dialled. Each value includes the ones before it.
type Reach int

const (
	reachPublic   Reach = iota // the default: a dial without a mark is checked
	reachPrivate               // private addresses, too
	reachLoopback              // this machine, too
	// ReachAny is for hosts that the operator named.
	ReachAny
)

// reachKey marks a request's context with what its dial may reach.
type reachKey struct{}

func markedReach(ctx context.Context) Reach {
	r, _ := ctx.Value(reachKey{}).(Reach)
	return r
}

var (
	nat64       = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052, the well-known prefix
	nat64Local  = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215: of a translator in one's own network
	siit        = netip.MustParsePrefix("::ffff:0:0:0/96")
	ipv4Compat  = netip.MustParsePrefix("::/96")
	sixToFour   = netip.MustParsePrefix("2002::/16")
	globalV6    = netip.MustParsePrefix("2000::/3") // an address outside it that is not private has no host
	privateNets = prefixes("100.64.0.0/10", "198.18.0.0/15", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",
		"fec0::/10", "2001:db8::/32", "3fff::/20", "100::/64")
	// Services of clouds that give credentials or settings to every request from the right machine, and addresses that no
	// host has: those that IANA's special-purpose registries call not globally reachable, and relays that lead elsewhere.
	deniedNets = prefixes("0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "100.100.100.200/32",
		"168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::254/128", "fd00:42::42/128", "2001::/23")
)

func prefixes(list ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(list))
	for i, s := range list {
		ps[i] = netip.MustParsePrefix(s)
	}
	return ps
}

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// requiredReach is the least reach with which an address may be dialled. An address that stands for an IPv4 address requires
// at least the reach of that one: a translator or a tunnel on the way may lead there.
func requiredReach(a netip.Addr) Reach {
	a = a.WithZone("").Unmap()
	r := directReach(a)
	if guard.Embedded && a.Is6() {
		for _, v4 := range embedded(a) {
			r = max(r, directReach(v4))
		}
	}
	return r
}

// directReach is requiredReach without regard to the IPv4 addresses that an address may stand for.
func directReach(a netip.Addr) Reach {
	switch {
	case !a.IsValid(), a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a.IsInterfaceLocalMulticast(),
		within(deniedNets, a):
		return ReachAny
	case a.IsLoopback():
		return reachLoopback
	case a.IsPrivate(), within(privateNets, a), nat64Local.Contains(a):
		return reachPrivate
	case a.Is4(), globalV6.Contains(a), nat64.Contains(a), siit.Contains(a), ipv4Compat.Contains(a):
		return reachPublic
	}
	return ReachAny
}

// embedded are the IPv4 addresses that an IPv6 address may stand for. Under RFC 8215's prefix that depends on the
// length that the operator of the translator has chosen, which is not known here: each of them counts.
func embedded(a netip.Addr) (list []netip.Addr) {
	b := a.As16()
	v4 := func(at ...int) netip.Addr { return netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]}) }
	switch {
	case a.IsLoopback(), a.IsUnspecified():
		return nil
	case nat64Local.Contains(a): // RFC 6052, 2.2: byte 8 is always zero
		for _, v := range []netip.Addr{v4(6, 7, 9, 10), v4(7, 9, 10, 11), v4(9, 10, 11, 12), v4(12, 13, 14, 15)} {
			if v.As4()[0] != 0 { // zero where another length leaves it empty
				list = append(list, v)
			}
		}
		return list
	case nat64.Contains(a), siit.Contains(a), ipv4Compat.Contains(a):
		return append(list, v4(12, 13, 14, 15))
	case sixToFour.Contains(a):
		list = append(list, v4(2, 3, 4, 5))
	}
	// ISATAP, RFC 5214, 6.1: below any prefix. The bits "universal" and "group" may be set.
	if b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		list = append(list, v4(12, 13, 14, 15))
	}
	return list
}

// reachFrom is the reach of redirects by a host at an address: a private host may redirect to private ones, this machine to
// itself.
func reachFrom(addr string) Reach {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return reachPublic
	}
	if r := requiredReach(ap.Addr()); r == reachPrivate || r == reachLoopback {
		return r
	}
	return reachPublic
}

// checkAddress refuses an address that is beyond a reach.
func checkAddress(r Reach, host, address string) error {
	if !guard.Address || r == ReachAny {
		return nil
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil || requiredReach(ap.Addr()) > r {
		if err == nil {
			address = ap.Addr().String()
		}
		return &fault.AddressError{Host: host, Addr: address}
	}
	return nil
}

type hostKey struct{}

// Dialer dials for transports. The check is in the socket's control hook: there the address is the one that is connected to,
// whatever DNS answers a moment later.
type Dialer struct {
	net  net.Dialer
	hook func(ctx context.Context, network, addr string) (net.Conn, error) // nil: net dials
}

// NewDialer makes a dialer. Hook replaces the network; nil: the real one. Resolver replaces DNS; nil: the system's.
func NewDialer(
	hook func(ctx context.Context, network, addr string) (net.Conn, error), resolver *net.Resolver, timeout time.Duration,
) *Dialer {
	d := &Dialer{hook: hook}
	d.net.Timeout = timeout
	d.net.Resolver = resolver
	d.net.ControlContext = func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		host, _ := ctx.Value(hostKey{}).(string)
		return checkAddress(markedReach(ctx), host, address)
	}
	return d
}

// Dial connects to an address, if the reach that marks the context allows it.
func (d *Dialer) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if d.hook == nil {
		return d.net.DialContext(context.WithValue(ctx, hostKey{}, host), network, addr)
	}
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.ConnectStart != nil {
		trace.ConnectStart(network, addr)
	}
	short, cancel := context.WithTimeout(ctx, d.net.Timeout)
	defer cancel()
	conn, err := d.hook(short, network, addr)
	if trace != nil && trace.ConnectDone != nil {
		trace.ConnectDone(network, addr, err)
	}
	if err != nil {
		return nil, err
	}
	if _, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		if err := checkAddress(markedReach(ctx), host, conn.RemoteAddr().String()); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}
