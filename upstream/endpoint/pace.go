package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// A document has a least pace: a registry that sends a byte now and then would otherwise hold the memory that was reserved for
// the document.
const (
	paceRate = 16 << 10 // bytes a second, on top of which a document has
)

// paceError says that a document came too slowly.
type paceError struct {
	got  int64 // bytes
	took time.Duration
}

func (e *paceError) Error() string {
	return fmt.Sprintf("it came too slowly: %d bytes in %s", e.got, e.took.Round(time.Millisecond))
}

// Timeout is true, as net.Error has it.
func (e *paceError) Timeout() bool { return true }

// Unwrap makes errors.Is(err, context.DeadlineExceeded) true.
func (e *paceError) Unwrap() error { return context.DeadlineExceeded }

// SetPace makes the body of an answer fail where it comes at less than the least pace after the grace. Only the time of its
// reads counts.
func SetPace(body io.Reader, grace time.Duration) {
	if m, ok := body.(*meter); ok {
		m.grace = grace
	}
}

// errPace ends the exchange of a document that comes too slowly.
var errPace = errors.New("too slow")

// patience is how long the next read may take.
func (m *meter) patience() time.Duration {
	if m.grace == 0 || !guard.Pace {
		return m.stall
	}
	return max(0, min(m.stall, m.grace+time.Duration(m.x.Bytes)*time.Second/paceRate-m.waited))
}

// timed reads, and adds up the time of the reads of a document.
func (m *meter) timed(p []byte) (int, error) {
	if m.grace == 0 {
		return m.body.Read(p)
	}
	began := time.Now()
	n, err := m.body.Read(p)
	m.waited += time.Since(began)
	return n, err
}
