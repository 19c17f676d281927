package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/warm"
)

// script is a Warmer with one job, which goes through states.
type script struct {
	states []warm.Job // the last is final
	plan   warm.Plan
	err    error           // of all requests
	gate   <-chan struct{} // the states after the first come when it is closed; nil: at once

	mu     sync.Mutex // guards what follows
	asked  []warm.Request
	ended  []string // jobs that were cancelled
	shown  int      // states that were yielded
	breaks int      // how many streams break off after one state
}

func (s *script) ask(r warm.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r)
	return s.err
}

func (s *script) Plan(_ context.Context, r warm.Request) (warm.Plan, error) { return s.plan, s.ask(r) }

func (s *script) Verify(_ context.Context, r warm.Request) ([]warm.Image, error) {
	return s.states[0].Images, s.ask(r)
}

func (s *script) Submit(r warm.Request) (warm.Job, bool, error) { return s.states[0], true, s.ask(r) }
func (s *script) Jobs() []warm.Job                              { return s.states[:1] }
func (s *script) Cancel(id string) error {
	s.ended = append(s.ended, id)
	_, err := s.Job(id)
	return err
}

func (s *script) Job(id string) (warm.Job, error) {
	if id != "3f9c2a7b" {
		return warm.Job{}, warm.ErrUnknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[min(s.shown, len(s.states)-1)], nil
}

func (s *script) Watch(ctx context.Context, _ string) iter.Seq2[warm.Job, error] {
	return func(yield func(warm.Job, error) bool) {
		for {
			s.mu.Lock()
			i, end := s.shown, s.breaks > 0
			s.shown = min(s.shown+1, len(s.states)-1)
			s.breaks--
			s.mu.Unlock()
			now := s.states[i]
			now.Revision = int64(i + 1)
			if !yield(now, nil) || now.State.Over() || end {
				return
			}
			select {
			case <-s.gate:
			case <-ctx.Done():
				yield(now, ctx.Err())
				return
			}
		}
	}
}

var (
	opened = func() <-chan struct{} {
		c := make(chan struct{})
		close(c)
		return c
	}()
	missingTag = &warm.Failure{
		ID: "7f3a9c2e", Reason: diagnose.TagNotFound, Class: diagnose.ClassMissing, Summary: "ghcr.io has no acme/app:v9",
		Remedy: "check the image's name and tag",
	}
)

// two is a job for two images, of which the second fails.
func two() *script {
	nginx := warm.Image{Image: "docker.io/library/nginx:1.27", State: warm.Queued}
	app := warm.Image{Image: "ghcr.io/acme/app:v9", State: warm.Queued}
	job := warm.Job{ID: "3f9c2a7b", State: warm.Running, CreatedAt: noon, Images: []warm.Image{nginx, app}}
	nginx.State, nginx.BytesTotal, nginx.BytesDone, nginx.BytesCached, nginx.KeptUntil = warm.Done, 30<<20, 30<<20, 10<<20, noon.Add(72*time.Hour)
	half := job
	half.Images = []warm.Image{nginx, app}
	half.BytesTotal, half.BytesDone, half.BytesCached = 30<<20, 30<<20, 10<<20
	half.Waiting = &warm.Waiting{Code: warm.WaitRateWindow, Text: "ghcr.io allows no more requests.", Until: noon}
	app.State, app.Failure = warm.Failed, missingTag
	last := half
	last.State, last.Waiting, last.Images, last.FinishedAt = warm.Failed, nil, []warm.Image{nginx, app}, noon
	return &script{states: []warm.Job{job, half, last}, gate: opened}
}

// running is the address of a mirror with a Warmer.
func running(t *testing.T, w admin.Warmer) string {
	t.Helper()
	s := httptest.NewServer(admin.New(admin.Options{Loopback: true, Warm: w}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestWarmLines(t *testing.T) {
	t.Parallel()
	s := two()
	s.states[1].Waiting = nil // a state that lasts for a moment may be missed
	code, stdout, stderr := commandLine(t, "warm", "nginx:1.27", "ghcr.io/acme/app:v9", "--keep", "3d", "--platform", "linux/arm64", "--platform", "linux/amd64",
		"--with", "signatures,referrers", "--max-size", "2GiB", "--admin", running(t, s))
	if diff := cmp.Diff(`done       docker.io/library/nginx:1.27  30 MiB, 10 MiB of it cached before
failed     ghcr.io/acme/app:v9           tag-not-found

ghcr.io/acme/app:v9
  ghcr.io has no acme/app:v9
  > check the image's name and tag [7f3a9c2e]

1 of 2 images are in the cache: 30 MiB, 20 MiB of it fetched now, kept until 2026-12-03T12:00:00Z.
`, stdout); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("mirror: 1 of 2 images failed\n", stderr); diff != "" || code != exitFailed {
		t.Errorf("code %d\n%s", code, diff)
	}
	want := []warm.Request{{
		Images: []string{"nginx:1.27", "ghcr.io/acme/app:v9"}, Keep: 72 * time.Hour, Platforms: []string{"linux/arm64", "linux/amd64"},
		With: []string{"signatures", "referrers"}, Fresh: true, MaxSize: 2 << 30,
	}}
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Error(diff)
	}
}

// What programs read is on the standard output alone: an object for each image, then one for the job; or the job.
func TestWarmForPrograms(t *testing.T) {
	t.Parallel()
	_, stdout, _ := commandLine(t, "warm", "nginx:1.27", "ghcr.io/acme/app:v9", "-o", "ndjson", "--admin", running(t, two()))
	var states []string
	for line := range strings.Lines(stdout) {
		var x struct{ Image, ID, State string }
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		states = append(states, x.Image+x.ID+" "+x.State)
	}
	if diff := cmp.Diff([]string{"docker.io/library/nginx:1.27 done", "ghcr.io/acme/app:v9 failed", "3f9c2a7b failed"}, states); diff != "" {
		t.Error(diff)
	}
	for _, form := range []string{"json", "yaml"} {
		code, stdout, _ := commandLine(t, "warm", "nginx:1.27", "ghcr.io/acme/app:v9", "-o", form, "--admin", running(t, two()))
		if code != exitFailed || strings.Count(stdout, "3f9c2a7b") != 1 || !strings.Contains(stdout, "keptUntil") {
			t.Errorf("%s: %d %s", form, code, stdout)
		}
	}
}

func TestWarmExitCodes(t *testing.T) {
	t.Parallel()
	fine := two()
	fine.states = fine.states[:1]
	fine.states[0].State = warm.Done
	for i := range fine.states[0].Images {
		fine.states[0].Images[i].State = warm.Done
	}
	cancelled := two()
	cancelled.states[2].State = warm.Cancelled
	refused := two()
	refused.err = &warm.InvalidError{Entries: []warm.Entry{{Index: 0, Image: "A", Text: "A is not a name"}, {Index: 1, Image: "B", Text: "B is not a name"}}}
	planned := two()
	planned.plan.Fits = true
	large := two()
	large.plan.Why = "2 GiB are needed"
	failing := two()
	failing.plan = warm.Plan{Fits: true, Images: []warm.Planned{{Image: "a", Failure: missingTag}, {Image: "b"}}}
	whole := two()
	whole.states[0].Images = []warm.Image{{Image: "a", Complete: true}}
	template := textFile(t, "broken.yaml", "image: nginx:1.27\n---\nimage: '{{ .Values.image }}'\n")
	for _, tt := range []struct {
		name string
		w    admin.Warmer
		args string
		code int
		says string // of the standard error; empty: it is empty
	}{
		{"all there", fine, "warm a", 0, ""},
		{"one failed", two(), "warm a", 1, "mirror: 1 of 2 images failed\n"},
		{"cancelled", cancelled, "warm a", 1, "job 3f9c2a7b was cancelled"},
		{"refused", refused, "warm A B", 1, "\n  images[0]: A is not a name\n  images[1]: B is not a name\n"},
		{"detached", two(), "warm a --detach", 0, ""},
		{"a plan", planned, "warm a --dry-run", 0, ""},
		{"a plan that does not fit", large, "warm a --dry-run", 1, "does not fit"},
		{"a plan with a failure", failing, "warm a b --dry-run", 1, "1 of 2 images can't be fetched"},
		{"verified", whole, "warm verify a", 0, ""},
		{"not complete", two(), "warm verify a", 1, "2 of 2 images would not pull without the registry"},
		{"shown", two(), "warm show 3f9c2a7b", 0, ""},
		{"shown, waiting", two(), "warm show 3f9c2a7b --wait", 1, "1 of 2 images failed"},
		{"shown, waiting, all there", fine, "warm show 3f9c2a7b --wait", 0, ""},
		{"listed", two(), "warm ls", 0, ""},
		{"listed by another word", two(), "warm list", 0, ""},
		{"ended", two(), "warm cancel 3f9c2a7b", 0, ""},
		{"an unknown job", two(), "warm show 1", 1, "mirror warm ls"},
		{"an unknown job", two(), "warm show 1 --wait", 1, "mirror warm ls"},
		{"an unknown job", two(), "warm cancel 1", 1, "mirror warm ls"},
		{"a file", fine, "warm -f " + textFile(t, "list.txt", "nginx:1.27\n"), 0, ""},
		{"a file that can't be read in full", fine, "warm -f " + template, 1, "broken.yaml:3 (document 2): image: "},
		{"a plan of it", planned, "warm --dry-run -f " + template, 1, "broken.yaml:3"},
		{"no file", fine, "warm -f nowhere.yaml", 1, "nowhere.yaml"},
		{"a file without images", fine, "warm -f " + textFile(t, "service.yaml", "kind: Service\n"), 1, "no image was found in"},
		{"nothing", fine, "warm", 2, "warm needs images, or files with -f"},
		{"nothing to verify", fine, "warm verify", 2, "warm verify needs images, or files with -f"},
		{"nearly a command", fine, "warm verfy", 2, `did you mean "verify"? The image is docker.io/library/verfy`},
		{"a time", fine, "warm a --keep long", 2, "--keep long: must be a duration"},
		{"a size", fine, "warm a --max-size big", 2, "--max-size big: must be a size, as in 20GiB"},
		{"two ways", fine, "warm a --dry-run --detach", 2, "dry-run detach"},
		{"a form", fine, "warm a -o table", 2, "ndjson"},
	} {
		t.Run(tt.name+" "+tt.args, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := commandLine(t, append(strings.Fields(tt.args), "--admin", running(t, tt.w))...)
			if code != tt.code || !strings.Contains(stderr, tt.says) || (tt.says == "") != (stderr == "") {
				t.Errorf("code %d, want %d\n%s%s", code, tt.code, stdout, stderr)
			}
		})
	}
	if code, _, stderr := commandLine(t, "warm", "a", "--admin", "127.0.0.1:1"); code != exitUnreachable {
		t.Errorf("no mirror: %d %s", code, stderr)
	}
}

// Images of files are asked for once, with those of arguments, and what failed is shown with its place.
func TestWarmFromTheStandardInput(t *testing.T) {
	t.Parallel()
	s := two()
	var stdout, stderr bytes.Buffer
	root := newRoot()
	root.SetIn(strings.NewReader("kind: Pod\nspec:\n  containers:\n    - image: nginx:1.27\n    - image: ghcr.io/acme/app:v9\n"))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs([]string{"warm", "nginx:1.27", "-f", "-", "--admin", running(t, s)})
	if err := root.ExecuteContext(t.Context()); err == nil {
		t.Error("no error")
	}
	if diff := cmp.Diff([]string{"nginx:1.27", "ghcr.io/acme/app:v9"}, s.asked[0].Images); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(stdout.String(), "\n  it stands in standard input:5: spec.containers[1].image\n") {
		t.Error(stdout.String())
	}
}

func TestPlanText(t *testing.T) {
	t.Parallel()
	p := admin.WarmPlan{
		Images: []admin.WarmPlanned{
			{Image: "docker.io/library/nginx:1.27", Digest: sumA, Platforms: []string{"linux/amd64", "linux/arm64"}, Bytes: 140 << 20, BytesCached: 70 << 20, BytesShared: 30 << 20, Requests: 3},
			{Image: "ghcr.io/acme/app:v9", Failure: &admin.WarmFailure{ID: "7f3a9c2e", Reason: "tag-not-found", Summary: "ghcr.io has no acme/app:v9", Remedy: "check the image's name and tag"}},
			{Image: "quay.io/acme/tool:1", Requests: 2, WaitingFor: &admin.WarmWaiting{Code: "upstream-down", Text: "quay.io does not answer."}},
		},
		Bytes: 140 << 20, BytesCached: 70 << 20, BytesMissing: 70 << 20, Requests: 5, Fits: true,
		Limits: []admin.WarmLimit{
			{Upstream: "docker.io", Requests: 3, Remaining: 1, EnoughAt: noon.Add(2 * time.Hour)},
			{Upstream: "ghcr.io", Requests: 1, Remaining: 100, EnoughAt: noon},
			{Upstream: "quay.io", Requests: 2, Remaining: 0},
		},
	}
	if diff := cmp.Diff(`IMAGE                         DIGEST               PLATFORMS                SIZE     CACHED   SHARED   REQUESTS
docker.io/library/nginx:1.27  sha256:8d3f30fecb15  linux/amd64 linux/arm64  140 MiB  70 MiB   30 MiB   3
ghcr.io/acme/app:v9           -                    -                        -        -        -        0
  ghcr.io has no acme/app:v9
  > check the image's name and tag [7f3a9c2e]
quay.io/acme/tool:1           -                    -                        unknown  unknown  unknown  2
  its manifests can't be had now: quay.io does not answer

At least 140 MiB in all, of which 70 MiB are cached: at least 70 MiB would be fetched, with 5 requests for manifests.
docker.io: the job needs 3 requests of its limit, and warm-up may make 1 now; it waits for more until 2026-11-30T14:00:00Z (in 2h0m0s).
ghcr.io: the job needs 1 request of its limit, and warm-up may make 100 now: enough.
quay.io: the job needs 2 requests of its limit, and warm-up may make 0 now; it waits for more.
`, planText(p, false, noon)); diff != "" {
		t.Error(diff)
	}
	p.Fits, p.Text = false, "140 MiB are needed, and cache.size is 100 MiB"
	if got := planText(p, false, noon); !strings.Contains(got, "\nIt does not fit: 140 MiB are needed, and cache.size is 100 MiB.\n") {
		t.Error(got)
	}
}

func TestJobTexts(t *testing.T) {
	t.Parallel()
	_, stdout, _ := commandLine(t, "warm", "show", "3f9c2a7b", "--admin", running(t, &script{states: two().states[2:], gate: opened}))
	for _, line := range []string{
		"job      3f9c2a7b", "state    failed", "size     30 MiB, 10 MiB were cached before", "ghcr.io/acme/app:v9           failed  -", "  > check the image's name and tag [7f3a9c2e]",
		"docker.io/library/nginx:1.27  done    -       -          30 MiB  2026-12-03T12:00:00Z",
	} {
		if !strings.Contains(stdout, line+"\n") && !strings.Contains(stdout, line+"  ") {
			t.Errorf("no line %q in\n%s", line, stdout)
		}
	}
	j := admin.WarmJob{
		ID: "3f9c2a7b", State: warm.Running, BytesDone: 1 << 30, BytesTotal: 3 << 30, CreatedAt: noon.Add(-2 * time.Minute), Counts: map[string]int64{"done": 12, "failed": 1, "running": 8, "queued": 9},
		WaitingFor: &admin.WarmWaiting{Code: "rate-window", Text: "t", Until: noon.Add(time.Hour)},
	}
	ended := admin.WarmJob{ID: "7c1e0411", State: warm.Done, Name: "nightly", BytesDone: 5 << 20, BytesTotal: 5 << 20, CreatedAt: noon.Add(-time.Hour), FinishedAt: noon.Add(-time.Hour), Counts: map[string]int64{"done": 1}}
	if diff := cmp.Diff(`JOB       STATE                         IMAGES    FAILED  SIZE            CREATED     ENDED       FOR
3f9c2a7b  running (waits: rate-window)  12 of 30  1       1 GiB of 3 GiB  2m0s ago    -           a request
7c1e0411  done                          1 of 1    0       5 MiB           1h0m0s ago  1h0m0s ago  nightly
`, jobsText(admin.WarmJobList{Jobs: []admin.WarmJob{j, ended}}, noon)); diff != "" {
		t.Error(diff)
	}
	if got := jobsText(admin.WarmJobList{}, noon); got != "There are no jobs.\n" {
		t.Error(got)
	}
}

func TestEndText(t *testing.T) {
	t.Parallel()
	done := admin.WarmImage{Image: "a", State: warm.Done, KeptUntil: noon}
	for want, j := range map[string]admin.WarmJob{
		"The image is in the cache: 5 B, 5 B of it fetched now, kept until 2026-11-30T12:00:00Z.\n":     {BytesDone: 5, Images: []admin.WarmImage{done}, Counts: map[string]int64{"done": 1}},
		"All 2 images are in the cache: 5 B, 0 B of it fetched now, kept until 2026-11-30T12:00:00Z.\n": {BytesDone: 5, BytesCached: 5, Images: []admin.WarmImage{done, done}, Counts: map[string]int64{"done": 2}},
		"0 of 1 images are in the cache.\n": {Images: []admin.WarmImage{{Image: "a", State: warm.Cancelled}}},
	} {
		if got := endText(j, nil); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// followed follows a job of a handler over a network in memory, in the time of synctest.
func followed(ctx context.Context, t *testing.T, h http.Handler, job string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	var n origin.Network
	l, err := n.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h} //nolint:gosec // no header comes late
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // until Close
	}()
	var f warmFlags
	f.dial = func(ctx context.Context) (net.Conn, error) { return n.Dial(ctx, "tcp", l.Addr().String()) }
	cmd := new(cobra.Command)
	cmd.SetContext(ctx)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err = f.follow(cmd, admin.WarmJob{ID: job})
	_ = s.Close()
	<-served
	if exit, ok := errors.AsType[*exitError](err); ok {
		code = exit.code
		errs.WriteString(exit.Error())
	} else if err != nil {
		code = -1
	}
	return code, out.String(), errs.String()
}

// A mirror that restarts while a job runs is waited for, two minutes at most. No image is reported twice.
func TestFollowOverARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := two()
		s.breaks = 2
		code, stdout, stderr := followed(t.Context(), t, admin.New(admin.Options{Loopback: true, Warm: s}), "3f9c2a7b")
		if code != exitFailed || strings.Count(stdout, "done       docker.io/library/nginx:1.27") != 1 || strings.Count(stdout, "failed     ghcr.io/acme/app:v9") != 1 {
			t.Errorf("%d\n%s%s", code, stdout, stderr)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		down := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		code, _, stderr := followed(t.Context(), t, down, "3f9c2a7b")
		if passed := time.Since(start); code != exitUnreachable || !strings.Contains(stderr, "mirror warm show 3f9c2a7b --wait") || passed < 2*time.Minute || passed > 3*time.Minute {
			t.Errorf("after %s: %d %s", passed, code, stderr)
		}
	})
}

