package feed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
	"github.com/registrymirror/mirror/warm/feed"
	"github.com/registrymirror/mirror/warm/warmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// images are those of the jobs.
func images(s *warmtest.Jobs) (list [][]string) {
	for _, r := range s.Requests() {
		list = append(list, r.Images)
	}
	return list
}

// under runs a Feed in a bubble of time.
func under(t *testing.T, s *warmtest.Jobs, test func(t *testing.T, f *feed.Feed, log *testlog.Log)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Log
		f := feed.New(feed.Options{
			Jobs: s, Keep: 72 * time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Canonical: func(r oci.Ref) (oci.Ref, bool) { return r, r.Host == "docker.io" || r.Host == "ghcr.io" },
		})
		stop := run(t, f)
		test(t, f, &log)
		stop()
	})
}

// run runs a Feed until the result is called.
func run(t *testing.T, f *feed.Feed) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	}
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func same(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

const (
	nginx = "docker.io/library/nginx:1"
	redis = "docker.io/library/redis:7"
	app   = "ghcr.io/acme/app:2"
)

// TestNewImages: images that come together are one job, each once; those of other registries, and what is not an image, are left out.
func TestNewImages(t *testing.T) {
	t.Parallel()
	s := &warmtest.Jobs{Takes: time.Minute}
	under(t, s, func(t *testing.T, f *feed.Feed, _ *testlog.Log) {
		f.Listing("Pod")
		f.Put("Pod", "prod/a", []string{"nginx:1", "elsewhere.example/x:1", "NOT AN IMAGE", "", strings.Repeat("a", 600)})
		pass(time.Second)
		f.Put("Pod", "prod/b", []string{"redis:7", "nginx:1"})
		f.Put("Deployment", "prod/idle", []string{app})
		f.Listed("Pod")
		pass(time.Minute)
		want := warm.Request{Images: []string{nginx, redis, app}, Keep: 72 * time.Hour, By: catalog.ByWarm, Name: "feed"}
		same(t, []warm.Request{want}, s.Requests())
		// The same again, and statuses that change, cost nothing.
		for range 100 {
			f.Put("Pod", "prod/b", []string{"redis:7", "nginx:1"})
		}
		pass(time.Hour)
		same(t, 1, len(s.Requests()))
		same(t, feed.Stats{Objects: 3, Images: 3, Warm: 3}, f.Stats())
		f.Put("Pod", "prod/b", []string{"redis:8"})
		pass(time.Minute)
		same(t, []string{"docker.io/library/redis:8"}, images(s)[1])
	})
}

// TestInUse: an image is in use for as long as an object names it.
func TestInUse(t *testing.T) {
	t.Parallel()
	s := &warmtest.Jobs{}
	under(t, s, func(t *testing.T, f *feed.Feed, _ *testlog.Log) {
		uses := func(want ...string) {
			t.Helper()
			got := []string{}
			for _, ref := range f.InUse() {
				got = append(got, ref.String())
			}
			slices.Sort(got)
			same(t, want, got)
		}
		f.Put("Pod", "prod/a", []string{"nginx:1", "redis:7"})
		f.Put("Pod", "prod/b", []string{"docker.io/library/nginx:1", "nginx:1"})
		f.Put("Deployment", "prod/a", []string{"nginx:1"})
		uses(nginx, redis)
		f.Put("Pod", "prod/a", []string{"nginx:1"})
		uses(nginx)
		f.Delete("Pod", "prod/b")
		f.Delete("Pod", "prod/b")
		f.Delete("Pod", "prod/a")
		uses(nginx)
		// A list that goes on takes nothing away; one that is complete does, of its kind.
		f.Put("Pod", "prod/c", []string{app})
		f.Put("Pod", "prod/d", []string{"redis:7"})
		f.Listing("Pod")
		f.Put("Pod", "prod/d", []string{"redis:7"})
		uses(nginx, redis, app)
		f.Listing("Pod") // it had to be begun anew
		f.Put("Pod", "prod/d", []string{"redis:7"})
		f.Listed("Pod")
		uses(nginx, redis)
		f.Listing("Deployment")
		f.Listed("Deployment")
		uses(redis)
	})
}

// TestKept: an image in use is brought anew when a part of its keep is over, and no more once it is not used.
func TestKept(t *testing.T) {
	t.Parallel()
	s := &warmtest.Jobs{Takes: time.Second}
	under(t, s, func(t *testing.T, f *feed.Feed, _ *testlog.Log) {
		f.Put("Deployment", "prod/idle", []string{"nginx:1"})
		pass(10 * 24 * time.Hour)
		if n := len(s.Requests()); n < 6 || n > 11 {
			t.Errorf("%d jobs in ten days", n)
		}
		begun := s.Begun()
		for i, at := range begun[1:] {
			if d := at.Sub(begun[i]); d > 37*time.Hour || d < 24*time.Hour {
				t.Errorf("the next job came after %s", d)
			}
		}
		n := len(s.Requests())
		f.Delete("Deployment", "prod/idle")
		pass(10 * 24 * time.Hour)
		same(t, n, len(s.Requests()))
	})
}

// TestFailing: an image that can't be brought is tried again after growing pauses, and delays no other.
func TestFailing(t *testing.T) {
	t.Parallel()
	s := &warmtest.Jobs{Takes: time.Second, Fails: map[string]bool{nginx: true}}
	under(t, s, func(t *testing.T, f *feed.Feed, _ *testlog.Log) {
		f.Put("Pod", "prod/a", []string{"nginx:1", "redis:7"})
		pass(time.Minute)
		same(t, feed.Stats{Objects: 1, Images: 2, Warm: 1, Failing: 1}, f.Stats())
		pass(24 * time.Hour)
		tries := 0
		for _, images := range images(s)[1:] {
			if slices.Contains(images, nginx) {
				tries++
				same(t, []string{nginx}, images)
			}
		}
		if tries < 6 || tries > 9 { // 10, 20, 40 minutes ... 6 hours
			t.Errorf("%d more tries in a day", tries)
		}
		s.Set(func() { s.Fails = nil })
		pass(7 * time.Hour)
		same(t, 2, f.Stats().Warm)
		same(t, 0, f.Stats().Failing)
	})
}

// TestTooLarge: of a job that is larger than its share all images fail. They come in smaller ones.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	s := &warmtest.Jobs{Takes: time.Second, FailsAll: func(images []string) bool { return len(images) > 10 }}
	under(t, s, func(t *testing.T, f *feed.Feed, _ *testlog.Log) {
		for i := range 40 {
			f.Put("Pod", fmt.Sprint("prod/", i), []string{fmt.Sprint("app:", i)})
		}
		pass(2 * time.Hour)
		same(t, feed.Stats{Objects: 40, Images: 40, Warm: 40}, f.Stats())
		if n := len(s.Requests()); n > 15 {
			t.Errorf("%d jobs", n)
		}
	})
}

