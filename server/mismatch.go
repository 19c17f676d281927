package server

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
)

// Mismatch returns the function that Listen calls for a client that speaks the other protocol: it leaves a record, and a line
// in the log.
func (s *Server) Mismatch(tls bool) func(from net.Addr) {
	finding := diagnose.Explain(diagnose.New(diagnose.HTTPNotHTTPS, "a client speaks HTTPS to the mirror, whose listener is plain HTTP",
		"write http:// before the mirror's address in the client's configuration, or set tls in the mirror's"))
	if tls {
		finding = diagnose.Explain(diagnose.New(diagnose.HTTPSNotHTTP, "a client speaks plain HTTP to the mirror, whose listener is HTTPS",
			"write https:// before the mirror's address in the client's configuration, and have it trust the mirror's CA"))
	}
	return func(from net.Addr) {
		name := client.AddressOf(from)
		f := finding
		f.Evidence = []string{"the first bytes of a connection from " + name}
		r := journal.Request{At: time.Now(), Client: name, Source: client.SourceOf(from), Status: http.StatusBadRequest, Finding: &f, ID: f.ID("")}
		s.suspects.add(name, func() { s.o.Observe(r) })
	}
}

const (
	// suspectFor is the time in which a client that spoke the wrong protocol may speak the right one: many try HTTPS first.
	suspectFor = 10 * time.Second
	// maxSuspects bounds the clients with such a delay. Further ones are reported at once.
	maxSuspects = 1000
)

// suspects are clients, by address, that spoke the wrong protocol within suspectFor.
type suspects struct {
	some atomic.Int64 // how many there are: nearly always none, and each request looks

	mu    sync.Mutex // guards known; a leaf
	known map[string]*time.Timer
}

// add calls report after suspectFor, unless the client speaks the right protocol before.
func (s *suspects) add(client string, report func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[client] != nil {
		return // it is among them already
	}
	if len(s.known) >= maxSuspects {
		report()
		return
	}
	if s.known == nil {
		s.known = make(map[string]*time.Timer)
	}
	s.some.Add(1)
	s.known[client] = time.AfterFunc(suspectFor, func() {
		if s.clear(client) {
			report()
		}
	})
}

// clear removes a client that speaks the right protocol. It returns false where it was not among them.
func (s *suspects) clear(client string) bool {
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
