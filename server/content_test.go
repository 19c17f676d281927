package server_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
	"github.com/registrymirror/mirror/upstream"
)

const indexType = "application/vnd.oci.image.index.v1+json"

func wantHeader(t *testing.T, h http.Header, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := strings.Join(h.Values(pairs[i]), "|"); got != pairs[i+1] {
			t.Errorf("%s: %q, want %q", pairs[i], got, pairs[i+1])
		}
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	ts := serve(t, server.New(options(&puller{})))
	for _, path := range []string{"/v2/", "/v2"} {
		res, body := do(t, ts, "GET", path)
		if res.StatusCode != 200 || string(body) != "{}" {
			t.Errorf("%s: %s %q", path, res.Status, body)
		}
		wantHeader(t, res.Header, "Docker-Distribution-Api-Version", "registry/2.0", "Content-Type", "application/json",
			"Content-Length", "2", "Cache-Status", "mirror; hit")
		if res, body := do(t, ts, "HEAD", path); res.StatusCode != 200 || len(body) != 0 {
			t.Errorf("HEAD %s: %s %q", path, res.Status, body)
		}
	}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	content := []byte(`{"schemaVersion":2}`)
	d := sum(content)
	p := &puller{
		manifest: &pull.Content{Digest: d, MediaType: indexType, Size: int64(len(content)), Bytes: content},
		status:   pull.Status{Outcome: cache.Hit},
	}
	ts := serve(t, server.New(options(p)))
	for _, method := range []string{"GET", "HEAD"} {
		// containerd may request a manifest with bytes=0-, and accepts a 200.
		for _, header := range [][]string{nil, {"Range", "bytes=0-"}, {"If-None-Match", `"sha256:0"`}} {
			res, body := do(t, ts, method, "/v2/library/nginx/manifests/1.27?ns=docker.io", header...)
			if res.StatusCode != 200 || method == "GET" && !bytes.Equal(body, content) || method == "HEAD" && len(body) != 0 {
				t.Errorf("%s %v: %s %q", method, header, res.Status, body)
			}
			wantHeader(t, res.Header, "Docker-Content-Digest", string(d), "Content-Type", indexType, "Etag", `"`+string(d)+`"`,
				"Content-Length", strconv.Itoa(len(content)), "Cache-Status", "mirror; hit", "Age", "", "Warning", "", "Vary", "",
				"Content-Encoding", "", "Content-Range", "")
		}
	}
	for _, tag := range []string{`"` + string(d) + `"`, `W/"` + string(d) + `"`, `"x", "` + string(d) + `"`, "*"} {
		res, body := do(t, ts, "GET", "/v2/library/nginx/manifests/1.27", "If-None-Match", tag)
		if res.StatusCode != 304 || len(body) != 0 || res.Header.Get("Etag") != `"`+string(d)+`"` {
			t.Errorf("If-None-Match %s: %s %v %q", tag, res.Status, res.Header, body)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	want := oci.Request{Kind: oci.KindManifest, Name: "library/nginx", Namespace: "docker.io", Tag: "1.27"}
	if diff := cmp.Diff(pull.Ask{Request: want, Client: "127.0.0.1", Secure: true}, p.asks[0], cmpopts.EquateEmpty(),
		cmpopts.EquateComparable(upstream.Login{})); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// A HEAD answered 200 without digest or length makes old containerd take an error document for the manifest.
func TestIncompleteManifestIsAnError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*pull.Content{
		"no digest": {MediaType: indexType, Size: 2, Bytes: []byte("{}")},
		"no size":   {Digest: someDigest, MediaType: indexType},
	} {
		ts := serve(t, server.New(options(&puller{manifest: c})))
		if res, _ := do(t, ts, "HEAD", "/v2/a/manifests/b"); res.StatusCode != 500 {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
}

func TestCacheStatus(t *testing.T) {
	t.Parallel()
	content := []byte(`{}`)
	reason := upstreamError(503, nil)
	until := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	held := func(h catalog.Hold, until time.Time) catalog.Choice {
		return catalog.Choice{Digest: "sha256:aa", Latest: "sha256:bb", Hold: h, Until: until}
	}
	for _, c := range []struct {
		status pull.Status
		want   string
		age    string
		warns  string
	}{
		{status: pull.Status{Outcome: cache.Hit}, want: "mirror; hit"},
		{status: pull.Status{Outcome: cache.Hit, Age: 90 * time.Second}, want: "mirror; hit", age: "90"},
		{status: pull.Status{Outcome: cache.Miss}, want: "mirror; fwd=miss; stored"},
		{status: pull.Status{Outcome: cache.Joined}, want: "mirror; fwd=miss; collapsed"},
		{status: pull.Status{Outcome: cache.Miss, Collapsed: true}, want: "mirror; fwd=miss; collapsed"},
		{status: pull.Status{Outcome: cache.Uncached}, want: "mirror; fwd=miss; detail=uncached"},
		{status: pull.Status{}, want: "mirror; fwd=miss"},
		{
			status: pull.Status{Outcome: cache.Hit, Stale: true, Age: 3 * time.Hour, Reason: reason},
			want:   "mirror; hit; detail=stale", age: "10800",
			warns: `299 - "stale copy of docker.io/library/nginx:1.27, last confirmed 3h0m0s ago: ` +
				`registry-1.docker.io answered 503 to the manifest of docker.io/library/nginx:1.27"`,
		},
		{
			status: pull.Status{Outcome: cache.Hit, Age: time.Minute, Choice: held(catalog.HeldByPin, time.Time{})},
			want:   "mirror; hit", age: "60", warns: `299 - "docker.io/library/nginx:1.27 is pinned to sha256:aa"`,
		},
		{
			status: pull.Status{Outcome: cache.Hit, Choice: held(catalog.HeldByPin, until)},
			want:   "mirror; hit", warns: `299 - "docker.io/library/nginx:1.27 is pinned to sha256:aa until 2026-03-01T11:00:00Z"`,
		},
		{
			status: pull.Status{Outcome: cache.Hit, Choice: held(catalog.HeldByImmutable, time.Time{})}, want: "mirror; hit",
			warns: `299 - "docker.io/library/nginx:1.27 must not move, and its registry has moved it to sha256:bb: its first digest is served"`,
		},
		{
			status: pull.Status{Outcome: cache.Hit, Choice: held(catalog.HeldByMinAge, until)}, want: "mirror; hit",
			warns: `299 - "an older digest of docker.io/library/nginx:1.27 is served until 2026-03-01T11:00:00Z: sha256:bb is younger than minAge"`,
		},
		{
			status: pull.Status{Outcome: cache.Hit, Choice: held(catalog.HeldUnknown, until)}, want: "mirror; hit",
			warns: `299 - "docker.io/library/nginx:1.27 is younger than minAge until 2026-03-01T11:00:00Z, and the mirror knows no older digest of it"`,
		},
		{
			status: pull.Status{Outcome: cache.Hit, Stale: true, Age: time.Hour, Reason: reason, Choice: held(catalog.HeldByMinAge, time.Time{})},
			want:   "mirror; hit; detail=stale", age: "3600",
			warns: `299 - "stale copy of docker.io/library/nginx:1.27, last confirmed 1h0m0s ago: ` +
				`registry-1.docker.io answered 503 to the manifest of docker.io/library/nginx:1.27", ` +
				`299 - "an older digest of docker.io/library/nginx:1.27 is served: sha256:bb is younger than minAge"`,
		},
	} {
		p := &puller{status: c.status, manifest: &pull.Content{
			Digest: sum(content), MediaType: indexType, Size: 2,
			Bytes: content,
		}}
		var seen records
		o := options(p)
		o.Observe = seen.observe
		ts := serve(t, server.New(o))
		res, _ := do(t, ts, "GET", "/v2/library/nginx/manifests/1.27")
		if res.StatusCode != 200 {
			t.Errorf("%+v: %s", c.status, res.Status)
		}
		wantHeader(t, res.Header, "Cache-Status", c.want, "Age", c.age, "Mirror-Reason", "")
		if got := strings.Join(res.Header.Values("Warning"), ", "); got != c.warns {
			t.Errorf("Warning: %s, want %s", got, c.warns)
		}
		q := seen.all()[0]
		if q.Stale != c.status.Stale || q.Finding != nil || q.Outcome != c.status.Outcome {
			t.Errorf("observed %+v", q)
		}
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	const body = `{"name":"library/nginx","tags":["1.27"]}`
	p := &puller{status: pull.Status{Outcome: cache.Miss}, doc: &pull.Content{
		Bytes: []byte(body), MediaType: "application/json", Link: "n=1&last=1.27", Filters: "artifactType",
	}}
	ts := serve(t, server.New(options(p)))
	for _, c := range []struct{ path, link string }{
		{"/v2/library/nginx/tags/list", `</v2/library/nginx/tags/list?n=1&last=1.27>; rel="next"`},
		{"/v2/nginx/tags/list?ns=docker.io&n=1", `</v2/nginx/tags/list?n=1&last=1.27&ns=docker.io>; rel="next"`},
		{"/v2/nginx/tags/list?ns=reg.corp:5000", `</v2/nginx/tags/list?n=1&last=1.27&ns=reg.corp%3A5000>; rel="next"`},
		{"/v2/a/referrers/" + someDigest, `</v2/a/referrers/` + someDigest + `?n=1&last=1.27>; rel="next"`},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			res, got := do(t, ts, method, c.path)
			if res.StatusCode != 200 || method == "GET" && string(got) != body || method == "HEAD" && len(got) > 0 {
				t.Errorf("%s %s: %s %q", method, c.path, res.Status, got)
			}
			wantHeader(t, res.Header, "Link", c.link, "Content-Type", "application/json", "OCI-Filters-Applied", "artifactType",
				"Content-Length", strconv.Itoa(len(body)), "Cache-Status", "mirror; fwd=miss; stored")
		}
	}
}

func TestLinkCannotBreakOut(t *testing.T) {
	t.Parallel()
	p := &puller{doc: &pull.Content{Bytes: []byte("{}"), Link: "?last=\"><\r\nX: y"}}
	ts := serve(t, server.New(options(p)))
	res, _ := do(t, ts, "GET", "/v2/a/tags/list")
	wantHeader(t, res.Header, "Link", `</v2/a/tags/list?last=%22%3E%3C%0D%0AX:%20y>; rel="next"`)
}

func TestObserve(t *testing.T) {
	t.Parallel()
	content := pattern(5000)
	object, size := hold(content)
	var seen records
	o := options(&puller{object: object, size: size, status: pull.Status{Outcome: cache.Joined}})
	o.Observe = seen.observe
	var begun records
	o.Begin = begun.observe
	ts := serve(t, server.New(o))
	path := "/v2/acme/app/blobs/" + string(sum(content)) + "?ns=ghcr.io"
	do(t, ts, "GET", path, "Range", "bytes=0-99", "Mirror-Node", "node-7", "User-Agent", "containerd/v2.4\x80")
	do(t, ts, "HEAD", path, "Mirror-Node", "node 7\x80")
	ref := oci.Ref{Repo: oci.Repo{Host: "ghcr.io", Name: "acme/app"}, Digest: sum(content)}
	want := []journal.Request{
		{
			Client: "node-7", Source: "127.0.0.1", UserAgent: "containerd/v2.4", Kind: oci.KindBlob, Ref: ref, Upstream: "ghcr.io",
			Status: 206, Bytes: 100, Size: 100,
			Outcome: cache.Joined,
		},
		{
			Client: "127.0.0.1", Source: "127.0.0.1", UserAgent: "Go-http-client/1.1", Kind: oci.KindBlob, Head: true, Ref: ref,
			Upstream: "ghcr.io", Status: 200,
			Outcome: cache.Joined,
		},
	}
	if diff := cmp.Diff(want, seen.all(), cmpopts.IgnoreFields(journal.Request{}, "At", "Took", "First")); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
	want[0].Bytes = 0
	if diff := cmp.Diff(want[:1], begun.all(), cmpopts.IgnoreFields(journal.Request{}, "At", "Took", "First")); diff != "" {
		t.Errorf("begun (-want +got):\n%s", diff)
	}
	for _, q := range seen.all() {
		if q.At.IsZero() || q.Took <= 0 || q.First <= 0 || q.First > q.Took {
			t.Errorf("no time in %+v", q)
		}
	}
}

// A client that leaves before its answer is known is not a failure.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	var seen records
	o := options(nil)
	asked := make(chan struct{})
	o.Puller = leaving{&puller{}, asked}
	o.Observe = seen.observe
	s := server.New(o)
	ts := serve(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	r := request(t, ts, "GET", "/v2/a/manifests/b").WithContext(ctx)
	go func() { <-asked; cancel() }()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	if res, err := tr.RoundTrip(r); err == nil {
		res.Body.Close()
		t.Fatal("an answer came")
	}
	if err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if q := seen.all(); len(q) != 1 || q[0].Finding != nil || !q[0].Aborted || q[0].Status != 0 {
		t.Errorf("observed %+v", q)
	}
}

type leaving struct {
	*puller
	asked chan struct{}
}

func (l leaving) Manifest(ctx context.Context, _ pull.Ask) (*pull.Content, error) {
	close(l.asked)
	<-ctx.Done()
	return nil, fmt.Errorf("wait: %w", context.Cause(ctx))
}

// The record of a request for an unknown upstream has none: a client must not choose the labels of metrics.
func TestRecordHasNoUnknownUpstream(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	for _, path := range []string{
		"/v2/app/manifests/1?ns=evil.example", "/v2/evil.example/app/manifests/1", "/v2/app/manifests/1?ns=index.docker.io",
	} {
		w.do(t, "GET", path)
	}
	var got []string
	for _, q := range w.records.all() {
		got = append(got, q.Upstream)
	}
	if diff := cmp.Diff([]string{"", "", "docker.io"}, got); diff != "" {
		t.Errorf("upstreams (-want +got):\n%s", diff)
	}
}
