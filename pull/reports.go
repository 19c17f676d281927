package pull

import (
	"sync"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/oci"
)

// maxReports is how many tags' last reports are remembered, and how many digests that tags have meant.
const maxReports = 10_000

// report is what an upstream last said a tag means.
type report struct {
	desc  oci.Descriptor // digest; size and media type where the upstream gave them
	first time.Time      // when a report first said this digest, without another one since
	at    time.Time      // when it was put here; or when it was asked for, if it may be older than what was said of the tag since
	by    catalog.Source // what caused the first of these
}

// reports remembers the last report on each tag, in memory: its descriptor answers a HEAD, and the catalog's record may be missing
// since it can't be written. A client that asks by HEAD for a tag comes for the manifest by digest, and then nothing in its request
// names the tag whose record the manifest completes. It may be slow: by then the upstream may have reported another
// digest, so the digests that a tag has meant are remembered beside the last one. A report is of the site that was asked:
// another generation of it may have other rights.
type reports struct {
	mu   sync.Mutex                      // guards what follows
	last *bounded.LRU[siteRef, report]   // by repository and tag
	seen *bounded.LRU[siteRef, report]   // by repository, tag and digest: the upstream's last report of that
	tags map[siteRef]map[string]struct{} // by repository and digest: the tags in seen
}

// siteRef is a reference at one generation of a site.
type siteRef struct {
	site uint64
	oci.Ref
}

func newReports() *reports {
	r := &reports{tags: make(map[siteRef]map[string]struct{})}
	r.last = bounded.NewLRU(bounded.Options[siteRef, report]{Budget: maxReports})
	r.seen = bounded.NewLRU(bounded.Options[siteRef, report]{Budget: maxReports, Gone: r.unindex})
	return r
}

// unindex takes a tag off the tags of its digest. The lock is held.
func (r *reports) unindex(ref siteRef, _ report) {
	at := siteRef{ref.site, oci.Ref{Repo: ref.Repo, Digest: ref.Digest}}
	delete(r.tags[at], ref.Tag)
	if len(r.tags[at]) == 0 {
		delete(r.tags, at)
	}
}

// get returns the last report on a tag.
func (r *reports) get(site uint64, ref oci.Ref) (report, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.Get(siteRef{site, ref})
}

// put remembers a report. Its time, unless it is given, is taken under the lock: a request that has looked before and found
// nothing has begun before it, and so can take the report for an answer to its own question.
func (r *reports) put(site uint64, ref oci.Ref, desc oci.Descriptor, at time.Time, by catalog.Source) report {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if at.IsZero() {
		at = now
	}
	v := report{desc: desc, first: now, at: at, by: by}
	if last, ok := r.last.Get(siteRef{site, ref}); ok && last.desc.Digest == desc.Digest {
		v.first, v.by = last.first, last.by
	}
	r.last.Put(siteRef{site, ref}, v, 1)
	ref.Digest = v.desc.Digest
	r.seen.Put(siteRef{site, ref}, v, 1)
	of := siteRef{site, oci.Ref{Repo: ref.Repo, Digest: ref.Digest}}
	if r.tags[of] == nil {
		r.tags[of] = make(map[string]struct{})
	}
	r.tags[of][ref.Tag] = struct{}{}
	return v
}

// of returns the tags that mean or have meant a digest, each with the report of that.
func (r *reports) of(site uint64, repo oci.Repo, d oci.Digest) map[oci.Ref]report {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := make(map[oci.Ref]report)
	for tag := range r.tags[siteRef{site, oci.Ref{Repo: repo, Digest: d}}] {
		if v, ok := r.seen.Get(siteRef{site, oci.Ref{Repo: repo, Tag: tag, Digest: d}}); ok {
			found[oci.Ref{Repo: repo, Tag: tag}] = v
		}
	}
	return found
}

// forget drops the reports on a repository's tags.
func (r *reports) forget(repo oci.Repo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	match := func(ref siteRef) bool { return ref.Repo == repo }
	r.last.RemoveIf(match)
	r.seen.RemoveIf(match)
}
