package pull_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// A registry that sends other bytes, and says that they are packed, has not shown the blob: one that is private elsewhere
// is not served through its repository.
func TestPackedBytesShowNothing(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{})
	im := c.hub.AddImage(secret, "1", origin.Image{})
	poison(t, c.ghcr, im)
	c.goBy(byRules)
	if _, err := c.Manifest(t.Context(), ask(evil, "image")); err != nil {
		t.Fatal(err)
	}
	layer := im.Layers[0][0]
	c.ghcr.Script(origin.Rule{Repo: "mallory/evil", Times: 1, Do: origin.Fault{
		Status: 200, Body: strings.Repeat("x", int(layer.Size)), Header: http.Header{"Content-Encoding": {"gzip"}},
	}})
	b, err := c.Blob(t.Context(), askBlob(evil, layer.Digest))
	if err == nil {
		if err = b.Ready(t.Context(), 0, layer.Size); err == nil {
			_, err = io.ReadFull(io.NewSectionReader(b.Object, 0, layer.Size), make([]byte, layer.Size))
		}
		_ = b.Close()
	}
	if e, ok := errors.AsType[*fault.ContentError](err); !ok || e.Kind != fault.ContentEncoding {
		t.Fatalf("packed bytes: %v", err)
	}
	// A client that joins the download before its wrong bytes are gone meets them at the end, once.
	for range 3 {
		b, err := c.Blob(t.Context(), askBlob(secret, layer.Digest))
		if err == nil {
			err = b.Ready(t.Context(), 0, layer.Size)
			_ = b.Close()
		}
		if _, joined := errors.AsType[*flight.MismatchError](err); !joined {
			break
		}
	}
	c.pullImage(t, secret, "1", im)
	for what, err := range c.takes(t, evil, layer.Digest) {
		if !refused(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The empty config that an upstream lacks says nothing of its repository: one that is closed meanwhile stays so.
func TestEmptyConfigShowsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		desc := descriptor("application/vnd.oci.empty.v1+json", []byte("{}"))
		m := document(t, oci.MediaTypeOCIManifest, map[string]any{"config": desc, "layers": []oci.Descriptor{desc}})
		w.hub.manifests[app+"@"+m.Digest.String()] = m
		w.get(ask(app, m.Digest.String()))
		repo := oci.Repo{Host: hub, Name: app}
		before, err := w.books.Member(repo, m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(policy.StaleIfError - time.Minute)
		w.blob(t, askBlob(app, desc.Digest), []byte("{}"))
		w.shelf.source.Whole(2, true)
		time.Sleep(time.Second)
		if after, err := w.books.Member(repo, m.Digest); err != nil || !after.Repository.Shown.Equal(before.Repository.Shown) {
			t.Errorf("shown at %v, before at %v; %v", after.Repository.Shown, before.Repository.Shown, err)
		}
		w.shelf.mu.Lock()
		delete(w.shelf.content, desc.Digest)
		w.shelf.mu.Unlock()
		time.Sleep(2 * time.Minute)
		w.hub.behave(status(404), nil)
		for _, a := range []bool{true, false} {
			q := askBlob(app, desc.Digest)
			q.Request.Head = a
			if _, err := w.Blob(t.Context(), q); !a && !status404(err) {
				t.Errorf("head %t: %v", a, err)
			}
		}
	})
}
