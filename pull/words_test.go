package pull

import (
	"sync"
	"testing"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Who has looked for a word and found none must be able to tell, when one is there, that it came since. Else it asks the
// upstream a second time.
func TestWordIsNotOlderThanALookBeforeIt(t *testing.T) {
	t.Parallel()
	ref := oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "library/app"}, Tag: "1"}
	for range 2000 {
		w := newWords()
		var wg sync.WaitGroup
		var since time.Time
		var found bool
		wg.Go(func() {
			since = time.Now()
			_, found = w.get(ref)
		})
		put := w.put(ref, oci.Descriptor{Digest: "sha256:00"})
		wg.Wait()
		if !found && put.at.Before(since) {
			t.Fatalf("a look that began %v after the word did not find it", since.Sub(put.at))
		}
	}
}
