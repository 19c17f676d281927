package admin_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose/doctor"
)

// post sends JSON to the doctor, as a page of another site would not.
func post(ctx context.Context, h http.Handler, body, contentType string) (int, string, http.Header) {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/doctor", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Authorization", "Bearer s3cret")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b, _ := io.ReadAll(w.Body)
	return w.Code, string(b), w.Header()
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	var asked string
	h := admin.New(admin.Options{
		Loopback: true, Hosts: asExample,
		Keys: func() admin.Keys { return admin.Keys{Token: "s3cret"} },
		Doctor: func(_ context.Context, image, platform string) *doctor.Report {
			asked = image + " " + platform
			return &doctor.Report{
				Image: "docker.io/library/nginx:1", At: "mirror", Steps: []doctor.Step{{Stage: "parse", State: doctor.OK}},
				Failure: &doctor.Failure{Reason: "dns-not-found", Class: "network", Summary: "no", Remedy: "yes"},
			}
		},
	})
	if status, _, _ := get(t, h, "POST", "/api/v1/doctor", ""); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	status, body, header := post(t.Context(), h, `{"image":"nginx:1","platform":"linux/arm64"}`, "application/json")
	want := `{"image":"docker.io/library/nginx:1","ok":false,"at":"mirror","began":"0001-01-01T00:00:00Z","took":"0s",` +
		`"steps":[{"stage":"parse","state":"ok"}],"failure":{"reason":"dns-not-found","class":"network","summary":"no",` +
		`"remedy":"yes"}}` + "\n"
	if status != 200 || body != want || header.Get("Content-Type") != "application/json" || asked != "nginx:1 linux/arm64" {
		t.Errorf("%d, asked %q\n%s\nwant\n%s", status, asked, body, want)
	}
	for _, tt := range []struct {
		name, body, contentType string
		status                  int
	}{
		{"no type", `{"image":"nginx"}`, "", 415},
		{"a form of another site", `{"image":"nginx"}`, "text/plain", 415},
		{"no image", `{}`, "application/json", 400},
		{"no JSON", `nginx`, "application/json", 400},
		{"a key that there is not", `{"image":"nginx","server":"evil.example"}`, "application/json", 400},
		{"far too long", `{"image":"` + strings.Repeat("a", 1<<20) + `"}`, "application/json", 400},
		{"with a charset", `{"image":"nginx"}`, "application/json; charset=utf-8", 200},
	} {
		asked = ""
		status, body, _ := post(t.Context(), h, tt.body, tt.contentType)
		if status != tt.status || (asked != "") != (status == 200) {
			t.Errorf("%s: %d %s, asked %q; want %d", tt.name, status, body, asked, tt.status)
		}
	}
}

// Many requests for the same image share one examination. More images than are examined at once are refused. An examination
// that no request waits for ends.
func TestDoctorIsBounded(t *testing.T) {
	t.Parallel()
	var began atomic.Int32
	started, release, ended := make(chan string, 10), make(chan struct{}), make(chan string, 10)
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Doctor: func(ctx context.Context, image, _ string) *doctor.Report {
		began.Add(1)
		started <- image
		select {
		case <-release:
		case <-ctx.Done():
			ended <- image
		}
		return &doctor.Report{Image: image, OK: true}
	}})
	ask := func(ctx context.Context, image string) int {
		status, _, _ := post(ctx, h, `{"image":"`+image+`"}`, "application/json")
		return status
	}
	var wg sync.WaitGroup
	for _, image := range []string{"a", "b", "c"} {
		wg.Go(func() {
			if status := ask(t.Context(), image); status != 200 {
				t.Errorf("%s: %d", image, status)
			}
		})
		<-started
	}
	ctx, leave := context.WithCancel(t.Context())
	wg.Go(func() { ask(ctx, "d") })
	<-started
	status, body, header := post(t.Context(), h, `{"image":"e"}`, "application/json")
	if status != 503 || header.Get("Retry-After") == "" || !strings.Contains(body, "4 images are being examined") {
		t.Errorf("a fifth image: %d %s", status, body)
	}
	// Further requests for a running examination take no further place, and do not end it when they leave.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 5 {
		if status := ask(gone, "a"); status != 200 {
			t.Errorf("a again: %d", status)
		}
	}
	leave()
	if image := <-ended; image != "d" {
		t.Errorf("%s ended, want d, which no request waits for", image)
	}
	close(release)
	wg.Wait()
	if len(ended) != 0 {
		t.Errorf("%s ended, although a request waited for it", <-ended)
	}
	if n := began.Load(); n != 4 {
		t.Errorf("%d examinations, want 4", n)
	}
}

// However often callers ask, and how many at once, the mirror checks itself once in half a minute; without the token it does not.
func TestSelfChecksAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		h := admin.New(admin.Options{
			Loopback: true, Hosts: asExample,
			Keys: func() admin.Keys { return admin.Keys{Token: "s3cret"} },
			Self: func(context.Context) *doctor.MirrorReport {
				runs.Add(1)
				time.Sleep(5 * time.Second)
				return &doctor.MirrorReport{OK: true, At: "mirror", Checks: []doctor.Check{{Area: "version", State: doctor.OK, Detail: "v1"}}}
			},
		})
		for range 100 {
			if status, _, _ := get(t, h, "GET", "/api/v1/doctor", ""); status != 401 {
				t.Fatalf("without a token: %d", status)
			}
		}
		ask := func(ctx context.Context) int {
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/doctor", nil)
			r.Header.Set("Authorization", "Bearer s3cret")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ask(gone) // its caller leaves
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				if code := ask(t.Context()); code != 200 {
					t.Errorf("%d", code)
				}
			})
		}
		group.Wait()
		for range 20 { // 20 s
			ask(t.Context())
			time.Sleep(time.Second)
		}
		if n := runs.Load(); n != 1 {
			t.Errorf("%d runs, want 1", n)
		}
		time.Sleep(30 * time.Second)
		ask(t.Context())
		if n := runs.Load(); n != 2 {
			t.Errorf("%d runs after a minute, want 2", n)
		}
		if status, _, _ := get(t, h, "GET", "/api/v1/doctor?x=1", "s3cret"); status != 400 {
			t.Errorf("a parameter: %d", status)
		}
	})
}
