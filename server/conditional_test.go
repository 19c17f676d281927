package server_test

import (
	"fmt"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"
)

// A client that has the content gets a 304, and nothing is fetched for it.
func TestConditionalRequestsFetchNothing(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	im := w.hub.AddImage("library/app", "1", origin.Image{Layers: []int64{100_000}})
	layer := im.Layers[0][0].Digest.String()
	path := "/v2/app/blobs/" + layer
	for _, c := range []struct {
		name   string
		header []string
		status int
	}{
		{"the same", []string{"If-None-Match", `"` + layer + `"`}, 304},
		{"weakly", []string{"If-None-Match", `"x", W/"` + layer + `"`}, 304},
		{"anything", []string{"If-None-Match", "*"}, 304},
		{"before a range", []string{"If-None-Match", "*", "Range", "bytes=0-0"}, 304},
		{"before a bad range", []string{"If-None-Match", "*", "Range", "bytes=9-0"}, 304},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			res, body := w.do(t, method, path, c.header...)
			if res.StatusCode != c.status || len(body) > 0 || res.Header.Get("Etag") != `"`+layer+`"` ||
				res.Header.Get("Docker-Content-Digest") != layer || res.Header.Get("Cache-Status") == "" {
				t.Errorf("%s, %s: %s %v %q", c.name, method, res.Status, res.Header, body)
			}
		}
	}
	if n := w.hub.Count(origin.KindBlob, "GET"); n > 0 {
		t.Errorf("the blob was asked for %d times", n)
	}
	// It does not reveal cached content: a client without the right to read it gets no 304 either.
	other := "/v2/ghcr.io/acme/app/blobs/" + layer
	if res, _ := w.do(t, "GET", other, "If-None-Match", "*"); res.StatusCode != 404 {
		t.Errorf("through a repository that hasn't it: %s", res.Status)
	}
}

// If-Range: the range, if the client's bytes are of the same content by its strong entity tag; else all of it.
func TestIfRange(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	im := w.hub.AddImage("library/app", "1", origin.Image{Layers: []int64{100_000}})
	layer := im.Layers[0][0].Digest.String()
	for value, status := range map[string]int{
		fmt.Sprintf("%q", layer): 206, fmt.Sprintf("W/%q", layer): 200, layer: 200, `"x"`: 200, "*": 200,
		"Wed, 21 Oct 2026 07:28:00 GMT": 200, "": 206,
	} {
		header := []string{"Range", "bytes=10-19"}
		if value != "" {
			header = append(header, "If-Range", value)
		}
		res, body := w.do(t, "GET", "/v2/app/blobs/"+layer, header...)
		if want := map[int]int{200: 100_000, 206: 10}[status]; res.StatusCode != status || len(body) != want {
			t.Errorf("If-Range %s: %s, %d bytes", value, res.Status, len(body))
		}
	}
}

func TestConditionalManifests(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	im := w.hub.AddImage("library/app", "1", origin.Image{})
	digest := im.Root.Digest.String()
	for _, path := range []string{"/v2/app/manifests/1", "/v2/app/manifests/" + digest} {
		for _, method := range []string{"HEAD", "GET"} {
			for match, status := range map[string]int{
				`"` + digest + `"`: 304, `W/"` + digest + `"`: 304, "*": 304, `"x", "` + digest + `"`: 304, digest: 200, `"x"`: 200,
			} {
				res, body := w.do(t, method, path, "If-None-Match", match)
				if res.StatusCode != status || status == 304 && len(body) > 0 || res.Header.Get("Docker-Content-Digest") != digest {
					t.Errorf("%s %s, If-None-Match %s: %s %v", method, path, match, res.Status, res.Header)
				}
			}
		}
	}
	// A manifest is sent whole, whatever the Range.
	res, body := w.do(t, "GET", "/v2/app/manifests/1", "Range", "bytes=0-9", "Accept", "text/plain")
	if res.StatusCode != 200 || string(body) != string(im.Bytes(im.Root.Digest)) || res.Header.Get("Accept-Ranges") != "" {
		t.Errorf("a range: %s %v", res.Status, res.Header)
	}
}
