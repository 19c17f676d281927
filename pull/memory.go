package pull

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// maxFailures is how many failures are remembered at once.
const maxFailures = 10_000

// failures remembers for seconds an upstream's refusals, so that a follow-up request gets the same answer and a herd
// does not ask again.
type failures struct {
	known *bounded.LRU[key, failure]
}

// key identifies a question to an upstream. HEAD and GET share it. The kind is part of it since clients look for a digest
// first among manifests and then among blobs.
type key struct {
	site uint64 // generation: an upstream that was reconfigured starts afresh
	kind oci.Kind
	repo oci.Repo
	what string // tag, digest, or a list's query
}

// String is the key for calls. No part can hold a space.
func (k key) String() string {
	return fmt.Sprintf("%d %d %s %s %s", k.site, k.kind, k.repo.Host, k.repo.Name, k.what)
}

// byDigest reports whether the key is that of content, as against a tag or a list, which come and go.
func (k key) byDigest() bool {
	return (k.kind == oci.KindManifest || k.kind == oci.KindBlob) && strings.Contains(k.what, ":")
}

type failure struct {
	err       error
	at, until time.Time
	wrong     bool // the bytes had another digest or size
}

func newFailures() *failures {
	return &failures{known: bounded.NewLRU(bounded.Options[key, failure]{Budget: maxFailures})}
}

// get returns the error, or nil. Its RetryAfter counts from now.
func (f *failures) get(k key) error {
	v, ok := f.known.Get(k)
	now := time.Now()
	if !ok || !now.Before(v.until) {
		return nil
	}
	e, ok := errors.AsType[*fault.Error](v.err)
	if !ok || e.RetryAfter == 0 || !now.After(v.at) {
		return v.err
	}
	later := *e
	later.RetryAfter = max(e.RetryAfter-now.Sub(v.at), time.Second)
	return &later
}

// put remembers err for a time that depends on its kind. Content with wrong bytes is fetched once more, since that is mostly
// an accident: a blob at once, as clients go on where they stopped. When it is wrong again soon after, the upstream is not
// asked for it for a while: a layer may have gigabytes.
func (f *failures) put(k key, err error) {
	d := remembered(err, k.byDigest() || catalog.IsArtifactTag(k.what))
	if d <= 0 {
		return
	}
	now := time.Now()
	v := failure{err: err, at: now, until: now.Add(d)}
	if wrongContent(err) {
		last, known := f.known.Get(k)
		e, flown := errors.AsType[*flight.MismatchError](err)
		before, _ := errors.AsType[*flight.MismatchError](last.err)
		switch {
		case flown && e == before:
			return // another reader of the same download has reported it
		case known && last.wrong && now.Sub(last.at) < memoryWrong:
		case flown:
			v.until = now
		default:
			v.until = now.Add(memoryBroken)
		}
		v.wrong = true
	}
	f.known.Put(k, v, 1)
}

// clear forgets one failure: the upstream has answered since.
func (f *failures) clear(k key) { f.known.Remove(k) }

// shown is clear after an answer without content, or at the beginning of a download, which other clients can join: neither says that
// the bytes are right by now.
func (f *failures) shown(k key) {
	if v, ok := f.known.Get(k); ok && !v.wrong {
		f.clear(k)
	}
}

// forgetAll clears everything.
func (f *failures) forgetAll() { f.known.RemoveIf(func(key) bool { return true }) }

// forget clears what is remembered of a repository.
func (f *failures) forget(repo oci.Repo) {
	f.known.RemoveIf(func(k key) bool { return k.repo == repo })
}
