package warm

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
)

// State is that of a job, and of an image in it.
type State string

// The states. The last three are final. A job has failed if one of its images has; the others are done then.
const (
	Queued    State = "queued"
	Running   State = "running"
	Done      State = "done"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// Over reports whether the state is final.
func (s State) Over() bool { return s == Done || s == Failed || s == Cancelled }

// What Request.With names.
const (
	Signatures = "signatures" // the tags of cosign: sha256-….sig, .att and .sbom
	Referrers  = "referrers"  // what the registry lists as referrers of the image
)

// Request says which images are to be here.
type Request struct {
	Images []string // as people write them
	// Platforms are OS/ARCH or OS/ARCH/VARIANT; an image that lacks one of them fails, and one without an index that is
	// built for none of them. Empty: those of the nodes, and an image fails only if its index has none of them.
	Platforms []string
	Keep      time.Duration  // how long the content is kept from eviction, from the end of the job on; 0: Limits.Keep
	With      []string       // Signatures, Referrers
	Fresh     bool           // the registry is asked what a tag means, as pull.FetchOptions has it
	MaxSize   int64          // bytes; a larger job is refused; 0: Limits.MaxBytes alone counts
	By        catalog.Source // for the ledger of the tags; empty: catalog.ByWarm
	Name      string         // of the schedule or feed that asks; empty: the API
	Key       string         // the same key with the same request is the same job; empty: each request is a new one
}

// Job is a job at one moment.
type Job struct {
	ID        string
	Name      string         // as in the request
	By        catalog.Source // as in the request
	State     State
	Revision  int64 // grows with each change, over restarts too
	Platforms []string
	Keep      time.Duration
	With      []string

	CreatedAt  time.Time
	StartedAt  time.Time // zero: it is queued
	FinishedAt time.Time // zero: it is not over

	// Bytes of the images' distinct content, as far as their manifests are known: that is here, BytesCached of it before the job
	// began; and in all.
	BytesDone, BytesCached, BytesTotal int64

	Waiting *Waiting // why nothing moves; nil: it moves, or is over
	Images  []Image
}

// Image is an image of a job at one moment.
type Image struct {
	Image     string // canonical, as it was asked for
	State     State
	Digest    oci.Digest // empty: not known yet
	Platforms []string   // of the manifests that are fetched; empty for an image without an index
	// Bytes as in Job, of this image; what images share counts for each of them.
	BytesDone, BytesCached, BytesTotal int64
	Complete                           bool      // all that nodes of the platforms ask for is here; as long as it is kept, that is looked at
	KeptUntil                          time.Time // zero: it is not kept
	Failure                            *Failure  // nil: it has not failed
}

// Failure is why an image was not brought. The same failure of a client's pull has the same ID.
type Failure struct {
	ID      string
	Reason  diagnose.Reason
	Class   diagnose.Class
	Summary string
	Remedy  string
}

// The codes of Waiting.
const (
	WaitRateWindow   = "rate-window"   // the registry's limit, or the part of it that is reserved for pulls
	WaitUpstreamDown = "upstream-down" // the registry does not answer as it should
	WaitDisk         = "disk"          // the cache has no room at the moment
	WaitLivePulls    = "live-pulls"    // pulls of clients use the transfers of the registry
	WaitOtherJobs    = "other-jobs"    // warm.parallel downloads of other jobs are under way
)

// Waiting is why nothing of a job moves.
type Waiting struct {
	Code  string
	Text  string    // a sentence
	Until time.Time // when it is tried again; zero: not known
}

// Limits are the quotas of an Engine.
type Limits struct {
	MaxJobs   int           // that are not over; 0: 200
	MaxImages int           // of all jobs that are not over; 0: 10,000
	MaxBytes  int64         // of one job; 0: no limit but MaxShare
	MaxShare  float64       // the part of the cache, 0 to 1, that jobs keep at most, all together; 0: one half
	Parallel  int           // blobs that are fetched at once, and manifest trees beside them; 0: 8
	Keep      time.Duration // of a request that says nothing; 0: 72 h
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&l.MaxJobs, 200)
	set(&l.MaxImages, 10_000)
	set(&l.Parallel, 8)
	if l.MaxShare == 0 {
		l.MaxShare = 0.5
	}
	if l.Keep == 0 {
		l.Keep = 72 * time.Hour
	}
	return l
}

// ErrUnknown says that there is no job with an id.
var ErrUnknown = errors.New("no such job")

// InvalidError says which entries of a request are wrong.
type InvalidError struct{ Entries []Entry }

