package server_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/origin"
)

// A blob that is streamed before it is known to be right, and isn't: no client gets to its end, whatever part it asked
// for, all of them know that it was cut, and who comes next is told why before a byte.
func TestStreamOfWrongBytes(t *testing.T) {
	t.Parallel()
	const n = 6 << 20 // more than is verified before its headers
	for name, fault := range map[string]origin.Fault{
		"first byte": {Flip: []int64{0}}, "last byte": {Flip: []int64{n - 1}}, "in the middle": {Flip: []int64{n / 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, wired{})
			im := w.hub.AddImage("library/app", "1", origin.Image{Layers: []int64{n}})
			layer := im.Layers[0][0]
			if res, _ := w.do(t, "GET", "/v2/app/manifests/1"); res.StatusCode != 200 {
				t.Fatal(res.Status)
			}
			w.hub.Script(origin.Rule{Kind: origin.KindBlob, Do: fault})
			path := "/v2/app/blobs/" + layer.Digest.String()
			for _, rng := range []string{"", "bytes=0-", "bytes=1000000-"} {
				r := request(t, w.Server, "GET", path)
				if rng != "" {
					r.Header.Set("Range", rng)
				}
				res, err := w.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.Copy(io.Discard, res.Body)
				res.Body.Close()
				switch {
				case res.StatusCode == 502 && strings.HasPrefix(res.Header.Get("Mirror-Reason"), "digest-mismatch"):
				case res.StatusCode/100 != 2 || !errors.Is(err, io.ErrUnexpectedEOF) || got >= res.ContentLength:
					t.Errorf("%q: %s, %d bytes of %d, %v", rng, res.Status, got, res.ContentLength, err)
				}
			}
			res, _ := w.do(t, "GET", path)
			if res.StatusCode != 502 || !strings.HasPrefix(res.Header.Get("Mirror-Reason"), "digest-mismatch") {
				t.Errorf("afterwards: %s", res.Status)
			}
			found := false
			for _, q := range w.records.all() {
				found = found || q.Aborted && q.Finding != nil && q.Finding.Reason == diagnose.DigestMismatch
			}
			if !found && name != "first byte" {
				t.Errorf("no record of a cut body says why: %+v", w.records.all())
			}
		})
	}
}
