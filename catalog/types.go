package catalog

import (
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Tag is what is known of a tag: which digest it means and meant.
type Tag struct {
	Ref     oci.Ref
	Digest  oci.Digest // that it means now
	Checked time.Time  // when the upstream last confirmed that digest
	History []Seen     // newest first, the present digest included; bounded
	// Version is the table's, for Catalog.Moved.
	Version uint64
}

// Seen is one digest of a tag and when the upstream was seen to have it.
type Seen struct {
	Digest oci.Digest
	First  time.Time
	Last   time.Time
}

// Policy is how fresh a tag must be.
type Policy struct {
	MaxAge       time.Duration // younger copies are served without asking
	Wait         time.Duration // how long a pull waits for the check of an older copy
	StaleIfError time.Duration // how old a copy may be and still be served when the upstream does not answer
}

// Verdict is what a pull of a tag gets.
type Verdict int

// The verdicts of Tag.Judge.
const (
	Ask         Verdict = iota // wait for the upstream; a copy, where there is one, is the fallback
	Serve                      // the copy, without asking
	ServeAndAsk                // the copy at once, and a check behind it
)
