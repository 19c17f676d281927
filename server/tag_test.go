package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/origin"
)

// The headers about the source and the age of an answer, in each state of a tag.
func TestFreshnessInHeaders(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{policy: catalog.Policy{Wait: 300 * time.Millisecond, StaleIfError: time.Hour}})
	im := w.hub.AddImage("library/app", "1", origin.Image{})
	const path = "/v2/app/manifests/1"
	want := func(method, status string, stale bool) {
		t.Helper()
		res, _ := w.do(t, method, path)
		if res.StatusCode != 200 || res.Header.Get("Docker-Content-Digest") != im.Root.Digest.String() ||
			res.Header.Get("Cache-Status") != status {
			t.Errorf("%s: %s, Cache-Status %q want %q", method, res.Status, res.Header.Get("Cache-Status"), status)
		}
		warning := res.Header.Get("Warning")
		if stale != strings.HasPrefix(warning, `299 - "stale copy of docker.io/library/app:1`) || !stale && warning != "" {
			t.Errorf("%s: stale %t, Warning %q", method, stale, warning)
		}
	}
	want("HEAD", "mirror; fwd=miss; stored", false)
	want("GET", "mirror; fwd=miss; stored", false)
	want("GET", "mirror; hit", false)
	want("HEAD", "mirror; hit", false)
	const stale = "mirror; hit; detail=stale"
	for _, f := range []origin.Fault{
		{Status: 403},
		{Status: 503},
		{Drop: true},
		{Status: 404},
		{Status: 200, Body: origin.HTMLBody("x")},
		{Gate: origin.NewGate()}, // the last one: its answer may come late
	} {
		remove := w.hub.Script(origin.Rule{Kind: origin.KindManifest, Do: f})
		w.puller.Use(w.setup) // forgets failures
		want("HEAD", stale, true)
		want("GET", stale, true)
		remove()
	}
	w.hub.Down()
	w.puller.Use(w.setup)
	want("GET", stale, true)
	want("HEAD", stale, true)
	if res, _ := w.do(t, "GET", "/v2/app/blobs/"+im.Layers[0][0].Digest.String()); res.StatusCode != 502 {
		t.Errorf("a blob that was not pulled: %s", res.Status)
	}
	w.hub.Up()
	w.puller.Use(w.setup)
	want("GET", "mirror; hit", false)
	w.hub.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{Status: 429}}) // the last one: the limit is respected for a while
	want("HEAD", stale, true)
	want("GET", stale, true)
}

// The upstream takes longer than a client waits: the client gets that error, by HEAD as by GET, and so does the next client;
// when the answer comes after all, it is used. The times have their test in pull, with a virtual clock.
func TestUpstreamSlowerThanAClientWaits(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{wait: time.Second})
	im := w.hub.AddImage("library/app", "1", origin.Image{})
	w.hub.AddBlob("library/app", []byte("blob"))
	gate := origin.NewGate()
	w.hub.Script(origin.Rule{Role: origin.RoleRegistry, Do: origin.Fault{Gate: gate}})
	defer gate.Open()
	paths := []string{
		"/v2/app/manifests/1", "/v2/app/manifests/" + im.Root.Digest.String(), "/v2/app/blobs/" + sum([]byte("blob")).String(),
		"/v2/app/tags/list", "/v2/app/referrers/" + im.Root.Digest.String(),
	}
	var all sync.WaitGroup
	for i, path := range paths {
		order := []string{"HEAD", "GET"}
		if i%2 == 1 {
			order = []string{"GET", "HEAD"}
		}
		all.Go(func() {
			for _, method := range order {
				res, body := w.do(t, method, path)
				if res.StatusCode != 504 || !strings.HasPrefix(res.Header.Get("Mirror-Reason"), "upstream-timeout") ||
					method == "GET" && !strings.Contains(string(body), "UNAVAILABLE") {
					t.Errorf("%s %s: %s %s", method, path, res.Status, body)
				}
			}
		})
	}
	all.Wait()
	gate.Open()
	w.puller.Use(w.setup)
	for _, path := range paths {
		res, body := w.do(t, "GET", path)
		for range 30 { // a busy machine may take longer than the wait, too
			if res.StatusCode != 504 {
				break
			}
			res, body = w.do(t, "GET", path)
		}
		if res.StatusCode != 200 {
			t.Errorf("then %s: %s %s", path, res.Status, body)
		}
	}
}

