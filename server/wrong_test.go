package server_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/origin"
)

// A blob that is streamed before it is verified, and is wrong: no client gets to its end, whatever its range, each sees that it
// was cut, and the next client gets the error before a byte.
func TestStreamOfWrongBytes(t *testing.T) {
	t.Parallel()
	const n = 6 << 20 // more than is verified before the header
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

// Clients give up on an answer whose header does not come within 30 seconds, so the header does not wait for the first byte of
// a blob once it is certain that it will be sent.
func TestHeadersDontWaitForBytes(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	im := w.hub.AddImage("library/app", "1", origin.Image{Layers: []int64{6 << 20}})
	layer := im.Layers[0][0].Digest
	gate := origin.NewGate()
	w.hub.Script(origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{Stall: &origin.Stall{Gate: gate}}})
	for _, rng := range []string{"", "bytes=100-", "bytes=0-0,100-199"} {
		r := request(t, w.Server, "GET", "/v2/app/blobs/"+layer.String())
		if rng != "" {
			r.Header.Set("Range", rng)
		}
		tr := &http.Transport{ResponseHeaderTimeout: 25 * time.Second}
		defer tr.CloseIdleConnections()
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatalf("%q: %v", rng, err)
		}
		defer res.Body.Close()
		if res.StatusCode/100 != 2 || res.Header.Get("Docker-Content-Digest") != layer.String() {
			t.Errorf("%q: %s %v", rng, res.Status, res.Header)
		}
		defer func() {
			gate.Open()
			if n, err := io.Copy(io.Discard, res.Body); err != nil || n != res.ContentLength {
				t.Errorf("%q: %d bytes of %d, %v", rng, n, res.ContentLength, err)
			}
		}()
	}
}
