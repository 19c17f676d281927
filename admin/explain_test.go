package admin_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
)

// told posts a text.
func told(t *testing.T, h http.Handler, body io.Reader) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/explain", body)
	r.Header.Set("Authorization", "Bearer s3cret")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// A text is read as mirror explain reads it. For a failure that the mirror has recorded, the answer has the record.
func TestExplain(t *testing.T) {
	t.Parallel()
	k := &kept{list: []journal.Failure{{
		Finding: diagnose.Finding{Reason: "credentials-expired", Class: "auth", Summary: "s", Remedy: "r", Evidence: []string{"e"}},
		ID:      "7f3a9c2e",
	}}}
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Keys: func() admin.Keys { return admin.Keys{Token: "s3cret"} }, Failures: k})
	const text = `Failed to pull image "docker.io/acme/app:1": failed to resolve image: unexpected status from HEAD request to ` +
		`http://127.0.0.1:5000/v2/acme/app/manifests/1?ns=docker.io: 502 Bad Gateway (mirror: x; y [7f3a9c2e])` + "\n" +
		`Failed to pull image "quay.io/acme/app:2": failed to resolve reference "quay.io/acme/app:2": quay.io/acme/app:2: not found` + "\n"
	if status, _, _ := get(t, h, "POST", "/api/v1/explain", ""); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	status, body := told(t, h, strings.NewReader(text))
	var got admin.Explanation
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
		t.Fatalf("%d %v", status, err)
	}
	for i := range got.Failures {
		if got.Failures[i].Text == "" || got.Failures[i].Summary == "" || got.Failures[i].Remedy == "" {
			t.Errorf("%+v", got.Failures[i])
		}
		got.Failures[i].Text = ""
	}
	slices.SortFunc(got.Failures, func(a, b admin.Explained) int { return cmp.Compare(a.Image, b.Image) })
	if len(got.Failures) != 2 || got.Failures[1].Reason != "tag-not-found" {
		t.Fatalf("%+v", got.Failures)
	}
	want := admin.Explained{
		Reason: "credentials-expired", Class: "auth", Summary: "s", Remedy: "r", Image: "docker.io/acme/app:1", ID: "7f3a9c2e", Count: 1,
		Host: "docker.io", Page: "docs/failures/credentials-expired.md", Evidence: []string{"e"},
	}
	if diff := gocmp.Diff(want, got.Failures[0]); diff != "" || !k.asked.Declined || k.asked.ID != "7f3a9c2e" {
		t.Errorf("asked for %+v (-want +got):\n%s", k.asked, diff)
	}
	if got.Classes["auth"] != 1 {
		t.Errorf("%v", got.Classes)
	}
	k.list = nil
	if _, body := told(t, h, strings.NewReader(text)); strings.Contains(body, "credentials-expired") || strings.Contains(body, "evidence") {
		t.Errorf("without a record: %s", body)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/explain", strings.NewReader("\x1f\x8b"))
	r.Header.Set("Authorization", "Bearer s3cret")
	r.Header.Set("Content-Encoding", "gzip")
	zipped := httptest.NewRecorder()
	if h.ServeHTTP(zipped, r); zipped.Code != 415 {
		t.Errorf("a compressed text: %d %s", zipped.Code, zipped.Body)
	}
	for _, tt := range []struct {
		name   string
		body   io.Reader
		status int
		want   string
	}{
		{"nothing", strings.NewReader(""), 200, `{"failures":[],"classes":{}}`},
		{"noise", strings.NewReader("\x00\xff{]"), 200, `{"failures":[],"classes":{}}`},
		{"far too long", strings.NewReader(strings.Repeat("all is well\n", 1<<20)), 413, "8 MiB"},
		{"broken off", io.MultiReader(strings.NewReader("Failed"), failing{}), 400, "send it again"},
	} {
		if status, body := told(t, h, tt.body); status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d %s", tt.name, status, body)
		}
	}
}