// Two hundred clients with the same request cause one request upstream, whether it succeeds or not.
func TestHerdIsOneRequest(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{policy: catalog.Policy{MaxAge: time.Minute, Wait: 5 * time.Second, StaleIfError: time.Hour}})
	im := w.hub.AddImage("library/app", "1", origin.Image{Layers: []int64{300_000}})
	gates := make(map[string]*origin.Gate)
	for _, ref := range []string{"1", "missing", "forbidden"} {
		gates[ref] = origin.NewGate()
		w.hub.Script(origin.Rule{Kind: origin.KindManifest, Ref: ref, Do: origin.Fault{Gate: gates[ref]}})
	}
	w.hub.SetTag("library/app", "forbidden", im.Root.Digest)
	w.hub.Script(origin.Rule{Kind: origin.KindManifest, Ref: "forbidden", Do: origin.Fault{
		Gate: gates["forbidden"], Status: 403, Body: origin.ErrorBody("DENIED", "no"),
	}})
	layer := im.Layers[0][0].Digest.String()
	for _, c := range []struct {
		path, ref string
		status    int
		requests  int
	}{
		{"/v2/app/manifests/1", "1", 200, 1},
		{"/v2/app/manifests/missing", "missing", 404, 1},
		{"/v2/app/manifests/forbidden", "forbidden", 403, 2}, // HEAD, and GET for the message
	} {
		statuses := make([]int, 200)
		reasons := make(map[string]bool)
		var mu sync.Mutex
		var herd sync.WaitGroup
		for i := range statuses {
			herd.Go(func() {
				tr := &http.Transport{DisableKeepAlives: true}
				res, err := tr.RoundTrip(request(t, w.Server, "HEAD", c.path))
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				mu.Lock()
				defer mu.Unlock()
				statuses[i] = res.StatusCode
				reasons[res.Header.Get("Mirror-Reason")] = true
			})
		}
		<-gates[c.ref].Arrived()
		gates[c.ref].Open()
		herd.Wait()
		for _, got := range statuses {
			if got != c.status {
				t.Errorf("%s: %d, want %d", c.path, got, c.status)
			}
		}
		if len(reasons) != 1 {
			t.Errorf("%s: %v, want one reason with one id", c.path, reasons)
		}
		if n := w.hub.CountRef(origin.KindManifest, c.ref); n != c.requests {
			t.Errorf("%s: %d requests, want %d", c.path, n, c.requests)
		}
		if res, _ := w.do(t, "GET", c.path); res.StatusCode != c.status {
			t.Errorf("GET %s afterwards: %s", c.path, res.Status)
		}
		if n := w.hub.CountRef(origin.KindManifest, c.ref); n != c.requests {
			t.Errorf("%s: %d requests after one more GET, want %d", c.path, n, c.requests)
		}
	}
	var herd sync.WaitGroup
	for i := range 100 {
		herd.Go(func() {
			from := i * 3000
			res, body := w.do(t, "GET", "/v2/app/blobs/"+layer, "Range", fmt.Sprintf("bytes=%d-", from))
			if res.StatusCode != 206 || len(body) != 300_000-from {
				t.Errorf("from %d: %s, %d bytes", from, res.Status, len(body))
			}
		})
	}
	herd.Wait()
	if n := w.hub.Bytes(im.Layers[0][0].Digest); n != 300_000 {
		t.Errorf("%d bytes were fetched of 300000", n)
	}
}

// Content that is cached for one repository may not be read through another.
func TestCachedBlobOfAnotherRepository(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	im := w.hub.AddImage("acme/private", "1", origin.Image{Layers: []int64{4 << 10}})
	manifest, layer := im.Root.Digest.String(), im.Layers[0][0].Digest.String()
	for _, path := range []string{"/v2/acme/private/manifests/1", "/v2/acme/private/blobs/" + layer} {
		if res, _ := w.do(t, "GET", path); res.StatusCode != 200 {
			t.Fatalf("GET %s: %s", path, res.Status)
		}
	}
	for _, path := range []string{
		"/v2/acme/other/manifests/" + manifest, "/v2/acme/other/blobs/" + layer, "/v2/ghcr.io/acme/private/manifests/" + manifest,
		"/v2/ghcr.io/acme/private/blobs/" + layer, "/v2/app/blobs/" + layer,
	} {
		for _, method := range []string{"HEAD", "GET"} {
			for _, header := range [][]string{nil, {"Range", "bytes=0-0"}, {"If-None-Match", "*"}} {
				if res, _ := w.do(t, method, path, header...); res.StatusCode != 404 {
					t.Errorf("%s %s %v: %s", method, path, header, res.Status)
				}
			}
		}
	}
	// Once that registry confirms it, the bytes are not fetched again.
	w.ghcr.AddBlob("acme/mine", im.Bytes(im.Layers[0][0].Digest))
	res, body := w.do(t, "GET", "/v2/ghcr.io/acme/mine/blobs/"+layer)
	if res.StatusCode != 200 || len(body) != 4<<10 {
		t.Errorf("%s, %d bytes", res.Status, len(body))
	}
	for _, q := range w.ghcr.Requests() {
		if q.Kind == origin.KindBlob && q.Method != "HEAD" {
			t.Errorf("%s of what is here", q.Method)
		}
	}
}
