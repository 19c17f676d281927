package pull

import (
	"sync"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// maxWords is how many tags' last words are remembered.
const maxWords = 10_000

// word is what an upstream last said a tag means.
type word struct {
	desc oci.Descriptor // digest; size and media type where it said them
	at   time.Time      // when it was put here
}

// words remembers the last word on each tag, in memory. The catalog's record lags behind it on purpose: a client that
// asks by HEAD for a tag wants no manifest yet, and without the bytes the tag can't be recorded. It comes for them by
// digest, and then nothing in its request says which tag it had come by. A word is of the site that was asked: another
// generation of it may have other rights.
type words struct {
	mu    sync.Mutex // guards what follows
	known *lru[siteRef, word]
	tags  map[siteRef]map[string]struct{} // by repository and digest: the tags that mean it by their last word
}

// siteRef is a reference at one generation of a site.
type siteRef struct {
	site uint64
	oci.Ref
}

func newWords() *words {
	w := &words{known: newLRU[siteRef, word](maxWords), tags: make(map[siteRef]map[string]struct{})}
	w.known.gone = func(ref siteRef, v word) {
		at := siteRef{ref.site, oci.Ref{Repo: ref.Repo, Digest: v.desc.Digest}}
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
	at := siteRef{site, oci.Ref{Repo: ref.Repo, Digest: v.desc.Digest}}
	if w.tags[at] == nil {
		w.tags[at] = make(map[string]struct{})
	}
	w.tags[at][ref.Tag] = struct{}{}
	return v
}

// meaning returns the tags that mean a digest by their last word.
func (w *words) meaning(site uint64, repo oci.Repo, d oci.Digest) []oci.Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	var refs []oci.Ref
	for tag := range w.tags[siteRef{site, oci.Ref{Repo: repo, Digest: d}}] {
		refs = append(refs, oci.Ref{Repo: repo, Tag: tag})
	}
	return refs
}

// forget drops the words on a repository's tags.
func (w *words) forget(repo oci.Repo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known.removeIf(func(ref siteRef) bool { return ref.Repo == repo })
}
