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
// digest, and then nothing in its request says which tag it had come by.
type words struct {
	mu    sync.Mutex // guards what follows
	known *lru[oci.Ref, word]
	tags  map[oci.Ref]map[string]struct{} // by repository and digest: the tags that mean it by their last word
}

func newWords() *words {
	w := &words{known: newLRU[oci.Ref, word](maxWords), tags: make(map[oci.Ref]map[string]struct{})}
	w.known.gone = func(ref oci.Ref, v word) {
		at := oci.Ref{Repo: ref.Repo, Digest: v.desc.Digest}
		delete(w.tags[at], ref.Tag)
		if len(w.tags[at]) == 0 {
			delete(w.tags, at)
		}
	}
	return w
}

// get returns the last word on a tag.
func (w *words) get(ref oci.Ref) (word, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known.get(ref)
}

// put remembers a word. Its time is taken under the lock: who has looked before and found nothing has begun before it,
// and so can take the word for an answer to what it was about to ask.
func (w *words) put(ref oci.Ref, desc oci.Descriptor) word {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := word{desc: desc, at: time.Now()}
	w.known.put(ref, v, 1)
	at := oci.Ref{Repo: ref.Repo, Digest: v.desc.Digest}
	if w.tags[at] == nil {
		w.tags[at] = make(map[string]struct{})
	}
	w.tags[at][ref.Tag] = struct{}{}
	return v
}

// meaning returns the tags that mean a digest by their last word.
func (w *words) meaning(repo oci.Repo, d oci.Digest) []oci.Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	var refs []oci.Ref
	for tag := range w.tags[oci.Ref{Repo: repo, Digest: d}] {
		refs = append(refs, oci.Ref{Repo: repo, Tag: tag})
	}
	return refs
}

// forget drops the words on a repository's tags.
func (w *words) forget(repo oci.Repo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known.removeIf(func(ref oci.Ref) bool { return ref.Repo == repo })
}
