package journal

import (
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// Request is what the front end saw of one request, told after its last byte.
type Request struct {
	At        time.Time
	Took      time.Duration
	Client    string
	UserAgent string
	Kind      oci.Kind
	Head      bool
	Ref       oci.Ref // canonical
	Status    int
	Bytes     int64 // of body sent to the client
	Outcome   cache.Outcome
	Collapsed bool
	Stale     bool
	Aborted   bool // the response did not reach its end
	// Finding is set where the answer was a failure; ID is its fingerprint.
	Finding *diagnose.Finding
	ID      string
}
