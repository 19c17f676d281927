package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/warm"
)

// warmer has one job, whose states a test sets.
type warmer struct {
	plan warm.Plan
	err  error // of all requests

	mu      sync.Mutex // guards what follows
	asked   []warm.Request
	done    []string
	now     warm.Job
	changed chan struct{} // closed by the next change
}

// newWarmer has a job in which everything is set.
func newWarmer() *warmer {
	failure := &warm.Failure{ID: "7f3a9c2e", Reason: diagnose.TagNotFound, Class: diagnose.ClassMissing, Summary: "s", Remedy: "r"}
	image := warm.Image{
		Image: "docker.io/acme/app:v1", State: warm.Failed, Digest: sum, Platforms: []string{"linux/amd64"}, BytesDone: 3, BytesCached: 1,
		BytesTotal: 3, Complete: true, KeptUntil: day, Failure: failure,
	}
	return &warmer{
		plan: warm.Plan{
			Images: []warm.Planned{{
				Image: "docker.io/acme/app:v1", Digest: sum, Platforms: []string{"linux/amd64"}, Waiting: &warm.Waiting{Code: warm.WaitDisk, Text: "t", Until: day},
				Failure: failure,
			}},
			Why: "w", Upstreams: []warm.Cost{{Upstream: "docker.io", Known: true, ResetAt: day, EnoughAt: day}, {Upstream: "ghcr.io"}},
		},
		now: warm.Job{
			ID: "3f9c2a7b", Name: "nightly", State: warm.Running, Revision: 7, Platforms: []string{"linux/amd64"}, Keep: time.Hour,
			With: []string{warm.Signatures}, CreatedAt: day, StartedAt: day, FinishedAt: day, BytesDone: 3, BytesCached: 1, BytesTotal: 3,
			Waiting: &warm.Waiting{Code: warm.WaitDisk, Text: "t", Until: day}, Images: []warm.Image{image},
		},
		changed: make(chan struct{}),
	}
}

func (w *warmer) ask(r warm.Request) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, r)
	return w.err
}

func (w *warmer) Plan(_ context.Context, r warm.Request) (warm.Plan, error) {
	return w.plan, w.ask(r)
}

func (w *warmer) Verify(_ context.Context, r warm.Request) ([]warm.Image, error) {
	return w.now.Images, w.ask(r)
}

func (w *warmer) Submit(r warm.Request) (warm.Job, bool, error) {
	return w.now, len(w.asked) == 0, w.ask(r)
}

func (w *warmer) Job(id string) (warm.Job, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || id == "unknown" {
		return warm.Job{}, errors.Join(warm.ErrUnknown, w.err)
	}
	return w.now, nil
}

func (w *warmer) Jobs() []warm.Job {
	if w.now.ID == "" {
		return nil
	}
	return []warm.Job{w.now}
}

func (w *warmer) Cancel(id string) error {
	w.done = append(w.done, "cancel "+id)
	_, err := w.Job(id)
	return err
}

// set makes a state that of the job.
func (w *warmer) set(change func(*warm.Job)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.now)
	w.now.Revision++
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *warmer) Watch(ctx context.Context, _ string) iter.Seq2[warm.Job, error] {
	return func(yield func(warm.Job, error) bool) {
		for {
			w.mu.Lock()
			now, changed := w.now, w.changed
			w.mu.Unlock()
			if !yield(now, nil) || now.State.Over() {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(now, ctx.Err())
				return
			}
		}
	}
}

