package kubernetes

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// names answers for the names of Services, as a cluster's DNS does, until the test ends.
func (c *Cluster) names(t testing.TB) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", c.address+":53") //nolint:noctx // at once
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) != nil || len(q.Questions) != 1 {
				continue
			}
			reply := dnsmessage.Message{
				Header:    dnsmessage.Header{ID: q.ID, Response: true, Authoritative: true, RecursionAvailable: true, RCode: dnsmessage.RCodeNameError},
				Questions: q.Questions,
			}
			if address := c.service(t, q.Questions[0].Name.String()); address.IsValid() {
				reply.RCode = dnsmessage.RCodeSuccess
				if q.Questions[0].Type == dnsmessage.TypeA {
					reply.Answers = []dnsmessage.Resource{{
						Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 5},
						Body:   &dnsmessage.AResource{A: address.As4()},
					}}
				}
			}
			if b, err := reply.Pack(); err == nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
}

// service is the address of a Service by its name, NAME.NAMESPACE.svc.cluster.local. The zero value: there is none.
func (c *Cluster) service(t testing.TB, name string) (address netip.Addr) {
	short, ok := strings.CutSuffix(name, ".svc.cluster.local.")
	service, namespace, two := strings.Cut(short, ".")
	if !ok || !two || strings.Contains(namespace, ".") {
		return address
	}
	out, err := c.kubectl(t.Context(), "", "get", "service", service, "--namespace", namespace, "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		return address
	}
	address, _ = netip.ParseAddr(out) // the zero value, if it has none
	return address
}
