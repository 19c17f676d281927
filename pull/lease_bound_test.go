package pull_test

import (
	"fmt"
	"testing"

	"github.com/registrymirror/mirror/oci"
)

// However many large manifests are pulled, their leases have a bound; manifests of normal size are leased all the same.
func TestLargeManifestsAreLeasedWithinABound(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for i := range 15 { // of 10,000 parts each
			list := make([]oci.Descriptor, 9_999)
			for n := range list {
				list[n] = oci.Descriptor{Digest: oci.Digest(fmt.Sprintf("sha256:%064x", i*10_000+n)), Size: 1}
			}
			m := document(t, oci.MediaTypeOCIManifest, map[string]any{"layers": list})
			w.hub.manifests[app+"@"+m.Digest.String()] = m
			c := w.get(ask(app, m.Digest.String()))
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		sum := 0
		kept := w.shelf.kept()
		for _, k := range kept {
			sum += k.digests
		}
		if sum > 100_000+10 {
			t.Errorf("%d digests are leased", sum)
		}
		if last := kept[len(kept)-1]; last.holder != im.index.Digest.String() {
			t.Errorf("the last lease is of %s", last.holder)
		}
	})
}
