package pull

import (
	"sync"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// maxWords is how many tags' last words are remembered, and how many meanings of tags.
const maxWords = 10_000

// word is what an upstream last said a tag means.
type word struct {
	desc oci.Descriptor // digest; size and media type where it said them
	at   time.Time      // when it was put here
}

// words remembers the last word on each tag, in memory. The catalog's record lags behind it on purpose: a client that
// asks by HEAD for a tag wants no manifest yet, and without the bytes the tag can't be recorded. It comes for them by
// digest, and then nothing in its request says which tag it had come by. It may be slow: by then the tag may have got
// another word, so what a tag has meant is remembered beside what it means. A word is of the site that was asked: another
// generation of it may have other rights.
type words struct {
	mu    sync.Mutex                      // guards what follows
	known *lru[siteRef, word]             // by repository and tag
	meant *lru[siteRef, time.Time]        // by repository, tag and digest: when the upstream said so last
	tags  map[siteRef]map[string]struct{} // by repository and digest: the tags in meant
}

// siteRef is a reference at one generation of a site.
type siteRef struct {
	site uint64
	oci.Ref
}

func newWords() *words {
	w := &words{
		known: newLRU[siteRef, word](maxWords), meant: newLRU[siteRef, time.Time](maxWords),
		tags: make(map[siteRef]map[string]struct{}),
	}
	w.meant.gone = func(ref siteRef, _ time.Time) {
		at := siteRef{ref.site, oci.Ref{Repo: ref.Repo, Digest: ref.Digest}}
		delete(w.tags[at], ref.Tag)
		if len(w.tags[at]) == 0 {
			delete(w.tags, at)
		}
	}
	return w
}

// get returns the last word on a tag.
func (w *words) get(site uint64, ref oci.Ref) (word, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known.get(siteRef{site, ref})
}

// put remembers a word. Its time is taken under the lock: who has looked before and found nothing has begun before it,
// and so can take the word for an answer to what it was about to ask.
func (w *words) put(site uint64, ref oci.Ref, desc oci.Descriptor) word {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := word{desc: desc, at: time.Now()}
	w.known.put(siteRef{site, ref}, v, 1)
	ref.Digest = v.desc.Digest
	w.meant.put(siteRef{site, ref}, v.at, 1)
	at := siteRef{site, oci.Ref{Repo: ref.Repo, Digest: ref.Digest}}
	if w.tags[at] == nil {
		w.tags[at] = make(map[string]struct{})
	}
	w.tags[at][ref.Tag] = struct{}{}
	return v
}

// meaning returns the tags that mean or have meant a digest, each with its word on that.
func (w *words) meaning(site uint64, repo oci.Repo, d oci.Digest) map[oci.Ref]word {
	w.mu.Lock()
	defer w.mu.Unlock()
	said := make(map[oci.Ref]word)
	for tag := range w.tags[siteRef{site, oci.Ref{Repo: repo, Digest: d}}] {
		if at, ok := w.meant.get(siteRef{site, oci.Ref{Repo: repo, Tag: tag, Digest: d}}); ok {
			said[oci.Ref{Repo: repo, Tag: tag}] = word{desc: oci.Descriptor{Digest: d}, at: at}
		}
	}
	return said
}

// forget drops the words on a repository's tags.
func (w *words) forget(repo oci.Repo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, forget := range []func(func(siteRef) bool){w.known.removeIf, w.meant.removeIf} {
		forget(func(ref siteRef) bool { return ref.Repo == repo })
	}
}