// Entry is one that is wrong.
type Entry struct {
	Index int    // in Request.Images; -1: it is not an image
	Image string // as it was written
	Text  string // what is wrong, and what to write
}

func (e *InvalidError) Error() string {
	texts := make([]string, len(e.Entries))
	for i, entry := range e.Entries {
		texts[i] = entry.Text
		if entry.Index >= 0 {
			texts[i] = fmt.Sprintf("images[%d]: %s", entry.Index, entry.Text)
		}
	}
	return strings.Join(texts, "\n")
}

// QuotaError says that a request would exceed a quota.
type QuotaError struct {
	Setting string // "warm.maxJobs", "warm.maxImages"
	Limit   int
	Have    int // of jobs that are not over
	Asked   int
}

func (e *QuotaError) Error() string {
	what := strings.ToLower(strings.TrimPrefix(e.Setting, "warm.max"))
	asked := fmt.Sprintf("%d %s are", e.Asked, what)
	if e.Asked == 1 {
		asked = "1 " + strings.TrimSuffix(what, "s") + " is"
	}
	return fmt.Sprintf("%s asked for beside %d not over yet, and %s is %d; wait for some to end, cancel a job (mirror warm cancel JOB), or raise %s",
		asked, e.Have, e.Setting, e.Limit, e.Setting)
}

// KeyUsedError says that an idempotency key belongs to another request.
type KeyUsedError struct {
	Key string
	ID  string // of the job that has it
}

func (e *KeyUsedError) Error() string {
	return fmt.Sprintf("the Idempotency-Key %q belongs to job %s, which had another body; use a new key", e.Key, e.ID)
}

// The limits that a TooLargeError names.
const (
	LimitRequest = "max-size"      // of the request
	LimitBytes   = "warm.maxBytes" // of one job
	LimitShare   = "warm.maxShare" // of all that jobs keep
	LimitCache   = "cache.size"    // of everything
	LimitInUse   = "in use"        // what is left of cache.size beside content that is kept or in use
	LimitDisk    = "disk"          // what is free, and what may be evicted
)

// TooLargeError says that the content of a request has no room, in numbers.
type TooLargeError struct {
	Limit string // which one is exceeded
	Bytes int64  // that are needed: for LimitDisk those that are not here, for LimitShare those that no job keeps yet, else all
	Room  int64  // that there are
	Kept  int64  // that jobs keep already; for LimitShare and LimitInUse
	InUse int64  // of content that pods use; for LimitInUse
	Share int64  // the share in bytes; for LimitShare
	Size  int64  // cache.size
}

func (e *TooLargeError) Error() string { return e.summary() + "; " + e.remedy() }

func (e *TooLargeError) summary() string {
	switch e.Limit {
	case LimitRequest, LimitBytes:
		return fmt.Sprintf("%s are needed, and %s is %s", text.Size(e.Bytes), e.Limit, text.Size(e.Room))
	case LimitShare:
		return fmt.Sprintf("%s are needed, and warm.maxShare lets jobs keep %s of the cache, of which %s are kept already",
			text.Size(e.Bytes), text.Size(e.Share), text.Size(e.Kept))
	case LimitInUse:
		return fmt.Sprintf("%s are needed, and of cache.size, %s, jobs keep %s and pods use %s, which is not evicted for a job",
			text.Size(e.Bytes), text.Size(e.Size), text.Size(e.Kept), text.Size(e.InUse))
	case LimitDisk:
		return fmt.Sprintf("%s are needed, and the disk of the cache has room for %s", text.Size(e.Bytes), text.Size(e.Room))
	}
	return fmt.Sprintf("%s are needed, and cache.size is %s", text.Size(e.Bytes), text.Size(e.Size))
}

func (e *TooLargeError) remedy() string {
	switch e.Limit {
	case LimitRequest:
		return "ask for fewer images or platforms, or allow a larger size"
	case LimitBytes:
		return "ask for fewer images or platforms, or raise warm.maxBytes"
	case LimitShare:
		return "ask for fewer images or platforms, cancel a job, or raise warm.maxShare or cache.size"
	case LimitDisk:
		return "free space on the disk of cache.dir, or ask for fewer images or platforms"
	}
	return "ask for fewer images or platforms, or raise cache.size"
}

// finding is the error as the failure of an image.
func (e *TooLargeError) finding() diagnose.Finding {
	return diagnose.New(diagnose.NoRoom, e.summary(), e.remedy()).Finding
}
