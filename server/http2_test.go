package server_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

// A client of HTTP/2 that reads nothing of one stream loses that stream at its deadline; another stream of the same connection
// continues.
func TestStreamThatStandsStill(t *testing.T) {
	t.Parallel()
	content, small := pattern(8<<20), []byte("{}")
	object, size := hold(content)
	ended := make(chan struct{})
	o := options(&puller{
		object: object, size: size, manifest: &pull.Content{Digest: sum(small), Bytes: small, Size: int64(len(small)), MediaType: "t"},
	})
	o.Observe = func(r journal.Request) { // of a finished response
		if r.Aborted {
			close(ended)
		}
	}
	s := server.New(o)
	s.SetStall(5 * time.Second)
	ts := serveTLS(t, s, true)
	get := func(path string) *http.Response {
		t.Helper()
		resp, err := ts.Client().Get(ts.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
			t.Fatalf("%s %s", resp.Proto, resp.Status)
		}
		return resp
	}
	still := get("/v2/a/blobs/" + string(sum(content)))
	defer still.Body.Close()
	another := func(when string) {
		t.Helper()
		resp := get("/v2/a/manifests/b")
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(b, small) {
			t.Errorf("%s: %d bytes, %v", when, len(b), err)
		}
	}
	for range 3 {
		another("beside one that stands still")
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the stream that stands still goes on")
	}
	if n, err := io.Copy(io.Discard, still.Body); err == nil || n >= size {
		t.Errorf("%d bytes of %d came of it, %v", n, size, err)
	}
	another("afterwards")
}