func TestWarm(t *testing.T) {
	t.Parallel()
	w := newWarmer()
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Warm: w})
	full := warm.Request{
		Images: []string{"nginx"}, Platforms: []string{"linux/amd64", "linux/arm64"}, Keep: 7 * 24 * time.Hour, With: []string{"signatures", "referrers"},
		MaxSize: 9, Key: "k", Fresh: true,
	}
	withoutKey := full
	withoutKey.Key = ""
	verified := withoutKey
	verified.Fresh = false
	const manifest = "application/yaml"
	for _, tt := range []struct {
		name, path, contentType, body string
		status                        int
		want                          warm.Request
	}{
		{"JSON", "warm", "application/json", `{"images":["nginx"],"platforms":["linux/amd64","linux/arm64"],"keep":"7d","with":["signatures","referrers"],"maxSize":9}`, 202, full},
		{"manifests", "warm?platforms=linux/amd64,linux/arm64&keep=168h&with=signatures&with=referrers&maxSize=9", manifest, "image: nginx\n", 202, full},
		{"a query that wins", "warm?keep=7d&maxSize=9", "application/json", `{"images":["nginx"],"platforms":["linux/amd64","linux/arm64"],"keep":"1h","with":["signatures","referrers"]}`, 202, full},
		{"a plan", "warm?dryRun=true", "application/json", `{"images":["nginx"],"platforms":["linux/amd64","linux/arm64"],"keep":"7d","with":["signatures","referrers"],"maxSize":9}`, 200, withoutKey},
		{"a verification", "warm/verify", "application/json", `{"images":["nginx"],"platforms":["linux/amd64","linux/arm64"],"keep":"7d","with":["signatures","referrers"],"maxSize":9}`, 200, verified},
		{"dryRun=false", "warm?dryRun=false&platforms=linux/amd64,linux/arm64&keep=168h&with=signatures&with=referrers&maxSize=9", manifest, "image: nginx\n", 202, full},
	} {
		w.asked = nil
		got := asks(t, h, "POST", "/api/v1/"+tt.path, "localhost", tt.body, "Content-Type", tt.contentType, "Idempotency-Key", "k")
		if got.Code != tt.status || len(w.asked) != 1 {
			t.Errorf("%s: %d %s, %d requests", tt.name, got.Code, got.Body, len(w.asked))
			continue
		}
		if diff := gocmp.Diff(tt.want, w.asked[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if location := got.Header().Get("Location"); (tt.status == 202) != (location == "/api/v1/warm/3f9c2a7b") {
			t.Errorf("%s: Location %q", tt.name, location)
		}
	}
}

// A request that can't be met is refused, and each entry that is wrong is named.
func TestWarmIsRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("# ", 4<<20) + "\nimage: nginx\n"
	for _, tt := range []struct {
		name, path, contentType, body string
		err                           error
		status                        int
		says                          []string
	}{
		{"another field", "warm", "application/json", `{"image":"nginx"}`, nil, 400, []string{`unknown field \"image\"`, "application/yaml"}},
		{"pods as JSON", "warm", "application/json", `{"apiVersion":"v1","kind":"List"}`, nil, 400, []string{"application/yaml"}},
		{"no body", "warm", "application/json", "", nil, 400, []string{`{\"images\":`}},
		{"a parameter", "warm?platform=x", "application/json", `{}`, nil, 400, []string{"platform", "platforms, keep, with, maxSize"}},
		{"dryRun", "warm?dryRun=maybe", "application/json", `{"images":["a"]}`, nil, 400, []string{"dryRun=maybe", "true or false"}},
		{"keep", "warm?keep=long", "application/json", `{"images":["a"]}`, nil, 400, []string{"keep=long", "1h30m or 7d"}},
		{"keep below zero", "warm?keep=-1h", "application/json", `{"images":["a"]}`, nil, 400, []string{"keep=-1h"}},
		{"maxSize", "warm?maxSize=20GiB", "application/json", `{"images":["a"]}`, nil, 400, []string{"maxSize=20GiB", "number of bytes"}},
		{"keep of nothing", "warm", "application/json", `{"images":["a"],"keep":"0s"}`, nil, 400, []string{"keep=0s", "more than 0"}},
		{"keep that is empty", "warm", "application/json", `{"images":["a"],"keep":""}`, nil, 400, []string{"keep is empty"}},
		{"keep= that is empty", "warm?keep=", "application/json", `{"images":["a"]}`, nil, 400, []string{"keep=", "1h30m"}},
		{"too long a keep", "warm?keep=99999999999d", "application/json", `{"images":["a"]}`, nil, 400, []string{"36500d at most"}},
		{"too long a keep in hours", "warm?keep=99999999999999h", "application/json", `{"images":["a"]}`, nil, 400, []string{"36500d at most"}},
		{"no size", "warm", "application/json", `{"images":["a"],"maxSize":0}`, nil, 400, []string{"maxSize must be more than 0"}},
		{"maxSize=0", "warm?maxSize=0", "application/json", `{"images":["a"]}`, nil, 400, []string{"maxSize must be more than 0"}},
		{"more behind", "warm", "application/json", `{"images":["a"]} {"images":["b"]}`, nil, 400, []string{"more behind the JSON"}},
		{"more behind, verify", "warm/verify", "application/json", `{"images":["a"]}]`, nil, 400, []string{"more behind the JSON"}},
		{"a key twice", "warm", "application/json", `{"images":["a"],"keep":"1h","Images":["b"]}`, nil, 400, []string{`\"Images\" is there twice`}},
		{"another type", "warm", "application/json", `{"images":"a"}`, nil, 400, []string{"images has a wrong type, string"}},
		{"a list", "warm", "application/json", `[]`, nil, 400, []string{"it has a wrong type, array"}},
		{"a template", "warm", "application/yaml", "image: {{ .Values.image }}\n", nil, 400, []string{"body:1: image: ", "nothing is fetched"}},
		{"no image", "warm", "application/yaml", "kind: Service\n", nil, 400, []string{"no image was found"}},
		{"too long", "warm", "application/yaml", long, nil, 413, []string{"8 MiB", "mirror warm"}},
		{"too long, JSON", "warm/verify", "application/json", long, nil, 413, []string{"4 MiB"}},
		{"a form", "warm", "application/x-www-form-urlencoded", `{}`, nil, 415, []string{"application/json", "application/yaml"}},
		{"text", "warm", "text/plain", `{}`, nil, 415, []string{"application/yaml"}},
		{
			"wrong images", "warm", "application/json", `{"images":["A","b"]}`,
			&warm.InvalidError{Entries: []warm.Entry{{Index: 0, Image: "A", Text: "A is not a name"}, {Index: -1, Text: "with: x"}}}, 400,
			[]string{"images[0]: A is not a name", "with: x", "nothing is fetched"},
		},
		{"too many jobs", "warm", "application/json", `{"images":["a"]}`, &warm.QuotaError{Setting: "warm.maxJobs", Limit: 200, Have: 200, Asked: 1}, 429, []string{"warm.maxJobs"}},
		{"a used key", "warm", "application/json", `{"images":["a"]}`, &warm.KeyUsedError{Key: "k", ID: "3f9c2a7b"}, 422, []string{"3f9c2a7b", "new key"}},
		{"a full disk", "warm", "application/json", `{"images":["a"]}`, errors.New("write the job: disk full"), 500, []string{"disk full"}},
	} {
		w := newWarmer()
		w.err = tt.err
		got := asks(t, admin.New(admin.Options{Loopback: true, Hosts: asExample, Warm: w}), "POST", "/api/v1/"+tt.path, "localhost", tt.body, "Content-Type", tt.contentType)
		if got.Code != tt.status || tt.err == nil && len(w.asked) != 0 {
			t.Errorf("%s: %d %.500s, %d requests", tt.name, got.Code, got.Body, len(w.asked))
		}
		for _, s := range tt.says {
			if !strings.Contains(got.Body.String(), s) {
				t.Errorf("%s: %.500s does not say %s", tt.name, got.Body, s)
			}
		}
	}
	w := newWarmer()
	invalid := new(warm.InvalidError)
	for i := range 60 {
		invalid.Entries = append(invalid.Entries, warm.Entry{Index: i, Text: "x"})
	}
	w.err = invalid
	got := asks(t, admin.New(admin.Options{Loopback: true, Hosts: asExample, Warm: w}), "POST", "/api/v1/warm", "localhost", `{"images":["a"]}`, "Content-Type", "application/json")
	if text := got.Body.String(); !strings.Contains(text, "and 10 more") || strings.Contains(text, "images[55]") {
		t.Error(text)
	}
}

