package endpoint

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"

	"github.com/registrymirror/mirror/upstream/fault"
)

// tracer records the steps of one request. Its hooks are called from goroutines of the transport, some of them after the
// request is over, since a dial goes on for the next request.
type tracer struct {
	mu             sync.Mutex // guards the following fields; a leaf
	over           bool       // the steps have been read
	dns, dial, tls stage
	addr           string // of the connection that was used
	connected      bool
	reused         bool
}

// stage is a part of making a connection.
type stage struct {
	begun time.Time
	took  time.Duration
	addr  string
	err   error
	ended bool
}

func (s *stage) begin() { *s = stage{begun: time.Now()} }

func (s *stage) end(addr string, err error) {
	// Of several addresses the one that worked counts, else the last.
	if s.ended && s.err == nil {
		return
	}
	s.took, s.addr, s.err, s.ended = time.Since(s.begun), addr, err, true
}

func (t *tracer) record(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		f()
	}
}

func (t *tracer) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { t.record(t.dns.begin) },
		DNSDone:  func(i httptrace.DNSDoneInfo) { t.record(func() { t.dns.end("", i.Err) }) },
		ConnectStart: func(string, string) {
			t.record(func() {
				if t.dial.begun.IsZero() {
					t.dial.begin()
				}
			})
		},
		ConnectDone:       func(_, addr string, err error) { t.record(func() { t.dial.end(addr, err) }) },
		TLSHandshakeStart: func() { t.record(t.tls.begin) },
		TLSHandshakeDone:  func(_ tls.ConnectionState, err error) { t.record(func() { t.tls.end("", err) }) },
		GotConn: func(i httptrace.GotConnInfo) {
			addr := i.Conn.RemoteAddr().String()
			t.record(func() { t.addr, t.connected, t.reused = addr, true, i.Reused })
		},
	}
}

// steps ends the tracing and returns the steps in order. The last one is the request itself, or the part of the connection
// that broke with its error.
func (t *tracer) steps(last fault.Step, proxy *url.URL) []fault.Step {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	last.Addr = t.addr
	t.tls.addr = t.dial.addr
	var steps []fault.Step
	if !t.reused {
		for _, s := range []struct {
			name fault.StepName
			*stage
		}{{fault.StepDNS, &t.dns}, {fault.StepDial, &t.dial}, {fault.StepTLS, &t.tls}} {
			if s.ended {
				steps = append(steps, fault.Step{Name: s.name, Host: last.Host, Addr: s.addr, Took: s.took, Err: s.err})
			}
		}
	}
	if last.Err == nil || t.connected {
		return append(steps, last)
	}
	last.For, last.Name, last.Addr = last.Name, t.broken(last.Err, proxy != nil), t.dial.addr
	if last.Name == fault.StepProxy && proxy != nil {
		last.Host = proxy.Host
	}
	if n := len(steps); n > 0 && steps[n-1].Name == last.Name {
		steps = steps[:n-1] // it comes again, with the whole error
	}
	return append(steps, last)
}

// broken is the step in which making a connection failed. The lock is held.
func (t *tracer) broken(err error, proxied bool) fault.StepName {
	if fault.Is[*fault.ProxyError](err) {
		return fault.StepProxy
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "proxyconnect" {
		return fault.StepProxy
	}
	if fault.Is[*net.DNSError](err) {
		return fault.StepDNS
	}
	switch {
	case !t.tls.begun.IsZero():
		return fault.StepTLS
	case !t.dns.begun.IsZero() && !t.dns.ended:
		return fault.StepDNS
	case proxied && t.dial.ended && t.dial.err == nil: // it accepted the connection and did not answer the CONNECT
		return fault.StepProxy
	}
	return fault.StepDial
}
