package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/share"
)

// response is the one wrapper between handlers and net/http: it counts, and it keeps io.ReaderFrom, which sendfile needs.
type response struct {
	under  http.ResponseWriter
	h2     bool
	stall  time.Duration // longest time that an HTTP/2 client may take nothing
	stuck  bool          // an HTTP/2 client has taken nothing for so long, and its stream was ended
	status int           // 0: the headers are not written
	first  time.Time     // when the headers were written; zero: not by this type
	bytes  int64         // of body
	until  time.Time     // deadline of the whole body; zero: none

	// share is what the client has of its limits; nil: it has none. A body with paced set gets its bandwidth a piece at a time, until
	// that context ends; nil: the body is sent at once. To the rest of the mirror a paced client is one that reads slowly: it keeps no
	// download and no content from others.
	share *share.Request
	paced context.Context
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
	w.under.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if !w.begun() {
		w.WriteHeader(http.StatusOK)
	}
	if !w.h2 && !w.isPaced() {
		n, err := w.under.Write(p)
		w.bytes += int64(n)
		return n, err
	}
	written := 0
	for {
		k, err := w.next(int64(min(len(p)-written, piece)))
		if err != nil {
			return written, err
		}
		n, err := w.writePiece(p[written : written+int(k)])
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

// writePiece writes a piece of a stream, with a deadline of its own: a client that reads slowly makes progress, too. After it the
// deadline is gone, since the next piece may come late: from the registry, or by the client's share.
func (w *response) writePiece(p []byte) (int, error) {
	w.progress()
	n, err := w.under.Write(p)
	w.bytes += int64(n)
	if w.h2 {
		w.stuck = errors.Is(err, os.ErrDeadlineExceeded)
		_ = http.NewResponseController(w.under).SetWriteDeadline(w.until)
	}
	return n, err
}

// next returns how many bytes of the body, up to want, may be sent now.
func (w *response) next(want int64) (int64, error) {
	if !w.isPaced() {
		return want, nil
	}
	return w.share.Next(w.paced, want)
}

func (w *response) isPaced() bool { return w.share != nil && w.paced != nil }

// leave ends what the client has of its limits, at the end of the response.
func (w *response) leave() {
	if w.share != nil && !w.isPaced() {
		w.share.Sent(w.bytes)
	}
	w.share.End()
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
	if w.isPaced() {
		return w.readPieces(rf, src)
	}
	n, err := rf.ReadFrom(src)
	w.bytes += n
	return n, err
}

// readPieces is ReadFrom in the pieces that the client's share allows. Each goes the way that all of it would.
func (w *response) readPieces(rf io.ReaderFrom, src io.Reader) (n int64, err error) {
	lr, ok := src.(*io.LimitedReader)
	if !ok {
		return copyTo(w, src)
	}
	for lr.N > 0 {
		k, err := w.next(lr.N)
		if err != nil {
			return n, err
		}
		m, err := rf.ReadFrom(&io.LimitedReader{R: lr.R, N: k})
		w.bytes += m
		n += m
		if lr.N -= m; err != nil || m < k {
			return n, err
		}
	}
	return n, nil
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
