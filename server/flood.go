package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/registrymirror/mirror/internal/guard"
)

// HTTP/2 has frames that cost the client nothing: PING, SETTINGS, WINDOW_UPDATE, PRIORITY, CONTINUATION without content, and requests that
// are reset at once. net/http bounds the memory that they take, and not their number. So a connection has an allowance of bytes that its
// client may send, which grows with its requests and with what it receives, and an allowance of requests that it resets.
const (
	maxStreams = 100 // requests at once on one connection
	// A client may send frameBytes, requestBytes for each request, a body, and a sixteenth of what it receives: for each 4 KiB of a download
	// it sends two WINDOW_UPDATE frames of 13 bytes, in a TLS record.
	frameBytes   = 64 << 10
	requestBytes = maxHeaderBytes
	bodyBytes    = 1 << 20
	receivedPart = 16
	// maxResets is how many requests the client may have reset before they were answered, beyond those that it let end.
	maxResets = 200
)

// frames are the allowances of an HTTP/2 connection.
type frames struct {
	counted  atomic.Bool // the client speaks HTTP/2: they hold
	received atomic.Int64
	allowed  atomic.Int64
	resets   atomic.Int64
}

// begin notes that the connection speaks HTTP/2.
func (f *frames) begin() {
	f.allowed.Store(frameBytes)
	f.counted.Store(true)
}

// read counts bytes of the client; false: it has sent more than it may.
func (f *frames) read(n int) bool {
	return !guard.Flood || !f.counted.Load() || f.received.Add(int64(n)) <= f.allowed.Load()
}

// wrote counts bytes to the client.
func (f *frames) wrote(n int64) {
	if f.counted.Load() {
		f.allowed.Add(n / receivedPart)
	}
}

// request counts a request when it begins.
func (f *frames) request(body int64) {
	if body < 0 {
		body = bodyBytes
	}
	f.allowed.Add(requestBytes + min(body, bodyBytes))
}

// ended counts a request when it ends; false: the client has reset more than it may.
func (f *frames) ended(reset bool) bool {
	if !reset {
		if n := f.resets.Load(); n > 0 {
			f.resets.CompareAndSwap(n, n-1)
		}
		return true
	}
	return f.resets.Add(1) <= maxResets || !guard.Flood
}

// speaksHTTP2 reports whether a client has chosen HTTP/2 in its handshake, which is over.
func speaksHTTP2(c net.Conn) bool {
	t, ok := c.(*tls.Conn)
	return ok && t.ConnectionState().NegotiatedProtocol == "h2"
}

// countFrames counts a request over HTTP/2. The caller calls ended when the request is over.
func countFrames(r *http.Request) (ended func()) {
	c := connIn(r.Context())
	if c == nil {
		return func() {}
	}
	c.frames.request(r.ContentLength)
	return func() {
		if !c.frames.ended(errors.Is(r.Context().Err(), context.Canceled)) {
			c.flooded()
		}
	}
}

var errFlood = errors.New("the client sends HTTP/2 frames without requests")

// flooded closes a connection whose client has used up an allowance.
func (c *conn) flooded() {
	c.count(ByFlood)
	c.l.seats.report("connection closed: its client floods it with HTTP/2 frames or resets", "client", c.RemoteAddr().String())
	_ = c.Close()
}
