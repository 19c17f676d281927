package admin_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/trace"
	"strings"
	"sync"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/registrymirror/mirror/admin"
)

// asks sends a request with headers, NAME and VALUE in turn.
func asks(t *testing.T, h http.Handler, method, path, host, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	var b io.Reader
	if body != "" {
		b = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(t.Context(), method, path, b)
	r.Host = host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// routes are all of a handler's, with a path of each that none has, and one that is not for its method.
func routes(t *testing.T, h http.Handler) (list [][2]string) {
	t.Helper()
	err := chi.Walk(h.(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		list = append(list, [2]string{method, strings.ReplaceAll(route, "*", "goroutine")})
		return nil
	})
	if err != nil || len(list) < 3 {
		t.Fatalf("%v, %v", list, err)
	}
	return append(list, [2]string{"GET", "/nowhere"}, [2]string{"DELETE", "/healthz"}, [2]string{"POST", "/debug/pprof/profile"})
}

// A page of another site reads nothing and changes nothing, on any route: not by DNS rebinding, which shows in Host, nor by
// sending requests, which shows in Origin and Sec-Fetch-Site.
func TestNoOtherSite(t *testing.T) {
	t.Parallel()
	up := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })
	for name, h := range map[string]http.Handler{
		"admin":         local(),
		"admin, token":  admin.New(admin.Options{Metrics: up, Loopback: true, Keys: func() admin.Keys { return admin.Keys{Token: "s3cret"} }}),
		"metrics":       admin.NewMetrics(admin.Options{Metrics: up, Loopback: true}),
		"metrics, open": admin.NewMetrics(admin.Options{Metrics: up}),
	} {
		open := strings.HasSuffix(name, "open")
		for _, route := range routes(t, h) {
			for _, attack := range []struct {
				host    string
				headers []string
				status  int
			}{
				{"evil.example:5001", nil, 421},
				{"evil.example", nil, 421},
				{"localhost.evil.example:5001", nil, 421},
				{"127.0.0.1.evil.example:5001", nil, 421},
				{"127.0.0.1@evil.example", nil, 421},
				{"10.0.0.1:5001", nil, 421},
				{"[::2]:5001", nil, 421},
				{"0.0.0.0:5001", nil, 421},
				{"[::]:5001", nil, 421},
				{"2130706433:5001", nil, 421},
				{"", nil, 421},
				{"evil.example:5001", []string{"Origin", "http://evil.example:5001"}, 421},
				{"127.0.0.1:5001", []string{"Origin", "http://evil.example"}, 403},
				{"127.0.0.1:5001", []string{"Origin", "null"}, 403},
				{"127.0.0.1:5001", []string{"Origin", "http://127.0.0.1:8000"}, 403},
				{"127.0.0.1:5001", []string{"Origin", "file://127.0.0.1:5001"}, 403},
				{"127.0.0.1:5001", []string{"Origin", "http://127.0.0.1:5001", "Origin", "http://evil.example"}, 403},
				{"127.0.0.1:5001", []string{"Sec-Fetch-Site", "cross-site"}, 403},
				{"localhost:5001", []string{"Sec-Fetch-Site", "same-site"}, 403},
				{"localhost:5001", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
			} {
				if open && attack.status == 421 {
					continue // by whatever name it is called elsewhere
				}
				headers := append([]string{"Content-Type", "application/json", "Authorization", "Bearer s3cret"}, attack.headers...)
				w := asks(t, gone(h), route[0], route[1], attack.host, `{}`, headers...)
				if w.Code != attack.status || w.Header().Get("Content-Type") != "application/problem+json" {
					t.Errorf("%s: %s of %q with %q: %d %s", name, route, attack.host, attack.headers, w.Code, w.Body)
				}
			}
		}
	}
}

// Another port of loopback is another site, also where the listener was configured by that name.
func TestAnotherPortIsAnotherSite(t *testing.T) {
	t.Parallel()
	o := everythingOptions()
	o.Loopback, o.Hosts = true, []string{"127.0.0.1", "localhost", "::1", "mirror.localhost", "proxy.corp.example"}
	h := admin.New(o)
	for origin, status := range map[string]int{
		"http://127.0.0.1:1": 403, "http://127.0.0.1": 403, "http://localhost:5001": 403, "http://localhost.:1": 403, "http://[::1]:5001": 403,
		"http://mirror.localhost:8000": 403, "http://127.0.0.1:5001": 200, "https://proxy.corp.example": 200,
	} {
		if w := asks(t, h, "GET", "/api/v1/failures", "127.0.0.1:5001", "", "Origin", origin); w.Code != status {
			t.Errorf("%s: %d, want %d: %s", origin, w.Code, status, w.Body)
		}
	}
}

// gone serves requests whose clients have left, so that a profile that begins against all rules ends at once.
func gone(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// local is everything on loopback.
func local() http.Handler {
	o := everythingOptions()
	o.Loopback = true
	return admin.New(o)
}

// Requests that don't come from a page of another site are answered: from the command line, kubectl port-forward, the
// browser's own address bar, a page of the listener itself, a proxy in front.
func TestOwnSite(t *testing.T) {
	t.Parallel()
	o := everythingOptions()
	o.Loopback, o.Hosts = true, []string{"mirror-admin.corp.example", "fd00::1"}
	h := admin.New(o)
	o.Loopback, o.Hosts, o.Keys = false, nil, func() admin.Keys { return admin.Keys{Token: "s3cret"} }
	elsewhere := admin.New(o)
	for _, tt := range []struct {
		h       http.Handler
		host    string
		headers []string
	}{
		{h, "127.0.0.1:5001", nil},
		{h, "127.8.9.10", nil},
		{h, "localhost:41873", nil},
		{h, "LocalHost", nil},
		{h, "localhost.:5001", nil},
		{h, "mirror.localhost:5001", nil},
		{h, "[::1]:5001", nil},
		{h, "[::ffff:127.0.0.1]:5001", nil},
		{h, "mirror-admin.corp.example", nil},
		{h, "Mirror-Admin.corp.example:443", []string{"Origin", "https://mirror-admin.corp.example"}},
		{h, "127.0.0.1:5001", []string{"Origin", "https://mirror-admin.corp.example"}},
		{h, "[fd00::1]:5001", nil},
		{h, "localhost:5001", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}},
		{h, "localhost:5001", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://localhost:5001"}},
		{elsewhere, "mirror.registry.svc:5001", nil},
		{elsewhere, "10.1.2.3:5001", []string{"Origin", "http://10.1.2.3:5001"}},
	} {
		headers := append([]string{"Content-Type", "application/json", "Authorization", "Bearer s3cret"}, tt.headers...)
		for _, path := range []string{"/healthz", "/api/v1/failures", "/api/v1/openapi.yaml", "/debug/pprof/cmdline"} {
			if w := asks(t, tt.h, "GET", path, tt.host, "", headers...); w.Code != 200 {
				t.Errorf("%s of %s with %q: %d %s", path, tt.host, tt.headers, w.Code, w.Body)
			}
		}
		if w := asks(t, tt.h, "POST", "/api/v1/doctor", tt.host, `{"image":"nginx"}`, headers...); w.Code != 200 {
			t.Errorf("POST to %s: %d %s", tt.host, w.Code, w.Body)
		}
	}
}

// A request without a body needs no type, whatever the protocol: reload, and the end of a pin. One with a body does.
func TestNoBodyNeedsNoType(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(admin.New(admin.Options{
		Loopback: true, Reload: func(context.Context) (admin.Reloaded, error) { return admin.Reloaded{}, nil },
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	for body, status := range map[string]int{"": http.StatusOK, "x=1": http.StatusUnsupportedMediaType} {
		for _, major := range []int{1, 2} {
			c := &http.Client{Transport: s.Client().Transport.(*http.Transport).Clone()}
			t.Cleanup(c.CloseIdleConnections)
			if major == 1 {
				c.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
				c.Transport.(*http.Transport).ForceAttemptHTTP2 = false
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/v1/reload", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.ProtoMajor != major || resp.StatusCode != status {
				t.Errorf("HTTP/%d, body %q: HTTP/%d, %s", major, body, resp.ProtoMajor, resp.Status)
			}
		}
	}
}

// Each route takes JSON alone, and requires its Content-Type, except the one that reads text from nodes: the form of a web
// page can't send that.
func TestPostIsJSON(t *testing.T) {
	t.Parallel()
	h := everything()
	for _, route := range routes(t, h) {
		if route[0] != "POST" || strings.HasPrefix(route[1], "/debug/") {
			continue
		}
		text := route[1] == "/api/v1/explain"
		body := `{"image":"nginx:1"}`
		if strings.HasPrefix(route[1], "/api/v1/upstreams/") {
			body = `{"upstream":"docker.io"}`
		}
		if strings.HasPrefix(route[1], "/api/v1/warm") {
			body = `{"images":["nginx:1"]}`
		}
		for contentType, ok := range map[string]bool{
			"application/json": true, "Application/JSON; charset=utf-8": true,
			"application/x-www-form-urlencoded": false, "multipart/form-data; boundary=x": false, "application/jsonp": false,
			"text/html": false, "text/plain;charset=UTF-8": text, "": text, "nonsense/": false, "a/b; c": false,
		} {
			headers := []string{"Content-Type", contentType}
			if contentType == "" {
				headers = nil
			}
			w := asks(t, h, route[0], route[1], "localhost", body, headers...)
			if ok && w.Code/100 != 2 || !ok && (w.Code != 415 || !strings.Contains(w.Body.String(), "application/json")) {
				t.Errorf("%s as %q: %d %s", route, contentType, w.Code, w.Body)
			}
		}
	}
}

// Profiles and traces slow the process: one runs at a time, for a minute at most. It is not run beside other tests: a trace of theirs
// would look like its own, which may not have begun.
func TestProfilesAreBounded(t *testing.T) {
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample})
	for _, path := range []string{"profile", "trace", "heap", "goroutine", "allocs", "mutex"} {
		for _, seconds := range []string{"61", "3600", "1e9", "0", "-1", "NaN", "Inf", "x", "9999999999999999999999"} {
			w := asks(t, h, "GET", "/debug/pprof/"+path+"?seconds="+seconds, "localhost", "")
			if w.Code != 400 || !strings.Contains(w.Body.String(), "at most 60") {
				t.Errorf("%s for %s s: %d %s", path, seconds, w.Code, w.Body)
			}
		}
	}
	if w := asks(t, h, "POST", "/debug/pprof/profile", "localhost", ""); w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan int)
	go func() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/debug/pprof/trace?seconds=60", nil))
		ended <- w.Code
	}()
	for i := 0; !trace.IsEnabled(); i++ {
		if runtime.Gosched(); i > 1e8 {
			t.Fatal("the trace does not begin")
		}
	}
	var others sync.WaitGroup
	for i := range 20 {
		path := []string{"profile", "trace", "profile?seconds=1", "heap?seconds=1"}[i%4]
		others.Go(func() {
			if w := asks(t, h, "GET", "/debug/pprof/"+path, "localhost", ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s beside another: %d", path, w.Code)
			}
		})
	}
	others.Wait()
	if w := asks(t, h, "GET", "/debug/pprof/goroutine?debug=1", "localhost", ""); w.Code != 200 {
		t.Errorf("what takes no time, beside it: %d", w.Code)
	}
	stop()
	if status := <-ended; status != 200 {
		t.Errorf("the trace: %d", status)
	}
	if w := asks(t, h, "GET", "/debug/pprof/trace?seconds=0.01", "localhost", ""); w.Code != 200 {
		t.Errorf("after it: %d", w.Code)
	}
}
