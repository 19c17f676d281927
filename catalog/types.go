package catalog

import (
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Tag is the record of a tag: which digest it means and meant.
type Tag struct {
	Ref     oci.Ref
	Digest  oci.Digest // the present one
	Checked time.Time  // when the upstream last confirmed that digest
	History []Seen     // newest first, the present digest included; bounded
	// Expired is when the tag was last said to have moved, by a webhook or an operator; zero: never. See Due.
	Expired   time.Time
	ExpiredBy Source // how that was learnt
	// Version is the table's, for Catalog.Moved.
	Version uint64
}

// Seen is one period of a tag's history: a digest, and when the upstream was seen to mean it. A tag that went from one digest to
// another and back has three periods.
type Seen struct {
	Digest    oci.Digest
	First     time.Time // when the upstream was first seen to mean it, in this period
	Last      time.Time // and last
	Source    Source    // how it was learnt; empty: not known
	Reversion bool      // the tag had meant this digest before, and another one since
	Reported  bool      // only reported: the upstream has named the digest, and its manifest was never fetched
	Size      int64     // bytes of the image, as its manifests say; 0: not known
	Platforms []string  // of the image, as linux/amd64; nil: not known
}

// Source is how the digest of a tag was learnt.
type Source string

// The sources.
const (
	ByPull     Source = "pull"     // a client has pulled the tag
	ByCheck    Source = "check"    // a check of an older copy
	ByWebhook  Source = "webhook"  // a check after the registry had reported a push
	ByWarm     Source = "warm"     // a pull ahead of time
	BySchedule Source = "schedule" // a pull at a time that the configuration sets
)

// Standing is how it is known that content belongs to a repository: that decides to which clients it may be served.
type Standing int

// The standings, from the weakest to the strongest.
const (
	// Unknown: there is no record of the content in this repository.
	Unknown Standing = iota
	// Named: a manifest of the repository refers to it. The manifest's publisher says so, which does not prove that the
	// repository has the content.
	Named
	// ShownByLogin: the repository's registry has shown the content there, to a login of ours or under the rules.
	ShownByLogin
	// ShownToAll: the repository's registry has shown the content there to a request without a login.
	ShownToAll
)

// Member is the record of content in one repository.
type Member struct {
	oci.Descriptor // Size is -1 where it is not known
	Standing       Standing
	// Manifest reports that the registry has sent the content as a manifest of this repository. Otherwise the media type
	// is that of a descriptor that names it, or empty.
	Manifest bool
	// Seen is when the registry has last shown the content there to a login, to the hour; long ago: it has not, or it is not known.
	Seen time.Time
	// Repository is the record of the repository; zero: it can't be read.
	Repository Repository
}

// Repository is when a registry last showed a repository to a request without a login, and when it last refused that.
// A zero time means never, or not known.
type Repository struct {
	Shown   time.Time
	Refused time.Time
}
