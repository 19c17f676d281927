package journal

import (
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// Request is what the front end saw of one request: told after its last byte, or before the answer where that is a failure.
type Request struct {
	At     time.Time
	Took   time.Duration
	Client string
	// Source is the address that the client's requests come from, or the network of it that one owner is likely to have:
	// what is bounded is shared out by it, since a client may call itself what it likes. Empty: Client.
	Source    string
	UserAgent string
	Kind      oci.Kind
	Head      bool
	Ref       oci.Ref // canonical, where its upstream is one of ours; else as the client sent it
	Upstream  string  // one of ours; empty for a request that names none, whose host is the client's invention
	Status    int
	Bytes     int64 // of body sent to the client
	Outcome   cache.Outcome
	Collapsed bool
	Stale     bool
	Aborted   bool  // the response did not reach its end
	Size      int64 // of the body that the header promised, for blobs; 0: not known
	// Index is the document of an index that was sent, for its platforms. It is read later, and not kept.
	Index []byte
	// Finding is set where the answer was a failure; ID is its fingerprint.
	Finding *diagnose.Finding
	ID      string
}

// holder is to whom a request is charged.
func (r *Request) holder() holder { return holder{orElse(r.Source, r.Client), r.Client} }

// Pull is a pull that is over: what one client asked of one image.
type Pull struct {
	Ref       oci.Ref // as first asked for, with the digest that it turned out to mean, if any
	Upstream  string  // one of ours; empty for a pull from none of them
	Client    string
	Outcome   Outcome
	Began     time.Time
	Took      time.Duration // to the end of its last answer
	Bytes     int64         // of content, sent to the client
	FromCache int64         // of those, what was there when it was asked for
	// Finding is why it failed or was declined, and ID its fingerprint. Of several failures it is the gravest.
	Finding *diagnose.Finding
	ID      string
}