// TestTooLargeAlone: an image that is tried again takes no new one with it.
func TestTooLargeAlone(t *testing.T) {
	t.Parallel()
	s := &warmtest.Jobs{Takes: time.Second, FailsAll: func(images []string) bool { return slices.Contains(images, nginx) }}
	under(t, s, func(t *testing.T, f *feed.Feed, _ *testlog.Log) {
		f.Put("Pod", "prod/a", []string{"nginx:1"})
		pass(5 * time.Second)
		for i := range 700 { // new images come all the time
			pass(time.Second)
			f.Put("Pod", fmt.Sprint("prod/", i), []string{fmt.Sprint("app:", i)})
		}
		pass(time.Minute)
		same(t, feed.Stats{Objects: 701, Images: 701, Warm: 700, Failing: 1}, f.Stats())
	})
}

// TestMany: a large cluster has few jobs at once, and none that is large.
func TestMany(t *testing.T) {
	t.Parallel()
	s := &warmtest.Jobs{Takes: time.Minute}
	under(t, s, func(t *testing.T, f *feed.Feed, log *testlog.Log) {
		for i := range 25_000 {
			f.Put("Pod", fmt.Sprint("prod/", i), []string{fmt.Sprint("app:", i%21_000)})
		}
		for range 30 {
			pass(10 * time.Second)
			if n := s.Running(); n > 4 {
				t.Errorf("%d jobs at once", n)
			}
		}
		for _, images := range images(s) {
			if len(images) > 50 {
				t.Errorf("a job of %d images", len(images))
			}
		}
		if n := len(s.Requests()); n < 16 {
			t.Errorf("%d jobs in five minutes", n)
		}
		same(t, feed.Stats{Objects: 25_000, Images: 20_000, Warm: f.Stats().Warm}, f.Stats())
		if n := strings.Count(log.String(), "left out"); n != 1 {
			t.Errorf("the log says it %d times", n)
		}
	})
}

// TestRefused: where the quotas of jobs are used up, the feed waits, and says so once.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := &warmtest.Jobs{Takes: time.Second, Refuse: &warm.QuotaError{Setting: "warm.maxJobs", Limit: 1, Have: 1, Asked: 1}}
	under(t, s, func(t *testing.T, f *feed.Feed, log *testlog.Log) {
		f.Put("Pod", "prod/a", []string{"nginx:1"})
		for range 120 {
			pass(time.Minute)
			f.Put("Pod", fmt.Sprint("prod/", time.Now()), []string{fmt.Sprint("app:", time.Now().Unix())})
		}
		if s.Refused() > 10 || s.Refused() < 5 {
			t.Errorf("%d requests in two hours", s.Refused())
		}
		if n := strings.Count(log.String(), "was refused"); n != 1 {
			t.Errorf("the log says it %d times:\n%s", n, log)
		}
		s.Set(func() { s.Refuse = nil })
		pass(time.Hour)
		same(t, 121, f.Stats().Warm)
	})
}

// TestRefresh: after the upstreams have changed, other images are of this mirror.
func TestRefresh(t *testing.T) {
	t.Parallel()
	s := &warmtest.Jobs{}
	var ours sync.Map
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(feed.Options{Jobs: s, Canonical: func(r oci.Ref) (oci.Ref, bool) {
			_, ok := ours.Load(r.Host)
			return r, ok
		}})
		stop := run(t, f)
		f.Put("Pod", "prod/a", []string{app})
		pass(time.Minute)
		same(t, 0, len(s.Requests()))
		ours.Store("ghcr.io", true)
		f.Refresh()
		pass(time.Minute)
		same(t, [][]string{{app}}, images(s))
		ours.Clear()
		f.Refresh()
		pass(100 * time.Hour)
		same(t, 1, len(s.Requests()))
		same(t, feed.Stats{Objects: 1}, f.Stats())
		stop()
	})
}
