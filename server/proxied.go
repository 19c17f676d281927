package server

import (
	"net"
	"time"

	"github.com/registrymirror/mirror/client"
)

// Read reads the client's bytes, and reports once if the first of them are not of the listener's protocol.
func (c *conn) Read(b []byte) (n int, err error) {
	if c.preface != nil {
		n, err = c.preface.Read(b)
	} else {
		n, err = c.TCPConn.Read(b)
	}
	if !c.began && n > 0 {
		c.began = true
		c.reportFirst(b[:n])
	}
	return n, err
}

// RemoteAddr is the client's address, where a trusted proxy gives it, else that of the connection.
func (c *conn) RemoteAddr() net.Addr {
	if c.preface != nil {
		if a, ok := c.preface.RemoteAddr().(*net.TCPAddr); ok {
			return a
		}
	}
	return c.TCPConn.RemoteAddr()
}

// reportFirst reports a client whose first bytes are not of the listener's protocol: net/http only closes such a connection,
// and the client's own message names neither the cause nor the remedy.
func (c *conn) reportFirst(b []byte) {
	if c.preface == nil && client.IsPreface(b) {
		c.l.reportProxy(c.TCPConn.RemoteAddr())
		return
	}
	if c.l.Mismatch == nil {
		return
	}
	const handshake = 0x16 // a TLS record of that type, RFC 8446, 5.1
	switch first := b[0]; {
	case !c.l.TLS && first == handshake, c.l.TLS && 'A' <= first && first <= 'Z':
		c.l.Mismatch(c.RemoteAddr())
	}
}

// warnInterval is the least time between two log lines about the same condition.
const warnInterval = time.Minute

// reportProxy logs a proxy that is not trusted: its clients get a 400 without a reason.
func (l *listener) reportProxy(from net.Addr) {
	now, last := steady(time.Now()), l.warned.Load()
	if last != 0 && now-last < int64(warnInterval) || !l.warned.CompareAndSwap(last, now) {
		return
	}
	l.Log.Warn("connection refused: it begins with a PROXY header, and trustedProxies does not list its address; add the proxy's "+
		"network to trustedProxies, or turn the header off there", "client", from.String())
}