func TestWarmJobs(t *testing.T) {
	t.Parallel()
	w := newWarmer()
	var log bytes.Buffer
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Warm: w, Log: slog.New(slog.NewTextHandler(&log, nil))})
	status, body := request(t, h, "GET", "warm", "")
	var list admin.WarmJobList
	if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 || len(list.Jobs) != 1 || list.Jobs[0].Images != nil || list.Jobs[0].Counts["failed"] != 1 {
		t.Errorf("%d %s", status, body)
	}
	if status, body := request(t, h, "GET", "warm/3f9c2a7b", ""); status != 200 || !strings.Contains(body, `"images":[{"image":"docker.io/acme/app:v1"`) {
		t.Errorf("%d %s", status, body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if status, body := request(t, h, method, "warm/unknown", ""); status != 404 || !strings.Contains(body, "mirror warm ls") {
			t.Errorf("%s: %d %s", method, status, body)
		}
	}
	if status, body := request(t, h, "GET", "warm/unknown/events", ""); status != 404 {
		t.Errorf("%d %s", status, body)
	}
	for range 2 {
		if status, body := request(t, h, "DELETE", "warm/3f9c2a7b", ""); status != 204 {
			t.Errorf("%d %s", status, body)
		}
	}
	if status, _ := request(t, h, "POST", "warm", `{"images":["nginx"]}`); status != 202 {
		t.Error(status)
	}
	for _, line := range []string{`"warm-up cancelled" operator=(loopback) client=192.0.2.1:1234 id=3f9c2a7b`, `"warm-up requested" operator=(loopback) client=192.0.2.1:1234 id=3f9c2a7b count=1`} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("no line %s in\n%s", line, &log)
		}
	}
	if status, body := request(t, admin.New(admin.Options{Loopback: true, Hosts: asExample}), "GET", "warm", ""); status != 404 {
		t.Errorf("without an engine: %d %s", status, body)
	}
}