// A mirror with too many streams is asked now and then.
func TestFollowWithoutAStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := two()
		h := admin.New(admin.Options{Loopback: true, Warm: s})
		asked := 0
		busy := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/events") {
				admin.Problem(w, http.StatusServiceUnavailable, "too many")
				return
			}
			asked++
			s.mu.Lock()
			s.shown = min(asked/1000, 2)
			s.mu.Unlock()
			h.ServeHTTP(w, r)
		})
		start := time.Now()
		code, stdout, stderr := followed(t.Context(), t, busy, "3f9c2a7b")
		if passed := time.Since(start); code != exitFailed || asked != 2000 || strings.Count(stdout, "\n") != 8 || passed < 60*time.Minute {
			t.Errorf("asked %d times in %s: %d\n%s%s", asked, passed, code, stdout, stderr)
		}
		// Nothing moves for half an hour: a line about the progress is repeated every five minutes.
		if n := strings.Count(stderr, "1 of 2 images done, 30 MiB, waiting: ghcr.io allows no more requests, until "); n < 6 || n > 8 {
			t.Errorf("%d lines in\n%s", n, stderr)
		}
	})
}

func TestFollowInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := two()
		s.gate = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		code, stdout, stderr := followed(ctx, t, admin.New(admin.Options{Loopback: true, Warm: s}), "3f9c2a7b")
		if code != exitFailed || !strings.Contains(stderr, "interrupted; job 3f9c2a7b goes on: mirror warm show 3f9c2a7b --wait waits for it") || s.ended != nil || stdout != "" {
			t.Errorf("%d\n%s%s", code, stdout, stderr)
		}
	})
}

