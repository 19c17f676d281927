package server_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	pages "github.com/registrymirror/mirror/docs/failures"
	"github.com/registrymirror/mirror/server"
	"github.com/registrymirror/mirror/upstream/fault"
)

// The link in an error's body leads to a page of the mirror itself, by the host of the request, unless the Host header is
// malformed.
func TestLinksInErrorsWorkOffline(t *testing.T) {
	t.Parallel()
	o := options(&puller{err: &fault.Error{Op: "resolve", Upstream: "docker.io", Repository: "library/app", Reference: "1", Status: 404, Code: "MANIFEST_UNKNOWN"}})
	o.Help = ""
	ts := serve(t, server.New(o))
	link := func(host string) string {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "/v2/library/app/manifests/1", nil)
		r.Host = host
		w := httptest.NewRecorder()
		server.New(o).ServeHTTP(w, r)
		var body struct{ Errors []struct{ Detail string } }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || len(body.Errors) != 1 {
			t.Fatalf("%v: %s", err, w.Body)
		}
		_, link, _ := strings.Cut(body.Errors[0].Detail, ", ")
		return link
	}
	here := strings.TrimPrefix(ts.URL, "http://")
	if got := link(here); got != ts.URL+"/docs/failures/tag-not-found.md" {
		t.Errorf("%s", got)
	}
	for _, host := range []string{"", `a"b`, "a b", "a/b", "evil\r\nx", strings.Repeat("a", 256)} {
		if got := link(host); !strings.HasPrefix(got, "https://github.com/") {
			t.Errorf("Host %q: %s", host, got)
		}
	}
	page, _ := pages.Page("tag-not-found")
	for _, path := range []string{"tag-not-found.md", "tag-not-found"} {
		if res, body := do(t, ts, "GET", "/docs/failures/"+path); res.StatusCode != 200 || string(body) != page {
			t.Errorf("%s: %s, %d bytes", path, res.Status, len(body))
		}
	}
	for path, status := range map[string]int{"": 200, "README.md": 200, "none": 404, "../reliability.md": 404, "%2e%2e/x": 404} {
		if res, _ := do(t, ts, "GET", "/docs/failures/"+path); res.StatusCode != status {
			t.Errorf("%q: %s, want %d", path, res.Status, status)
		}
	}
}
