package webhook

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/client"
)

// turnTimeout is how long a report waits for its turn to be read: most senders send it once.
const turnTimeout = 5 * time.Second

// reading bounds the bodies that are read at the same time. A turn that ends goes to the waiting source whose address family has
// the fewest turns, then to the one that has the fewest itself, then to the one that came first: a network with many addresses, as
// those of IPv6 are, does not hold up all others.
type reading struct {
	total, each, family int // how many, how many of one source, and of the sources of one address family; each is above 0

	mu      sync.Mutex // guards what follows
	now     int
	from    map[string]int // turns by source
	of      map[string]int // turns by address family
	waiting []*waiter      // in order of their coming
}

// waiter is a report that waits for its turn.
type waiter struct {
	source string
	turn   chan struct{} // closed when it has its turn
}

// familyOf is the address family of a source. Sources that are not addresses are of one family.
func familyOf(source string) string {
	if strings.Contains(source, ":") {
		return "IPv6"
	}
	return "IPv4"
}

// begin waits until a body may be read. If it returns true, end follows.
func (b *reading) begin(ctx context.Context, source string) bool {
	w := &waiter{source, make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, w)
	b.give()
	b.mu.Unlock()
	timer := time.NewTimer(turnTimeout)
	defer timer.Stop()
	select {
	case <-w.turn:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, w)
	if i < 0 { // it has got its turn meanwhile
		return true
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	return false
}

// give gives the free turns to those that wait. The lock is held.
func (b *reading) give() {
	for b.now < b.total {
		best := -1
		for i, w := range b.waiting {
			if b.from[w.source] < b.each && b.of[familyOf(w.source)] < b.family && (best < 0 || b.before(w.source, b.waiting[best].source)) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		w := b.waiting[best]
		b.waiting = slices.Delete(b.waiting, best, best+1)
		b.count(w.source, 1)
		close(w.turn)
	}
}

// before reports whether the next turn is rather one source's than another's. The lock is held.
func (b *reading) before(a, other string) bool {
	return cmp.Or(cmp.Compare(b.of[familyOf(a)], b.of[familyOf(other)]), cmp.Compare(b.from[a], b.from[other])) < 0
}

// count adds to the turns of a source. The lock is held.
func (b *reading) count(source string, n int) {
	if b.from == nil {
		b.from, b.of = make(map[string]int), make(map[string]int)
	}
	b.now += n
	b.of[familyOf(source)] += n
	if b.from[source] += n; b.from[source] == 0 {
		delete(b.from, source)
	}
}

func (b *reading) end(source string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count(source, -1)
	b.give()
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