func TestProgressText(t *testing.T) {
	t.Parallel()
	j := admin.WarmJob{BytesDone: 1 << 30, BytesTotal: 3 << 30, Images: make([]admin.WarmImage, 30), Counts: map[string]int64{"done": 12}}
	for _, tt := range []struct {
		perSecond float64
		change    func(*admin.WarmJob)
		want      string
	}{
		{0, func(*admin.WarmJob) {}, "12 of 30 images done, 1 GiB of 3 GiB"},
		{50 << 20, func(*admin.WarmJob) {}, "12 of 30 images done, 1 GiB of 3 GiB, 50 MiB/s, 41s left"},
		{1, func(*admin.WarmJob) {}, "12 of 30 images done, 1 GiB of 3 GiB"},
		{50 << 20, func(j *admin.WarmJob) { j.Counts["failed"] = 2 }, "12 of 30 images done, 2 failed, 1 GiB of 3 GiB, 50 MiB/s, 41s left"},
		{50 << 20, func(j *admin.WarmJob) { j.WaitingFor = &admin.WarmWaiting{Text: "the disk is full."} }, "12 of 30 images done, 2 failed, 1 GiB of 3 GiB, waiting: the disk is full"},
		{0, func(j *admin.WarmJob) { *j = admin.WarmJob{Images: make([]admin.WarmImage, 1)} }, "0 of 1 image done"},
	} {
		tt.change(&j)
		if got := progressText(j, tt.perSecond); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestSpeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s speed
		j := admin.WarmJob{BytesDone: 7 << 30, BytesCached: 7 << 30} // what was there is not fetched
		for i := range 60 {
			if got := s.now(j); i > 0 && (got < 980 || got > 1000) {
				t.Errorf("%f bytes/s after %d s, want 1000", got, i)
			}
			time.Sleep(time.Second)
			j.BytesDone += 1000
		}
		if got := s.now(j); got < 980 || got > 1000 {
			t.Errorf("%f bytes/s, want 1000", got)
		}
		for range 60 { // nothing comes any more
			time.Sleep(time.Second)
			s.now(j)
		}
		if got := s.now(j); got > 20 {
			t.Errorf("%f bytes/s after a minute without one", got)
		}
	})
}

