package pull_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
)

// Leases remember a bounded number of digests, and none of leases that have ended; parts that many manifests share end in time.
func TestLeasesAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	defer w.stop()
	begin := time.Now()
	if leased, found := pull.Lease(w.Puller, 600, 1000, true, true); leased != 0 || found != 0 {
		t.Errorf("%d digests are leased, %d remembered, once all is over", leased, found)
	}
	t.Logf("600 leases of 1000 shared digests took %s", time.Since(begin))
	leased, found := pull.Lease(w.Puller, 600, 1000, false, false)
	if leased > pull.MaxLeased || found > pull.MaxLeased || found < pull.MaxLeased*9/10 {
		t.Errorf("%d digests are leased, %d remembered, at most %d", leased, found, pull.MaxLeased)
	}
	if leased, found := pull.Lease(w.Puller, 0, 0, false, true); leased != 0 || found != 0 {
		t.Errorf("%d digests are leased, %d remembered, once all is over", leased, found)
	}
}

// Lists are remembered up to so many bytes: the oldest go.
func TestListsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		doc := append([]byte(`{"tags":["`), append(bytes.Repeat([]byte("x"), 1<<20), []byte(`"]}`)...)...)
		repo := func(i int) string { return fmt.Sprint("acme/app", i) }
		for i := range 20 {
			w.hub.lists[repo(i)] = &upstream.Document{Bytes: doc, MediaType: "application/json"}
			if _, err := w.Tags(t.Context(), askTags(repo(i), nil)); err != nil {
				t.Fatal(err)
			}
		}
		w.hub.asked()
		for i, asked := range map[int]bool{19: false, 6: false, 0: true} {
			if _, err := w.Tags(t.Context(), askTags(repo(i), nil)); err != nil {
				t.Fatal(err)
			}
			if got := len(w.hub.asked()) > 0; got != asked {
				t.Errorf("list %d: asked %t, want %t", i, got, asked)
			}
		}
	})
}
