package pull

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Who has looked for a word and found none must be able to tell, when one is there, that it came since. Else it asks the
// upstream a second time.
func TestWordIsNotOlderThanALookBeforeIt(t *testing.T) {
	t.Parallel()
	ref := oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "library/app"}, Tag: "1"}
	for range 100 {
		w := newWords()
		begun, put := make(chan struct{}), make(chan word)
		w.mu.Lock()
		go func() {
			close(begun)
			put <- w.put(1, ref, oci.Descriptor{Digest: "sha256:00"})
		}()
		<-begun
		for range 10 {
			runtime.Gosched() // until it waits for the lock, most likely
		}
		since := time.Now() // a request begins, looks under the lock, and finds nothing
		w.mu.Unlock()
		if at := (<-put).at; at.Before(since) {
			t.Fatalf("the word is %v older than a look that did not find it", since.Sub(at))
		}
	}
}

// Tags that move again and again fill the memory of what they have meant: the oldest goes, and its index with it.
func TestMeaningsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWords()
	repo := oci.Repo{Host: "docker.io", Name: "library/app"}
	const over = 1000
	for i := range maxWords + over {
		w.put(1, oci.Ref{Repo: repo, Tag: fmt.Sprint("t", i%7)}, oci.Descriptor{Digest: digestOf(i)})
	}
	indexed := 0
	for _, tags := range w.tags {
		indexed += len(tags)
	}
	if n := w.meant.order.Len(); n != maxWords || indexed != maxWords || len(w.tags) != maxWords {
		t.Errorf("%d meanings, %d tags of %d digests are remembered, want %d", n, indexed, len(w.tags), maxWords)
	}
	for i, want := range map[int]int{0: 0, over - 1: 0, over: 1, maxWords + over - 1: 1} {
		if got := w.meaning(1, repo, digestOf(i)); len(got) != want {
			t.Errorf("meaning %d: %v", i, got)
		}
	}
	w.forget(repo)
	if n := w.known.order.Len() + w.meant.order.Len() + len(w.tags); n != 0 {
		t.Errorf("%d are left", n)
	}
}
