package cache

import (
	"errors"
	"io/fs"
	"iter"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// ErrNotFound says that content is not in the store.
var ErrNotFound = errors.New("not in the cache")

// ErrReset says that an index was found damaged while it was written to, and that only the last batch is recorded. The
// caller records everything again.
var ErrReset = errors.New("the index was damaged and is started again")

type (
	// Object is what readers read, stored or arriving.
	Object = flight.Object
	// Spool is content while it arrives.
	Spool = flight.Spool
	// Source is where the bytes of content that is not here come from.
	Source = flight.Source
)

// CloseNotifier is implemented by objects that report their Close, so that the cache knows what is in use without wrapping
// them.
type CloseNotifier interface {
	// OnClose has f called once, by the first Close. At most one f; before the object is handed on.
	OnClose(f func())
}

// Stater is implemented by objects that are files, so that the cache can tell one from another of the same digest.
type Stater interface {
	// Stat is that of os.File.
	Stat() (fs.FileInfo, error)
}

// Space is the space of a file system, for the user that the mirror runs as. A total of zero: not known.
type Space struct {
	Free, Total           int64 // bytes
	FreeInodes, AllInodes int64 // files that can still be made, and that there can be
}

// Entry is one piece of content in a store.
type Entry struct {
	Digest oci.Digest
	Size   int64 // bytes as stored
}

// Store keeps content by digest. It is local. All methods are safe for concurrent use.
type Store interface {
	// Open returns the content, or ErrNotFound. Its size is that of the file at this moment.
	Open(d oci.Digest) (Object, error)
	// Create makes a spool for a blob of size bytes, -1 where the size is not known. Content is not visible until
	// Commit.
	Create(size int64) (Spool, error)
	// Remove removes the content. Open objects stay readable. To remove content that is not there is not an error.
	Remove(d oci.Digest) error
	// All yields every piece of content, in no order.
	All() iter.Seq2[Entry, error]
	// Resume returns the unfinished downloads of the process before, each once. The caller discards the spools that it does
	// not continue.
	Resume() []Unfinished
	// Check returns why nothing can be stored, nil where that is not known without a write.
	Check() error
}

// Unfinished is a download that the process before did not finish.
type Unfinished struct {
	flight.Rest
	Spool Spool
}

// Access is when content was last used, to the minute.
type Access struct {
	Digest oci.Digest
	Size   int64
	Used   time.Time
}

// Index remembers recency over a restart. It is disposable: without it the cache serves the same bytes, and its eviction is
// less exact. Safe for concurrent use.
type Index interface {
	// Load returns what is recorded.
	Load() (map[oci.Digest]Access, error)
	// Write records removals, and accesses, in this order. ErrReset in its error says that earlier records are lost.
	Write(used []Access, removed []oci.Digest) error
}

// Outcome is how an Open was answered.
type Outcome string

// The outcomes of Cache.Open.
const (
	Hit      Outcome = "hit"      // whole and on disk
	Miss     Outcome = "miss"     // this call started the download
	Joined   Outcome = "joined"   // a download was running or parked, this call joined it
	Uncached Outcome = "uncached" // straight from the source: larger than the cache, or no disk
)
