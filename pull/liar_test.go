package pull_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
)

// A client joins the download of another repository whose registry sends wrong bytes, plainly or in a coding that it claims. No byte
// was sent to the client yet, so it gets the blob from its own registry.
func TestLiarsBlobComesFromAnotherRepository(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]origin.Fault{
		"wrong bytes": {Wrong: true},
		"a coding":    {Wrong: true, Header: http.Header{"Content-Encoding": {"gzip"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, origin.Options{})
			im := c.hub.AddImage(app, "1", twoPlatforms)
			layer := im.Layers[0][0]
			c.ghcr.AddBlob(app, im.Bytes(layer.Digest))
			fault.Gate = origin.NewGate()
			c.ghcr.Script(origin.Rule{Method: http.MethodGet, Ref: layer.Digest.String(), Do: fault})
			open := func(ref string) *pull.Content {
				b, err := c.Blob(t.Context(), askBlob(ref, layer.Digest))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			liar := make(chan error, 1)
			go func() {
				b, err := c.Blob(t.Context(), askBlob("ghcr.io/"+app, layer.Digest))
				if err == nil {
					err = b.Ready(t.Context(), 0, b.Size)
					_ = b.Close()
				}
				liar <- err
			}()
			<-fault.Gate.Arrived()
			b := open(app)
			defer func() { _ = b.Close() }()
			if b.Status.Outcome != cache.Joined {
				t.Errorf("%s, want it to join", b.Status.Outcome)
			}
			fault.Gate.Open()
			if err := b.Ready(t.Context(), 0, b.Size); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(b.Object); err != nil || !bytes.Equal(got, im.Bytes(layer.Digest)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err := <-liar; err == nil {
				t.Error("wrong bytes were served")
			}
		})
	}
}

// A download that another registry's wrong bytes have spoilt while they were sent is not held against a repository: neither
// remembered, nor counted as the first of two times.
func TestLiarsBlobIsNotHeldAgainstAnotherRepository(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{})
	im := c.hub.AddImage(app, "1", twoPlatforms)
	layer := im.Layers[0][0]
	c.ghcr.AddBlob(app, im.Bytes(layer.Digest))
	gate := origin.NewGate()
	c.ghcr.Script(origin.Rule{
		Method: http.MethodGet, Ref: layer.Digest.String(), Do: origin.Fault{Wrong: true, Gate: gate},
	})
	read := func(ref string, began func(cache.Outcome)) error {
		b, err := c.Blob(t.Context(), askBlob(ref, layer.Digest))
		if err != nil {
			return err
		}
		defer func() { _ = b.Close() }()
		began(b.Status.Outcome)
		got, err := io.ReadAll(b.Object)
		if err == nil && !bytes.Equal(got, im.Bytes(layer.Digest)) {
			t.Error("other bytes")
		}
		b.Failed(err)
		return err
	}
	none := func(cache.Outcome) {}
	liar := make(chan error, 1)
	go func() { liar <- read("ghcr.io/"+app, none) }()
	<-gate.Arrived()
	err := read(app, func(o cache.Outcome) {
		if o != cache.Joined {
			t.Errorf("%s, want it to join", o)
		}
		gate.Open()
	})
	if lied := <-liar; err == nil || lied == nil {
		t.Fatalf("wrong bytes were served: %v, %v", err, lied)
	}
	c.hub.Script(origin.Rule{Method: http.MethodGet, Ref: layer.Digest.String(), Times: 1, Do: origin.Fault{Wrong: true}})
	if err := read(app, none); err == nil {
		t.Fatal("wrong bytes were served")
	}
	if err := read(app, none); err != nil {
		t.Errorf("it was the first time: %v", err)
	}
}

// TestCorruptBlobComesFromTheNextEndpoint has the first of two endpoints send other bytes for a blob: the next pull of it gets
// the right ones from the second.
func TestCorruptBlobComesFromTheNextEndpoint(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{})
	im := c.hub.AddImage(app, "1", twoPlatforms)
	layer := im.Layers[0][0]
	c.ghcr.AddBlob(app, im.Bytes(layer.Digest))
	c.ghcr.Script(origin.Rule{Method: http.MethodGet, Ref: layer.Digest.String(), Do: origin.Fault{Wrong: true}})
	var endpoints []upstream.Endpoint
	for _, at := range []*origin.Origin{c.ghcr, c.hub} {
		endpoints = append(endpoints, upstream.Endpoint{URL: &url.URL{Scheme: "http", Host: at.Host()}})
	}
	r, err := upstream.New(upstream.Options{Name: hub, Endpoints: endpoints})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	site := c.setup.Sites[hub]
	site.Upstream = r
	c.setup.Sites[hub] = site
	c.goBy(nil)
	read := func() error {
		b, err := c.Blob(t.Context(), askBlob(app, layer.Digest))
		if err != nil {
			return err
		}
		defer func() { _ = b.Close() }()
		got, err := io.ReadAll(b.Object)
		if err == nil && !bytes.Equal(got, im.Bytes(layer.Digest)) {
			t.Error("other bytes")
		}
		b.Failed(err)
		return err
	}
	if err := read(); err == nil {
		t.Fatal("wrong bytes were served")
	}
	if err := read(); err != nil {
		t.Errorf("the second endpoint has it: %v", err)
	}
}
