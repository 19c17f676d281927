package admin_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
)

func get(t *testing.T, h http.Handler, method, path, token string) (int, string, http.Header) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(b), w.Header()
}

// asExample are the names under which httptest asks.
var asExample = []string{"example.com"}

func TestWhoGetsWhat(t *testing.T) {
	t.Parallel()
	token := "s3cret"
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Metrics: metrics, Keys: func() admin.Keys { return admin.Keys{Token: token} }})
	open := admin.New(admin.Options{Loopback: true, Hosts: asExample, Metrics: metrics})
	tests := []struct {
		name, method, path, token string
		h                         http.Handler
		status                    int
		body                      string
	}{
		{"health wants no token", "GET", "/healthz", "", h, 200, "ok\n"},
		{"nor does readiness", "GET", "/readyz", "", h, 200, "ready\n"},
		{"metrics do", "GET", "/metrics", "", h, 401, "admin.tokenFile"},
		{"a wrong one", "GET", "/metrics", "s3cre", h, 401, "admin.tokenFile"},
		{"the right one", "GET", "/metrics", "s3cret", h, 200, "up 1\n"},
		{"profiles do", "GET", "/debug/pprof/", "", h, 401, "admin.tokenFile"},
		{"the right one", "GET", "/debug/pprof/goroutine?debug=1", "s3cret", h, 200, "goroutine profile"},
		{"no token set", "GET", "/metrics", "", open, 200, "up 1\n"},
		{"unknown", "GET", "/nowhere", "s3cret", h, 404, "/nowhere"},
		{"a write", "POST", "/metrics", "s3cret", h, 405, "POST"},
	}
	for _, tt := range tests {
		t.Run(tt.name+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			status, body, header := get(t, tt.h, tt.method, tt.path, tt.token)
			if status != tt.status || !strings.Contains(body, tt.body) {
				t.Errorf("%d %q, want %d with %q", status, body, tt.status, tt.body)
			}
			if status >= 400 && header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("an error of type %q", header.Get("Content-Type"))
			}
		})
	}
}

func TestNotReadyIsNotDead(t *testing.T) {
	t.Parallel()
	notReady := func() error { return errors.New("stopping") }
	for name, h := range map[string]http.Handler{
		"admin":   admin.New(admin.Options{Loopback: true, Hosts: asExample, Ready: notReady}),
		"metrics": admin.NewMetrics(admin.Options{Metrics: http.NotFoundHandler(), Ready: notReady}),
	} {
		if status, body, _ := get(t, h, "GET", "/readyz", ""); status != 503 || body != "stopping\n" {
			t.Errorf("%s: readyz %d %q", name, status, body)
		}
		if status, _, _ := get(t, h, "GET", "/healthz", ""); status != 200 {
			t.Errorf("%s: healthz %d", name, status)
		}
	}
}

// The pages about failures are those of this version, and require no token.
func TestPagesAboutFailures(t *testing.T) {
	t.Parallel()
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Keys: func() admin.Keys { return admin.Keys{Token: "secret"} }})
	for path, want := range map[string]string{
		"/docs/failures/": "# ", "/docs/failures/tag-not-found": "# tag-not-found\n", "/docs/failures/tag-not-found.md": "# tag-not-found\n",
	} {
		if status, body, _ := get(t, h, http.MethodGet, path, ""); status != http.StatusOK || !strings.HasPrefix(body, want) {
			t.Errorf("%s: %d %.60q", path, status, body)
		}
	}
	for _, path := range []string{"/docs/failures/none", "/docs/failures/../x", "/docs/failures/a/b"} {
		if status, _, _ := get(t, h, http.MethodGet, path, ""); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
}