// A failure without an id in the text is found by its image and time.
func TestExplainByImage(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	k := &kept{list: []journal.Failure{{
		Finding: diagnose.Finding{Reason: "tag-not-found", Class: "missing", Summary: "s", Remedy: "r", Host: "ghcr.io"},
		ID:      "7f3a9c2e", Image: "ghcr.io/acme/app:2", FirstSeen: at.Add(-time.Hour), LastSeen: at.Add(-time.Minute),
	}}}
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Failures: k})
	for _, tt := range []struct{ name, at, image, want, textReason string }{
		{"at that time", "2026-11-23T12:00:00Z", "ghcr.io/acme/app:2", "tag-not-found", "dns-not-found"},
		{"while it was seen", "2026-11-23T11:30:00Z", "ghcr.io/acme/app:2", "tag-not-found", "dns-not-found"},
		{"the day after", "2026-11-24T12:00:00Z", "ghcr.io/acme/app:2", "dns-not-found", ""},
		{"another tag", "2026-11-23T12:00:00Z", "ghcr.io/acme/app:3", "dns-not-found", ""},
	} {
		status, body := told(t, h, strings.NewReader(`{"kind":"Event","reason":"Failed","lastTimestamp":"`+tt.at+
			`","message":"Failed to pull image \"`+tt.image+`\": dial tcp: lookup ghcr.io on 10.0.0.10:53: no such host"}`))
		var got admin.Explanation
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || len(got.Failures) != 1 {
			t.Fatalf("%s: %d %v %s", tt.name, status, err, body)
		}
		if f := got.Failures[0]; string(f.Reason) != tt.want || string(f.TextReason) != tt.textReason || got.Classes[string(f.Class)] != 1 {
			t.Errorf("%s: %s", tt.name, body)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// One text is read at a time, since that takes memory. Other requests wait for a short time.
func TestExplainTakesTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := admin.New(admin.Options{Loopback: true, Hosts: asExample})
		began, end := make(chan struct{}), make(chan struct{})
		done := make(chan int, 2)
		go func() { status, _ := told(t, h, &held{began: began, end: end}); done <- status }()
		<-began
		start := time.Now()
		status, body := told(t, h, strings.NewReader(""))
		if waited := time.Since(start); status != 503 || !strings.Contains(body, "in a moment") || waited != 10*time.Second {
			t.Errorf("while one is being read: %d %s after %s", status, body, waited)
		}
		go func() { status, _ := told(t, h, strings.NewReader("")); done <- status }()
		synctest.Wait()
		close(end)
		for range 2 {
			if status := <-done; status != 200 {
				t.Errorf("%d", status)
			}
		}
	})
}

// held is a body of which nothing comes until its end is allowed.
type held struct{ began, end chan struct{} }

func (h *held) Read([]byte) (int, error) {
	h.began <- struct{}{}
	<-h.end
	return 0, io.EOF
}

// Reading ends when the client leaves, and after a minute.
func TestExplainEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const text = `Failed to pull image "quay.io/acme/app:2": quay.io/acme/app:2: not found` + "\n"
		k := &kept{}
		h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Failures: k})
		ctx, leave := context.WithCancel(t.Context())
		body := io.MultiReader(strings.NewReader(text), at(leave))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/explain", body))
		if w.Body.Len() > 0 || k.asked.Image != "" {
			t.Errorf("after the client has left: %s, %+v", w.Body, k.asked)
		}
		body = io.MultiReader(strings.NewReader(text), at(func() { time.Sleep(61 * time.Second) }))
		if status, answer := told(t, h, body); status != 503 || !strings.Contains(answer, "in parts") || k.asked.Image != "" {
			t.Errorf("after a minute: %d %s", status, answer)
		}
	})
}

// at is a reader that does something at its end.
type at func()

func (f at) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// counting counts look-ups.
type counting struct {
	kept
	n int
}

func (c *counting) Failures(f journal.Filter) []journal.Failure {
	c.n++
	return c.kept.Failures(f)
}

// Only the most frequent failures of a text are looked up in the record.
func TestExplainLooksUpSoMany(t *testing.T) {
	t.Parallel()
	var events []string
	for i := range 1100 {
		events = append(events, fmt.Sprintf(`{"kind":"Event","reason":"Failed","message":"Failed to pull image \"quay.io/a/b:%d\": not found"}`, i))
	}
	c := &counting{}
	status, body := told(t, admin.New(admin.Options{Loopback: true, Hosts: asExample, Failures: c}), strings.NewReader(`{"kind":"List","items":[`+strings.Join(events, ",")+`]}`))
	var got admin.Explanation
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || len(got.Failures) != 1100 || c.n != 1000 {
		t.Errorf("%d %v: %d failures, %d questions", status, err, len(got.Failures), c.n)
	}
}
