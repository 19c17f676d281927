package endpoint

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/upstream/fault"
)

// A document has a least pace: a registry that sends a byte now and then would otherwise hold the memory that was reserved for
// the document.
const paceRate = 16 << 10 // bytes a second

// paceError says that a document came too slowly. It is a timeout, as a PatienceError is.
type paceError struct {
	fault.PatienceError
	got int64 // bytes
}

func (e *paceError) Error() string {
	return fmt.Sprintf("it came too slowly: %d bytes in %s", e.got, e.After.Round(time.Millisecond))
}

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
		return m.o.StallTimeout
	}
	return max(0, min(m.o.StallTimeout, m.grace+time.Duration(m.x.Bytes)*time.Second/paceRate-m.waited))
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
