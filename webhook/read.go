package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/registrymirror/mirror/client"
)

// turnTimeout is how long a report waits for its turn to be read: most senders send it once.
const turnTimeout = 5 * time.Second

// reading bounds the bodies that are read at the same time.
type reading struct {
	total, each int // how many, and how many of one source; each 0: as many as total

	mu    sync.Mutex // guards what follows
	now   int
	from  map[string]int
	freed chan struct{} // closed when a body was read; nil: no report waits
}

// begin waits until a body may be read. If it returns true, end follows.
func (b *reading) begin(ctx context.Context, source string) bool {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	for {
		freed, ok := b.try(source)
		if ok {
			return true
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return false
		}
	}
}

// try takes a turn, or returns the channel that is closed when the next one is over.
func (b *reading) try(source string) (freed <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now >= b.total || b.each > 0 && b.from[source] >= b.each {
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		return b.freed, false
	}
	if b.from == nil {
		b.from = make(map[string]int)
	}
	b.now++
	b.from[source]++
	return nil, true
}

func (b *reading) end(source string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now--
	if b.from[source]--; b.from[source] == 0 {
		delete(b.from, source)
	}
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// read reads the body of a report, or returns the answer to one that can't be read. Turns are shared among the hooks, and among the
// addresses of senders that have not shown a secret: none takes all of them.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, hook string, unproven bool) ([]byte, *answer) {
	turns, source := &h.known, hook
	if unproven {
		turns, source = &h.unproven, client.Source(r, h.o.Proxies)
	}
	if !turns.begin(r.Context(), source) {
		return nil, &answer{
			result: Limited, status: http.StatusServiceUnavailable, close: true, retry: time.Second,
			text: "the mirror reads as many reports as it may; send it again in a moment",
		}
	}
	defer turns.end(source)
	// A connection without deadlines, as in some tests, is bounded by the server's own.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err == nil {
		return body, nil
	}
	a := answer{result: Invalid, status: http.StatusBadRequest, close: true, text: "the body ended too early"}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		a = tooLarge()
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		a.status, a.text = http.StatusRequestTimeout, "the body took longer than "+BodyTimeout.String()
	}
	return nil, &a
}
