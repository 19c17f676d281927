package server

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// response is the one wrapper between handlers and net/http: it counts, and it keeps io.ReaderFrom, which sendfile needs.
type response struct {
	under  http.ResponseWriter
	h2     bool
	stall  time.Duration // longest time that an HTTP/2 client may take nothing
	status int           // 0: the headers are not written
	first  time.Time     // when the headers were written; zero: not by this type
	bytes  int64         // of body
	until  time.Time     // deadline of the whole body; zero: none
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.under }

func (w *response) Header() http.Header { return w.under.Header() }

func (w *response) begun() bool { return w.status != 0 }

func (w *response) WriteHeader(status int) {
	if w.begun() {
		return
	}
	w.status, w.first = status, time.Now()
	w.progress()
	w.under.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if !w.begun() {
		w.WriteHeader(http.StatusOK)
	}
	if !w.h2 {
		n, err := w.under.Write(p)
		w.bytes += int64(n)
		return n, err
	}
	// Each piece of a stream has its own deadline: a client that reads slowly makes progress, too.
	written := 0
	for {
		w.progress()
		n, err := w.under.Write(p[written:min(len(p), written+piece)])
		w.bytes += int64(n)
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

// piece is how much of a stream is written at once.
const piece = 64 << 10

// ReadFrom hands src to net/http, which hands it to the connection: a file, or an io.LimitedReader of one, goes from
// the page cache to the socket without passing through this process.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	if !w.begun() {
		w.WriteHeader(http.StatusOK)
	}
	rf, ok := w.under.(io.ReaderFrom)
	if !ok {
		return copyTo(w, src)
	}
	n, err := rf.ReadFrom(src)
	w.bytes += n
	return n, err
}

// progress sets the deadline of the next write of an HTTP/2 stream: the connection may be busy with other streams while the
// client reads nothing of this one. Under HTTP/1 the connection of Listen does that, without getting in the way of sendfile.
func (w *response) progress() {
	if !w.h2 {
		return
	}
	t := time.Now().Add(w.stall)
	if !w.until.IsZero() && w.until.Before(t) {
		t = w.until
	}
	_ = http.NewResponseController(w.under).SetWriteDeadline(t)
}

// within sets a deadline for all writes from now on. The caller ends it.
func (w *response) within(d time.Duration) (end func()) {
	w.until = time.Now().Add(d)
	c := http.NewResponseController(w.under)
	_ = c.SetWriteDeadline(w.until)
	return func() {
		w.until = time.Time{}
		_ = c.SetWriteDeadline(time.Time{})
	}
}

// copyTo copies through a buffer, whatever else both sides can do.
func copyTo(w io.Writer, src io.Reader) (int64, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(onlyWriter{w}, onlyReader{src}, *buf)
}

var buffers = sync.Pool{New: func() any { b := make([]byte, piece); return &b }}

type onlyWriter struct{ io.Writer }

type onlyReader struct{ io.Reader }