// A line that can't be written is an error, not a success.
func TestWarmWithoutAnOutput(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if code := run(ctx, closedOutput{}, io.Discard, "warm", "a", "--admin", running(t, two())); code != exitFailed {
		t.Error(code)
	}
}

type closedOutput struct{}

func (closedOutput) Write([]byte) (int, error) { return 0, errors.New("closed") }

// The events of a large job have some of its images, and its last state is asked for.
func TestWarmOfManyImages(t *testing.T) {
	t.Parallel()
	first := warm.Job{ID: "3f9c2a7b", State: warm.Running, CreatedAt: noon}
	for i := range 150 {
		first.Images = append(first.Images, warm.Image{Image: fmt.Sprintf("docker.io/acme/app:v%d", i), State: warm.Queued})
	}
	last := first
	last.State, last.Images = warm.Done, slices.Clone(first.Images)
	for i := range last.Images {
		last.Images[i].State = warm.Done
	}
	s := &script{states: []warm.Job{first, last}, gate: opened}
	code, stdout, stderr := commandLine(t, "warm", "acme/app:v0", "--admin", running(t, s))
	if n := strings.Count(stdout, "\ndone "); code != 0 || n != 149 || !strings.Contains(stdout, "All 150 images are in the cache") {
		t.Errorf("%d: %d lines, %q", code, n, stderr)
	}
	s = &script{states: []warm.Job{first, last}, gate: opened}
	code, stdout, stderr = commandLine(t, "warm", "acme/app:v0", "-o", "json", "--admin", running(t, s))
	if n := strings.Count(stdout, `"state":"done"`); code != 0 || n != 151 || strings.Contains(stdout, "partial") {
		t.Errorf("%d: %d states, %q", code, n, stderr)
	}
}

