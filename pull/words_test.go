package pull

import (
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
