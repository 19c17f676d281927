package pull_test

import (
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// references is how many are recorded of a repository.
func (w *world) references(repo string) (n int) {
	w.t.Helper()
	for it, err := range w.tables[1].Scan("") {
		if err != nil {
			w.t.Fatal(err)
		}
		if strings.HasPrefix(it.Key, hub+"/"+repo+"@sha") {
			n++
		}
	}
	return n
}

// digests is all that an image consists of.
func (im image) digests() []oci.Digest {
	list := []oci.Digest{im.index.Digest}
	for _, m := range im.children {
		list = append(list, m.Digest)
		for _, c := range m.Children {
			list = append(list, c.Digest)
		}
	}
	return list
}

// The records of an image that has left the cache are removed; those of one that is there stay, and it can be pulled while
// its upstream is down. While the cache is still being listed, nothing is removed.
func TestWhatIsGoneIsForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		gone, stays := w.hub.push(t, app, "1", "a"), w.hub.push(t, "acme/stays", "1", "b")
		w.pull(t, app, "1", gone)
		w.pull(t, "acme/stays", "1", stays)
		for _, im := range []image{gone, stays} {
			for d, b := range im.blobs {
				w.shelf.set(d, b)
			}
		}
		known := w.references(app)
		if known != len(gone.digests()) || w.references("acme/stays") != known {
			t.Fatalf("%d references of %d", known, len(gone.digests()))
		}
		w.shelf.mu.Lock()
		w.shelf.unsettled = true
		w.shelf.mu.Unlock()
		w.shelf.evict(gone.digests()...)
		time.Sleep(2 * time.Hour)
		if n := w.references(app); n != known {
			t.Errorf("while the cache is being listed: %d references of %d", n, known)
		}
		w.shelf.mu.Lock()
		w.shelf.unsettled = false
		w.shelf.mu.Unlock()
		time.Sleep(24 * time.Hour)
		if n := w.references(app); n != 0 {
			t.Errorf("%d references of content that is gone", n)
		}
		if n := w.references("acme/stays"); n != known {
			t.Errorf("%d references of %d of content that is there", n, known)
		}

		w.hub.asked()
		w.restart()
		w.hub.behave(status(503), nil)
		for _, d := range stays.digests()[1:] {
			if b, blob := stays.blobs[d]; blob {
				w.blob(t, askBlob("acme/stays", d), b)
			} else {
				w.get(ask("acme/stays", d.String()))
			}
		}
		w.hub.wants(t) // no request was sent
		w.hub.behave(nil, nil)
		w.pull(t, app, "1", gone)
		if n := w.references(app); n != known {
			t.Errorf("pulled again: %d references of %d", n, known)
		}
	})
}