// A plan that lacks the sizes of an image is not a success.
func TestPlanThatIsNotComplete(t *testing.T) {
	t.Parallel()
	s := two()
	s.plan = warm.Plan{Fits: true, Images: []warm.Planned{{Image: "quay.io/acme/tool:1", Waiting: &warm.Waiting{Code: warm.WaitUpstreamDown, Text: "quay.io does not answer"}}}}
	code, stdout, stderr := commandLine(t, "warm", "quay.io/acme/tool:1", "--dry-run", "--admin", running(t, s))
	if code != exitFailed || !strings.Contains(stdout, "unknown") || stderr != "mirror: 1 of 1 image could not be looked up, so the plan is not complete\n" {
		t.Errorf("%d: %s%s", code, stdout, stderr)
	}
}

// A command that waits for its input ends when it is interrupted.
func TestInterruptedInput(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"warm", "-f", "-"}, {"warm", "verify", "-f", "-"}, {"explain", "-"}} {
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		root := newRoot()
		root.SetIn(r)
		root.SetErr(io.Discard)
		root.SetArgs(args)
		ended := make(chan error, 1)
		go func() { ended <- root.ExecuteContext(ctx) }()
		if _, err := io.WriteString(w, "nginx:1.27\n"); err != nil { // it reads
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err == nil || err.Error() != "interrupted while it read its input" {
			t.Errorf("%s: %v", args, err)
		}
		_ = w.Close()
	}
}

