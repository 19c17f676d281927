package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
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

// Mismatch returns what Listen tells of clients that speak the other protocol: it leaves a record, and a line in the log.
func (s *Server) Mismatch(tls bool) func(from net.Addr) {
	finding := diagnose.Explain(diagnose.New(diagnose.HTTPNotHTTPS, "a client speaks HTTPS to the mirror, whose listener is plain HTTP",
		"write http:// before the mirror's address in the client's configuration, or set tls in the mirror's"))
	if tls {
		finding = diagnose.Explain(diagnose.New(diagnose.HTTPSNotHTTP, "a client speaks plain HTTP to the mirror, whose listener is HTTPS",
			"write https:// before the mirror's address in the client's configuration, and have it trust the mirror's CA"))
	}
	return func(from net.Addr) {
		client, _, err := net.SplitHostPort(from.String())
		if err != nil {
			client = printable(from.String(), 100)
		}
		source := ""
		if a, ok := from.(*net.TCPAddr); ok {
			source = network(a.AddrPort().Addr().Unmap().WithZone(""))
		}
		f := finding
		f.Evidence = []string{"the first bytes of a connection from " + client}
		r := journal.Request{At: time.Now(), Client: client, Source: source, Status: http.StatusBadRequest, Finding: &f, ID: f.ID("")}
		s.suspects.add(client, func() { s.o.Observe(r) })
	}
}

const (
	// suspectFor is how long a client that spoke the wrong protocol has to speak the right one: many try HTTPS first.
	suspectFor = 10 * time.Second
	// maxSuspects bounds how many are waited for. Others count at once.
	maxSuspects = 1000
)

// suspects are clients, by address, that have spoken the wrong protocol a moment ago.
type suspects struct {
	some atomic.Int64 // how many there are: nearly always none, and each request asks

	mu    sync.Mutex // guards known; a leaf
	known map[string]*time.Timer
}

// add has tell called, unless the client speaks the right protocol soon.
func (s *suspects) add(client string, tell func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[client] != nil {
		return // it is waited for already
	}
	if len(s.known) >= maxSuspects {
		tell()
		return
	}
	if s.known == nil {
		s.known = make(map[string]*time.Timer)
	}
	s.some.Add(1)
	s.known[client] = time.AfterFunc(suspectFor, func() {
		if s.clear(client) {
			tell()
		}
	})
}

// clear says that a client speaks the right protocol. False: it was not waited for.
func (s *suspects) clear(client string) bool {
	if s.some.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.known[client]
	if t == nil {
		return false
	}
	t.Stop()
	delete(s.known, client)
	s.some.Add(-1)
	return true
}
