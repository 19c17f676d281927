package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	phraseTimeout = 10 * time.Second // for writing an answer of at most a few KiB
	lingerTimeout = 500 * time.Millisecond
)

// writePhrase writes the failure with its reason phrase, which net/http can't set, and closes the connection. It returns
// false, and has written nothing, where that is not possible or not configured.
//
// Only HTTP/1.1 has reason phrases. A request with a body is left to net/http, which knows how much of it is still to
// come. Clients drop the phrase of a 404, and probes for signatures make many of those, so they keep their connection.
func (x *exchange) writePhrase() bool {
	r, f := x.r, x.failure
	if !x.s.o.ErrorPhrase || f.status == http.StatusNotFound || r.ProtoMajor != 1 || !r.ProtoAtLeast(1, 1) ||
		r.Body != nil && r.Body != http.NoBody {
		return false
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "HTTP/1.1 %d %s\r\n", f.status, phrase(f.status, f.finding, f.id))
	h := x.w.Header().Clone()
	h.Set("Connection", "close")
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if err := h.Write(&out); err != nil {
		return false
	}
	out.WriteString("\r\n")
	if r.Method != http.MethodHead {
		out.Write(f.body)
	}
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return false // HTTP/2, or the ResponseWriter of another server
	}
	defer conn.Close()
	x.w.status = f.status
	_ = conn.SetDeadline(time.Now().Add(phraseTimeout))
	n, err := conn.Write(out.Bytes())
	if r.Method != http.MethodHead {
		x.w.bytes = int64(max(0, n-(out.Len()-len(f.body))))
	}
	if err == nil {
		linger(conn)
	}
	return true
}

// linger waits until the client has closed its side. A connection closed with bytes of the client unread is reset, and
// a reset may overtake the answer.
func linger(conn net.Conn) {
	c, ok := conn.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, conn, 64<<10)
}