// Names of files do not control the terminal.
func TestFileNamesAreShownClean(t *testing.T) {
	t.Parallel()
	name := textFile(t, "a\x1b[31m\u202e.yaml", "kind: Pod\nspec: {containers: [{image: '{{x}}'}, {image: ghcr.io/acme/app:v9}]}\n\"\x1b[31mz\": {image: '{{'}\n")
	for _, args := range [][]string{{"-f", name}, {"-f", filepath.Dir(name)}, {"-f", name + "\x1b"}, {"-f", name, "--admin", running(t, two())}} {
		_, stdout, stderr := commandLine(t, append([]string{"warm"}, args...)...)
		if strings.ContainsAny(stdout+stderr, "\x1b\u202e") || !strings.Contains(stderr, "[31m") {
			t.Errorf("%q: %q %q", args, stdout, stderr)
		}
	}
}

// A flag is never taken for its default.
func TestWarmFlagsThatSayNothing(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--keep is empty":     {"--keep", ""},
		"more than 0":         {"--keep", "0"},
		"36500d at most":      {"--keep", "999999d"},
		"--max-size 0: must":  {"--max-size", "0"},
		"--platform is empty": {"--platform", ""},
		"--with is empty":     {"--with", ""},
	} {
		s := two()
		code, _, stderr := commandLine(t, append([]string{"warm", "nginx:1", "--admin", running(t, s)}, args...)...)
		if code != exitUsage || !strings.Contains(stderr, want) || len(s.asked) > 0 {
			t.Errorf("%q: %d %s", args, code, stderr)
		}
	}
}

// Where there is nothing to fetch, or something is missing, the next step is said.
func TestWarmSaysTheNextStep(t *testing.T) {
	t.Parallel()
	file := configFile(t, "kind: Service\n")
	if code, _, stderr := commandLine(t, "warm", "-f", file); code != exitFailed || !strings.Contains(stderr, "give manifests, or lists") {
		t.Errorf("%d %s", code, stderr)
	}
	s := two()
	s.states[0].Images = s.states[0].Images[1:]
	want := "1 of 1 image would not pull without the registry; mirror warm ghcr.io/acme/app:v9 fetches what is missing"
	if code, _, stderr := commandLine(t, "warm", "verify", "acme/app:v9", "--admin", running(t, s)); code != exitFailed || !strings.Contains(stderr, want) {
		t.Errorf("%d %s", code, stderr)
	}
	if got := (&warm.QuotaError{Setting: "warm.maxJobs", Limit: 2, Have: 2, Asked: 1}).Error(); !strings.HasPrefix(got, "1 job is asked for beside 2 not over yet, and warm.maxJobs is 2;") {
		t.Error(got)
	}
}