// A job has all of its images, or a page of them in the order of the request. What counts them counts all.
func TestPagesOfAJob(t *testing.T) {
	t.Parallel()
	w := newWarmer()
	const n = 2500
	want := make([]string, n)
	w.now.Images = make([]warm.Image, n)
	for i := range want {
		want[i] = fmt.Sprintf("docker.io/acme/app:%d", n-i) // in another order than that of names
		w.now.Images[i] = warm.Image{Image: want[i], State: warm.Queued}
	}
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Warm: w})
	for first, pages := range map[string]int{"": 1, "limit=1000": 3, "limit=500": 5} {
		var got []string
		query := first
		for page := 1; ; page++ {
			status, body := request(t, h, "GET", "warm/3f9c2a7b?"+query, "")
			var job admin.WarmJob
			if err := json.Unmarshal([]byte(body), &job); err != nil || status != 200 || job.ID != "3f9c2a7b" || job.Counts["queued"] != n {
				t.Fatalf("%s: %d, %v, %v", query, status, err, job.Counts)
			}
			for _, x := range job.Images {
				got = append(got, x.Image)
			}
			if job.Continue == "" || page > pages {
				if page != pages {
					t.Errorf("%q: %d pages, want %d", first, page, pages)
				}
				break
			}
			query = first + "&continue=" + job.Continue
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", first, diff)
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "continue=!", "images=1"} {
		if status, body := request(t, h, "GET", "warm/3f9c2a7b?"+query, ""); status != 400 {
			t.Errorf("%s: %d %.200s", query, status, body)
		}
	}
}

// A status has the jobs that run, those that failed in the last day, and when the next ones begin.
func TestStatusOfWarm(t *testing.T) {
	t.Parallel()
	w := newWarmer()
	next := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	schedules := []admin.Schedule{{Name: "night", Next: next}, {Name: "main"}}
	h := admin.New(admin.Options{
		Loopback: true, Hosts: asExample,
		Warm: w, About: func() admin.About { return admin.About{} }, Schedules: func() []admin.Schedule { return schedules },
	})
	status := func() *admin.StatusWarm {
		t.Helper()
		var s admin.Status
		_, body := request(t, h, "GET", "status", "")
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return s.Warm
	}
	same := func(want *admin.StatusWarm) {
		t.Helper()
		if diff := gocmp.Diff(want, status()); diff != "" {
			t.Error(diff)
		}
	}
	same(&admin.StatusWarm{Running: 1, Newest: []string{}, Schedules: schedules})
	w.set(func(j *warm.Job) { j.State, j.FinishedAt = warm.Failed, time.Now().Add(-time.Hour) })
	same(&admin.StatusWarm{Failed: 1, Newest: []string{"3f9c2a7b"}, Schedules: schedules})
	w.set(func(j *warm.Job) { j.FinishedAt = time.Now().Add(-25 * time.Hour) })
	schedules = nil
	same(nil)
}
