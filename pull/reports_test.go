package pull

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
)

// A request that has looked for a report and found none must be able to tell, when there is one, that it came since. Else it
// asks the upstream a second time.
func TestReportIsNotOlderThanALookBeforeIt(t *testing.T) {
	t.Parallel()
	ref := oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "library/app"}, Tag: "1"}
	for range 100 {
		r := newReports()
		begun, put := make(chan struct{}), make(chan report)
		r.mu.Lock()
		go func() {
			close(begun)
			put <- r.put(1, ref, oci.Descriptor{Digest: "sha256:00"}, time.Time{}, catalog.ByPull)
		}()
		<-begun
		for range 10 {
			runtime.Gosched() // until it waits for the lock, most likely
		}
		since := time.Now() // a request begins, looks under the lock, and finds nothing
		r.mu.Unlock()
		if at := (<-put).at; at.Before(since) {
			t.Fatalf("the report is %v older than a look that did not find it", since.Sub(at))
		}
	}
}

// Tags that move again and again fill the memory of what they have meant: the oldest goes, and its index with it.
func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	r := newReports()
	repo := oci.Repo{Host: "docker.io", Name: "library/app"}
	const over = 1000
	for i := range maxReports + over {
		r.put(1, oci.Ref{Repo: repo, Tag: fmt.Sprint("t", i%7)}, oci.Descriptor{Digest: digestOf(i)}, time.Time{}, catalog.ByPull)
	}
	indexed := 0
	for _, tags := range r.tags {
		indexed += len(tags)
	}
	if n := r.seen.Len(); n != maxReports || indexed != maxReports || len(r.tags) != maxReports {
		t.Errorf("%d reports, %d tags of %d digests are remembered, want %d", n, indexed, len(r.tags), maxReports)
	}
	for i, want := range map[int]int{0: 0, over - 1: 0, over: 1, maxReports + over - 1: 1} {
		if got := r.of(1, repo, digestOf(i)); len(got) != want {
			t.Errorf("report %d: %v", i, got)
		}
	}
	r.forget(repo)
	if n := r.last.Len() + r.seen.Len() + len(r.tags); n != 0 {
		t.Errorf("%d are left", n)
	}
}
