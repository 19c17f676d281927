package origin

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// exchange is one request on its way to be answered.
type exchange struct {
	g    *Origin
	role Role // of the listener
	e    *entry
	f    Fault
	w    http.ResponseWriter
	r    *http.Request
}

// counted is a writer for Fault.Handler.
type counted struct {
	http.ResponseWriter
	e *entry
}

func (c *counted) WriteHeader(status int) {
	c.e.status.CompareAndSwap(0, int64(status))
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Write(p []byte) (int, error) {
	c.e.status.CompareAndSwap(0, http.StatusOK)
	c.e.bytes.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// take hijacks the connection. Where it can't be, the stream is reset.
func (x *exchange) take() net.Conn {
	c, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return c
}

func (x *exchange) release(c net.Conn, rst bool) {
	if rst {
		reset(c)
	} else {
		_ = c.Close()
	}
	for _, e := range x.g.endpoints() {
		e.forget(c)
	}
}

func (x *exchange) drop() {
	x.release(x.take(), x.f.Reset)
}

// send writes the answer with what is wrong with it.
func (x *exchange) send(a *answer) {
	f := x.f
	if f.Wrong || len(f.Flip) > 0 {
		a.body = &wrong{content: a.body, all: f.Wrong, flip: f.Flip}
	}
	if f.Gzip {
		a.body, a.from = compress(a), 0
		a.length = a.body.Size()
		a.header.Set("Content-Encoding", "gzip")
	}
	declared := a.length
	if f.Extra != "" {
		a.body = &longer{content: a.body, from: a.from, length: a.length, extra: bytes.NewReader([]byte(f.Extra))}
		a.from, a.length = 0, a.body.Size()
	}
	cut := f.Cut
	if cut != nil {
		at := cut.At
		if at < 0 {
			at = max(0, at+a.length)
		}
		switch {
		case at > a.length:
			cut = nil
		case cut.How == CutHonest:
			declared, cut = at, nil
			fallthrough
		default:
			a.length = at
		}
	}
	length := strconv.FormatInt(declared, 10)
	if a.bare {
		length = LengthChunked
	}
	if f.Length != "" {
		length = f.Length
	}
	x.e.status.Store(int64(a.status))
	x.e.from.Store(a.from)
	x.e.content.Store(a.content)
	raw := cut != nil || f.Extra != "" || f.Length != "" && f.Length != LengthChunked
	switch {
	case raw && x.r.ProtoMajor == 1:
		x.sendRaw(a, length, cut)
	default:
		x.sendPlain(a, length, cut)
	}
}

func compress(a *answer) content {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if a.body != nil {
		_, _ = io.Copy(z, io.NewSectionReader(a.body, a.from, a.length))
	}
	_ = z.Close()
	return bytes.NewReader(b.Bytes())
}

// sendPlain answers as net/http does. On h2, a cut is a reset of the stream.
func (x *exchange) sendPlain(a *answer, length string, cut *Cut) {
	h := x.w.Header()
	maps.Copy(h, a.header)
	if length != LengthChunked && length != LengthNone {
		h.Set("Content-Length", length)
	}
	x.w.WriteHeader(a.status)
	if x.r.Method == http.MethodHead {
		return
	}
	if length == LengthChunked {
		_ = http.NewResponseController(x.w).Flush() // else a short body gets a length after all
	}
	ok := x.copy(x.r.Context(), flusher{x.w}, a)
	if !ok || cut != nil {
		_ = http.NewResponseController(x.w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// sendRaw writes to the connection itself what net/http would not.
func (x *exchange) sendRaw(a *answer, length string, cut *Cut) {
	c := x.take()
	ctx, cancel := context.WithCancel(context.Background()) // the request's ends with the hijacking
	var reading sync.WaitGroup
	reading.Go(func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, c) // ends when the client leaves, or when we close
	})
	rst := cut != nil && cut.How == CutReset
	defer func() {
		if rst {
			x.drain(ctx, c)
		}
		x.release(c, rst)
		reading.Wait()
	}()
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	a.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	a.header.Set("Connection", "close")
	switch length {
	case LengthNone:
	case LengthChunked:
		a.header.Set("Transfer-Encoding", "chunked")
	default:
		a.header.Set("Content-Length", length)
	}
	for k, v := range a.header {
		for _, v := range v {
			fmt.Fprintf(&head, "%s: %s\r\n", k, strings.NewReplacer("\r", " ", "\n", " ").Replace(v))
		}
	}
	head.WriteString("\r\n")
	if _, err := c.Write(head.Bytes()); err != nil || x.r.Method == http.MethodHead {
		return
	}
	var to io.Writer = c
	if length == LengthChunked {
		to = chunked{c}
	}
	if x.copy(ctx, to, a) && cut == nil && length == LengthChunked {
		_, _ = io.WriteString(c, "0\r\n\r\n")
	}
}

// drain waits until the client's side has all that was sent, so that an RST takes none of it away.
func (x *exchange) drain(ctx context.Context, c net.Conn) {
	for end := time.Now().Add(5 * time.Second); unsent(c) > 0 && time.Now().Before(end); {
		if !x.g.sleep(ctx, time.Millisecond) {
			return
		}
	}
}

type flusher struct{ http.ResponseWriter }

type chunked struct{ c net.Conn }

func (w chunked) Write(p []byte) (int, error) {
	if _, err := fmt.Fprintf(w.c, "%x\r\n", len(p)); err != nil {
		return 0, err
	}
	n, err := w.c.Write(p)
	if err == nil {
		_, err = io.WriteString(w.c, "\r\n")
	}
	return n, err
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// copy sends the body at its rate, with its pause, and reports whether all of it went out.
func (x *exchange) copy(ctx context.Context, to io.Writer, a *answer) bool {
	if a.body == nil {
		return true
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	rate := x.g.o.Rate
	if x.f.Rate > 0 {
		rate = x.f.Rate
	}
	pause := int64(-1)
	if s := x.f.Stall; s != nil {
		if pause = s.At; pause < 0 {
			pause = max(0, pause+a.length)
		}
	}
	fl, canFlush := to.(flusher)
	start := time.Now()
	for sent := int64(0); ; {
		if sent == pause {
			pause = -1
			if canFlush {
				_ = http.NewResponseController(fl.ResponseWriter).Flush()
			}
			stalled := time.Now()
			if !x.g.wait(ctx, x.f.Stall.Gate) {
				return false
			}
			start = start.Add(time.Since(stalled))
		}
		n := min(int64(len(*buf)), a.length-sent)
		if n == 0 {
			return true
		}
		if pause > sent {
			n = min(n, pause-sent)
		}
		if rate > 0 {
			n = min(n, int64(max(1, rate/100))) // a hundred pieces a second
			due := start.Add(time.Duration(float64(sent+n) / float64(rate) * float64(time.Second)))
			if late := time.Since(due); late > 100*time.Millisecond { // a slow client does not catch up in a burst
				start = start.Add(late)
			}
			if !x.g.sleep(ctx, time.Until(due)) {
				return false
			}
		}
		p := (*buf)[:n]
		if m, err := a.body.ReadAt(p, a.from+sent); m < len(p) {
			panic(fmt.Sprintf("origin: content ends at %d: %v", a.from+sent+int64(m), err))
		}
		x.e.bytes.Add(n) // first, so that a client never has what is not counted
		m, err := to.Write(p)
		x.e.bytes.Add(int64(m) - n)
		if err != nil {
			return false
		}
		if rate > 0 && canFlush {
			_ = http.NewResponseController(fl.ResponseWriter).Flush()
		}
		sent += n
	}
}
