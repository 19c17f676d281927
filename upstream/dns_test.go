package upstream_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// names is a DNS server in memory: host to addresses. Unknown names do not exist; "servfail." fails.
func names(t *testing.T, hosts map[string]string) *net.Resolver {
	t.Helper()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		wg.Go(func() {
			defer there.Close()
			for answerDNS(there, hosts) == nil {
			}
		})
		return here, nil
	}}
}

// answerDNS answers one query as it goes over TCP (RFC 1035, section 4).
func answerDNS(c net.Conn, hosts map[string]string) error {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	q := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, q); err != nil {
		return err
	}
	name, at := "", 12
	for q[at] != 0 {
		n := int(q[at])
		name += string(q[at+1:at+1+n]) + "."
		at += 1 + n
	}
	question := q[12 : at+5]
	kind := binary.BigEndian.Uint16(q[at+1:])
	a := append([]byte{}, q[:2]...)
	addr, known := hosts[name[:len(name)-1]]
	code := byte(3) // NXDOMAIN
	if known {
		code = 0
	}
	if addr == "servfail" {
		code = 2
	}
	ip, _ := netip.ParseAddr(addr)
	fits := ip.Is4() && kind == 1 || ip.Is6() && kind == 28
	answers := byte(0)
	if fits {
		answers = 1
	}
	a = append(a, 0x81, 0x80|code, 0, 1, 0, answers, 0, 0, 0, 0)
	a = append(a, question...)
	if fits {
		a = append(a, 0xc0, 12)
		a = binary.BigEndian.AppendUint16(a, kind)
		a = append(a, 0, 1, 0, 0, 0, 60)
		a = binary.BigEndian.AppendUint16(a, uint16(len(ip.AsSlice())))
		a = append(a, ip.AsSlice()...)
	}
	_, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
	return err
}
