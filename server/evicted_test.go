package server_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/internal/origin"
)

// Content of two repositories is stored once. A change of one repository does not affect the other.
func TestBlobOfTwoRepositories(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	spec := origin.Image{Seed: 5, Layers: []int64{300 << 10}}
	layer := w.hub.AddImage("library/a", "1", spec).Layers[0][0]
	if same := w.hub.AddImage("library/b", "1", spec).Layers[0][0]; same.Digest != layer.Digest {
		t.Fatal("two images of the same seed differ")
	}
	content := func(repo string, status int) {
		t.Helper()
		res, b := w.do(t, "GET", "/v2/"+repo+"/blobs/"+layer.Digest.String())
		if res.StatusCode != status || status == 200 && sum(b) != layer.Digest {
			t.Errorf("%s: %s, %d bytes, want %d", repo, res.Status, len(b), status)
		}
	}
	for _, repo := range []string{"a", "b"} {
		if res, _ := w.do(t, "GET", "/v2/"+repo+"/manifests/1"); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
		content(repo, 200)
	}
	if n := w.hub.Bytes(layer.Digest); n != layer.Size {
		t.Errorf("%d bytes came of a blob of %d", n, layer.Size)
	}
	w.hub.DeleteTag("library/a", "1")
	w.hub.Delete("library/a", layer.Digest)
	if res, _ := w.do(t, "GET", "/v2/a/manifests/1"); res.StatusCode != 404 && res.StatusCode != 200 {
		t.Error(res.Status)
	}
	content("b", 200)
	w.hub.Down()
	content("b", 200)
	content("c", 502) // it is not known to have the content
}

// Stored content may be removed between the decision and the answer. No 200 is sent before its file is open: it is fetched
// again, or, with the upstream down, the client gets that error.
func TestNoAnswerBeforeTheFileIsOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	w := newWire(t, wired{store: store})
	layer := w.hub.AddImage("library/app", "1", origin.Image{Layers: []int64{6 << 20}}).Layers[0][0].Digest
	if res, _ := w.do(t, "GET", "/v2/app/manifests/1"); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	path := "/v2/app/blobs/" + layer.String()
	for range 3 {
		if res, b := w.do(t, "GET", path); res.StatusCode != 200 || sum(b) != layer {
			t.Fatalf("%s, %d bytes", res.Status, len(b))
		}
		// The client may have the last byte a moment before the cache has committed the blob.
		hit := false
		for i := 0; i < 1000 && !hit; i++ {
			res, _ := w.do(t, "GET", path, "Range", "bytes=0-0")
			hit = res.Header.Get("Cache-Status") == "mirror; hit"
		}
		if !hit {
			t.Fatal("the blob is not served from the cache after a whole pull")
		}
		// As an eviction would, but without the cache's knowledge.
		if err := os.Remove(filepath.Join(dir, "blobs", "sha256", layer.Encoded()[:2], layer.Encoded())); err != nil {
			t.Fatal(err)
		}
		w.hub.Down()
		for _, rng := range []string{"", "bytes=5-"} {
			res, b := w.do(t, "GET", path, "Range", rng)
			if res.StatusCode != 502 || res.Header.Get("Mirror-Reason") == "" || len(b) == 0 {
				t.Errorf("%q, with the upstream down: %s, %d bytes", rng, res.Status, len(b))
			}
		}
		w.hub.Up()
		w.puller.Use(w.setup) // forgets the failure
	}
}
