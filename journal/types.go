package journal

import (
	"cmp"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// Request is one request as the front end saw it. It is observed after its last byte, or, where the answer is a failure,
// before the answer.
type Request struct {
	At     time.Time
	Took   time.Duration
	First  time.Duration // to the first byte of the answer; 0: none was sent
	Client string
	// Source is the address that the client's requests come from, or the network that one owner is likely to have.
	// Bounded memory is shared out by source, since a client can choose its own name. Empty: Client.
	Source    string
	UserAgent string
	Kind      oci.Kind
	Head      bool
	Ref       oci.Ref // canonical where its upstream is configured; else as the client sent it
	Upstream  string  // a configured one; empty where the request names none of them
	Status    int
	Bytes     int64 // of the body, sent to the client
	Outcome   cache.Outcome
	Stale     bool
	Aborted   bool  // the response did not reach its end
	Size      int64 // of the body, as the header of a blob announced it; 0: not known
	// Index is the document of an index that was sent, for its platforms. It is read later, and not kept.
	Index []byte
	// Parts are the config and layers of the manifest that was sent. They are read later, and not changed.
	Parts []oci.Digest
	// Finding is set where the answer was a failure; ID is its fingerprint.
	Finding *diagnose.Finding
	ID      string
}

// holder is the party that this request is charged to.
func (r *Request) holder() holder { return holder{cmp.Or(r.Source, r.Client), r.Client} }

// Outcome is how a pull went.
type Outcome string

// The outcomes of a pull.
const (
	Served   Outcome = "served"   // content was sent
	Stale    Outcome = "stale"    // content was sent, older than it should be, since the upstream did not answer
	Declined Outcome = "declined" // refused, and the client is free to go on to the registry
	Failed   Outcome = "failed"
	Looked   Outcome = "looked" // manifests only: a check whether a tag has moved, or of an image's platforms
)

// Pull is a finished pull, or a running one as it stands.
type Pull struct {
	Ref       oci.Ref // as first requested, with the digest that it turned out to mean, if any
	Upstream  string  // a configured one; empty for a pull from none of them
	Client    string
	Source    string // the address that the client's requests came from
	Outcome   Outcome
	Began     time.Time
	Took      time.Duration // to the end of its last answer
	Bytes     int64         // of content, sent to the client
	FromCache int64         // of Bytes, those that were cached when the client requested them
	// Documents are digests by which runtimes may know the image: of the index and manifests that the client was shown, and of
	// the config, also where the client has not fetched it. They are the first of many.
	Documents []oci.Digest
	Config    bool // the client got the config of the image
	Layers    bool // the client got a layer, or a part of one
	// Finding is why the pull failed or was declined, and ID its fingerprint. Of several failures it is the gravest.
	Finding *diagnose.Finding
	ID      string
}

// Failure is why pulls failed: the same reason for the same image at the same host is one Failure with a count.
type Failure struct {
	diagnose.Finding         // of the last time
	ID               string  // fingerprint, which the client's error message shows
	Image            string  // empty where no image was named
	Platform         string  // the missing one, where that is the reason
	Outcome          Outcome // Failed or Declined
	Client           string  // the last client that met it
	UserAgent        string
	Clients          map[string]int64 // pulls by client; beyond 16 clients the others are counted under "others"
	Count            int64            // pulls
	FirstSeen        time.Time
	LastSeen         time.Time
}

// tagged is the reference with its tag where it has one, else with its digest.
func tagged(r oci.Ref) string {
	if r.Tag != "" {
		r.Digest = ""
	}
	return r.String()
}
