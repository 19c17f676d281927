package warm_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/warm"
)

// A mirror that is killed in the middle of a job goes on with it, and fetches nothing a second time that is here.
func TestKilledJobGoesOn(t *testing.T) {
	inBubble(t, warm.Options{Limits: warm.Limits{Parallel: 1}}, func(t *testing.T, w *world) {
		w.rate = mib
		w.push("acme/a:1", amd64, blob{"a1", 10 * mib}, blob{"a2", 10 * mib}, blob{"a3", 10 * mib})
		w.push("acme/b:1", amd64, blob{"b", 10 * mib})
		id := w.submit("acme/a:1", "acme/b:1").ID
		time.Sleep(15 * time.Second)
		w.table.SetFail(func() error { return errors.New("killed") }) // nothing is written any more
		w.stop()
		w.table.SetFail(nil)
		asked := w.took()
		if got := w.kept("a1"); got != 1 {
			t.Fatalf("a1 is kept by %d", got)
		}
		w.keeps = make(map[string]kept) // keeps are in memory
		w.start()
		synctest.Wait()
		if got := w.kept("a1"); got != 1 {
			t.Errorf("after the restart a1 is kept by %d", got)
		}
		j := w.finished(id)
		if j.State != warm.Done || j.BytesDone != j.BytesTotal || j.BytesCached != 0 {
			t.Errorf("job %+v", j)
		}
		if diff := cmp.Diff([]string{"BLOB a2", "BLOB a3", "BLOB b"}, w.took()); diff != "" {
			t.Errorf("requests before the kill: %v; after it (-want +got):\n%s", asked, diff)
		}
	})
}

// Jobs that are over are still shown after a restart, and their keeps are made again before the cache may evict.
func TestKeepsOverARestart(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.push("acme/a:1", amd64, blob{"a", mib})
		w.push("acme/b:1", amd64, blob{"b", mib})
		before := w.finished(w.request(warm.Request{Images: []string{"acme/a:1", "acme/b:1", "acme/none:1"}, Keep: time.Hour}).ID)
		time.Sleep(2 * time.Second) // it is written
		w.stop()
		w.keeps = make(map[string]kept)
		w.lose("b") // as by a purge
		e := warm.New(w.o)
		e.Restore(t.Context())
		if w.kept("a") != 1 || w.kept("b") != 0 {
			t.Errorf("a is kept by %d, b by %d; want 1 and 0", w.kept("a"), w.kept("b"))
		}
		w.start()
		after := w.job(before.ID)
		after.Revision, before.Revision = 0, 0
		before.Images[1].KeptUntil, before.Images[1].Complete = time.Time{}, false
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the job after the restart (-before +after):\n%s", diff)
		}
		time.Sleep(time.Hour)
		if got := w.kept("a"); got != 0 {
			t.Errorf("an hour later a is kept by %d", got)
		}
		w.took()
		if _, created, err := w.Submit(warm.Request{Images: []string{"acme/a:1"}}); err != nil || !created {
			t.Errorf("a further job: %t, %v", created, err)
		}
	})
}

// A cancel ends what no other job wants, and all keeps; a second one changes nothing.
func TestCancel(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.rate = mib
		shared := blob{"shared", 60 * mib}
		w.push("acme/a:1", amd64, shared, blob{"a", 60 * mib})
		w.push("acme/b:1", amd64, shared)
		w.push("acme/c:1", amd64, blob{"c", mib})
		a := w.submit("acme/a:1", "acme/c:1").ID
		b := w.submit("acme/b:1").ID
		time.Sleep(10 * time.Second)
		for range 2 {
			if err := w.Cancel(a); err != nil {
				t.Fatal(err)
			}
		}
		j := w.job(a)
		if diff := cmp.Diff(map[warm.State]int{warm.Cancelled: 1, warm.Done: 1}, states(j)); diff != "" || j.State != warm.Cancelled {
			t.Errorf("job %s (-want +got):\n%s", j.State, diff)
		}
		if w.kept("a") != 0 || w.kept("c") != 0 || w.kept("shared") != 1 {
			t.Errorf("kept: a %d, c %d, shared %d; want 0, 0, 1", w.kept("a"), w.kept("c"), w.kept("shared"))
		}
		if s := w.Engine.Stats(); s.Running != 1 || s.Kept != 60*mib+2*kib {
			t.Errorf("%d downloads, %d bytes kept; want the shared blob alone", s.Running, s.Kept)
		}
		if got := w.finished(b); got.State != warm.Done {
			t.Errorf("the other job is %s", got.State)
		}
		if n := count(w.took(), "BLOB shared"); n != 1 {
			t.Errorf("the shared blob was requested %d times", n)
		}
		if err := w.Cancel(b); err != nil || w.kept("shared") != 0 {
			t.Errorf("cancel of a job that is over: %v, %d keeps", err, w.kept("shared"))
		}
		if got := w.job(b); got.State != warm.Done || !got.Images[0].KeptUntil.IsZero() {
			t.Errorf("after the cancel: %+v", got)
		}
		if err := w.Cancel("none"); !errors.Is(err, warm.ErrUnknown) {
			t.Errorf("cancel of a job that is not there: %v", err)
		}
		w.restart()
		if got := w.job(a); got.State != warm.Cancelled {
			t.Errorf("after a restart the job is %s", got.State)
		}
	})
}

// A limit that is reached in the middle is waited for, and nothing fails. The job says until when.
func TestRateWindow(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		until := time.Now().Add(6 * time.Hour)
		w.push("ghcr.io/acme/other:1", amd64, blob{"other", mib})
		images := []string{"ghcr.io/acme/other:1"}
		for i := range 10 {
			name := fmt.Sprintf("acme/app:v%d", i)
			images = append(images, name)
			w.push(name, amd64, blob{"layer " + name, mib})
		}
		var left atomic.Int32
		left.Store(4)
		w.fails(func(request string) error {
			if strings.HasPrefix(request, "TREE docker.io") && time.Now().Before(until) {
				if left.Add(-1) < 0 {
					return fmt.Errorf("resolve: %w", &fault.ReserveError{Upstream: "docker.io", Until: until})
				}
			}
			return nil
		})
		id := w.submit(images...).ID
		time.Sleep(time.Minute)
		j := w.job(id)
		if diff := cmp.Diff(map[warm.State]int{warm.Done: 5, warm.Running: 6}, states(j)); diff != "" {
			t.Errorf("while it waits (-want +got):\n%s", diff)
		}
		if j.Waiting == nil || j.Waiting.Code != warm.WaitRateWindow || !j.Waiting.Until.Equal(until) {
			t.Errorf("waiting for %+v, want the window until %s", j.Waiting, until)
		}
		if n := count(w.took(), "TREE"); n != 11 {
			t.Errorf("%d requests for manifests, want one each", n)
		}
		j = w.finished(id)
		if j.State != warm.Done || j.FinishedAt.Before(until) || j.FinishedAt.After(until.Add(time.Minute)) {
			t.Errorf("%s at %s, want done soon after %s", j.State, j.FinishedAt, until)
		}
	})
}

// A registry that is down is waited for, by one request at a time; blobs of others come meanwhile.
func TestRegistryIsDownForAWhile(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		up := time.Now().Add(20 * time.Minute)
		down := diagnose.New(diagnose.ConnectRefused, "docker.io refuses the connection", "check that it runs")
		w.fails(func(request string) error {
			if strings.HasPrefix(request, "TREE docker.io") && time.Now().Before(up) {
				return down
			}
			return nil
		})
		images := []string{"ghcr.io/acme/other:1"}
		w.push(images[0], amd64, blob{"other", mib})
		for i := range 50 {
			name := fmt.Sprintf("acme/app:v%d", i)
			images = append(images, name)
			w.push(name, amd64, blob{"layer " + name, mib})
		}
		id := w.submit(images...).ID
		time.Sleep(10 * time.Minute)
		j := w.job(id)
		if j.Images[0].State != warm.Done || j.Waiting == nil || j.Waiting.Code != warm.WaitUpstreamDown || !j.Waiting.Until.After(time.Now()) {
			t.Errorf("%s, waiting for %+v; want the other registry's image done, and a time", j.Images[0].State, j.Waiting)
		}
		if n := count(w.took(), "TREE docker.io"); n > 25 {
			t.Errorf("%d requests in ten minutes to a registry that is down", n)
		}
		if j = w.finished(id); j.State != warm.Done || j.FinishedAt.After(up.Add(3*time.Minute)) {
			t.Errorf("%s at %s, want done soon after %s", j.State, j.FinishedAt, up)
		}
	})
}

// Patience has an end: then all images of the registry have failed, with its reason, and those of others are done.
func TestRegistryStaysDown(t *testing.T) {
	inBubble(t, warm.Options{Patience: 30 * time.Minute}, func(t *testing.T, w *world) {
		w.fails(func(request string) error {
			if strings.HasPrefix(request, "BLOB bad") {
				return diagnose.New(diagnose.UpstreamTimeout, "it took too long", "wait")
			}
			return nil
		})
		images := []string{"ghcr.io/acme/other:1"}
		w.push(images[0], amd64, blob{"other", mib})
		for i := range 20 {
			images = append(images, fmt.Sprintf("acme/app:v%d", i))
			w.push(images[i+1], amd64, blob{fmt.Sprintf("bad %d", i), mib})
		}
		j := w.finished(w.submit(images...).ID)
		if diff := cmp.Diff(map[warm.State]int{warm.Done: 1, warm.Failed: 20}, states(j)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if f := j.Images[7].Failure; f == nil || f.Reason != diagnose.UpstreamTimeout || f.ID == "" {
			t.Errorf("failure %+v", f)
		}
		if took := j.FinishedAt.Sub(j.CreatedAt); took < 30*time.Minute || took > 35*time.Minute {
			t.Errorf("it took %s", took)
		}
		if s := w.Engine.Stats(); s.Kept != mib+2*kib || s.Images[warm.Failed] != 20 || s.Causes[diagnose.ClassNetwork] != 20 {
			t.Errorf("%+v", s)
		}
	})
}

// One image whose blob never comes fails soon, at a registry that works for others meanwhile.
func TestOneBlobNeverComes(t *testing.T) {
	inBubble(t, warm.Options{Limits: warm.Limits{Parallel: 1}}, func(t *testing.T, w *world) {
		w.rate = mib
		w.fails(func(request string) error {
			if request == "BLOB bad" {
				return diagnose.New(diagnose.Stalled, "no byte came", "wait")
			}
			return nil
		})
		w.push("acme/bad:1", amd64, blob{"bad", mib})
		images := []string{"acme/bad:1"}
		for i := range 60 {
			name := fmt.Sprintf("acme/app:v%d", i)
			images = append(images, name)
			w.push(name, amd64, blob{"layer " + name, 10 * mib})
		}
		j := w.finished(w.submit(images...).ID)
		if diff := cmp.Diff(map[warm.State]int{warm.Done: 60, warm.Failed: 1}, states(j)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if n := count(w.took(), "BLOB bad"); n < 2 || n > 10 {
			t.Errorf("the bad blob was requested %d times", n)
		}
		if took := j.FinishedAt.Sub(j.CreatedAt); took > 20*time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

// Content without room is refused in numbers before a blob is asked for.
func TestNoRoom(t *testing.T) {
	for name, c := range map[string]struct {
		limits  warm.Limits
		maxSize int64
		free    int64
		size    int64 // of the image
		says    string
	}{
		"a model of 100 GB for a cache of 20": {size: 100 * gib, says: "100 GiB are needed, and cache.size is 20 GiB"},
		"the share":                           {size: 11 * gib, says: "11 GiB are needed, and warm.maxShare lets jobs keep 10 GiB of the cache, of which 1 GiB are kept already"},
		"a larger share":                      {limits: warm.Limits{MaxShare: 1}, size: 19500 * mib, says: "19 GiB are needed, and warm.maxShare lets jobs keep 20 GiB of the cache, of which 1 GiB are kept already"},
		"the request":                         {maxSize: gib, size: 2 * gib, says: "2 GiB are needed, and max-size is 1 GiB"},
		"the setting":                         {limits: warm.Limits{MaxBytes: 3 * gib}, size: 4 * gib, says: "4 GiB are needed, and warm.maxBytes is 3 GiB"},
		"the disk":                            {free: 2 * gib, size: 3 * gib, says: "3 GiB are needed, and the disk of the cache has room for 2 GiB"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, warm.Options{Limits: c.limits}, func(t *testing.T, w *world) {
				w.push("acme/first:1", amd64, blob{"first", gib})
				first := w.finished(w.submit("acme/first:1").ID)
				w.took()
				w.free = c.free
				w.push("acme/model:1", []string{""}, blob{"model", c.size})
				w.push("acme/small:1", amd64, blob{"small", kib})
				r := warm.Request{Images: []string{"acme/small:1", "acme/model:1"}, MaxSize: c.maxSize}
				plan, err := w.Plan(t.Context(), r)
				if err != nil || plan.Fits || !strings.HasPrefix(plan.Why, c.says) {
					t.Errorf("plan: %v, fits %t, %q; want %q", err, plan.Fits, plan.Why, c.says)
				}
				j := w.finished(w.request(r).ID)
				f := j.Images[1].Failure
				if j.State != warm.Failed || f == nil || f.Reason != diagnose.NoRoom || !strings.HasPrefix(f.Summary, c.says) || f.Remedy == "" {
					t.Errorf("job %s, failure %+v; want %q", j.State, f, c.says)
				}
				if n := count(w.took(), "BLOB"); n != 0 {
					t.Errorf("%d blobs were requested", n)
				}
				if s := w.Engine.Stats(); s.Kept != gib+2*kib || w.kept("small") != 0 {
					t.Errorf("kept: %d bytes, want those of the first job", s.Kept)
				}
				if got := w.job(first.ID); got.State != warm.Done || w.kept("first") != 1 {
					t.Errorf("the first job: %s, kept by %d", got.State, w.kept("first"))
				}
			})
		})
	}
}

// What is here already, and what jobs keep already, needs no room again.
func TestRoomIsNotNeededTwice(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.push("acme/a:1", amd64, blob{"base", 9 * gib})
		w.push("acme/b:1", amd64, blob{"base", 9 * gib}, blob{"b", mib})
		for _, image := range []string{"acme/a:1", "acme/a:1", "acme/b:1"} {
			if j := w.finished(w.submit(image).ID); j.State != warm.Done {
				t.Errorf("%s: %+v", image, j.Images[0].Failure)
			}
		}
	})
}

// Content that pods use is not evicted for a job: it is kept while there are jobs, and a job that needs its room is refused.
func TestContentInUse(t *testing.T) {
	used := ref("acme/used:1")
	o := warm.Options{InUse: func() []oci.Ref { return []oci.Ref{used} }, Limits: warm.Limits{MaxShare: 1}}
	inBubble(t, o, func(t *testing.T, w *world) {
		w.push("acme/used:1", amd64, blob{"used", 12 * gib})
		w.here[named(used.String())], w.here[named(used.String()+"linux/amd64")], w.here[named("used")] = kib, kib, 12*gib
		w.push("acme/big:1", amd64, blob{"big", 10 * gib})
		w.push("acme/fits:1", amd64, blob{"fits", 7 * gib})
		j := w.finished(w.submit("acme/big:1").ID)
		if f := j.Images[0].Failure; f == nil || f.Summary != "10 GiB are needed, and of cache.size, 20 GiB, jobs keep 0 B and pods use 12 GiB, which is not evicted for a job" {
			t.Errorf("failure %+v", f)
		}
		if n := count(w.took(), "BLOB"); n != 0 {
			t.Errorf("%d blobs were requested", n)
		}
		w.rate = gib
		id := w.submit("acme/fits:1").ID
		time.Sleep(3 * time.Second)
		if w.kept("used") != 1 {
			t.Errorf("what pods use is kept by %d while a job runs", w.kept("used"))
		}
		if j := w.finished(id); j.State != warm.Done {
			t.Errorf("a job beside it: %+v", j.Images[0].Failure)
		}
		time.Sleep(time.Hour)
		if w.kept("used") != 0 {
			t.Error("what pods use is kept though there are no jobs")
		}
		// The image that pods use is warmed: its room is not needed twice.
		if j := w.finished(w.submit("acme/used:1").ID); j.State != warm.Done {
			t.Errorf("the image in use: %+v", j.Images[0].Failure)
		}
	})
}

// Two hundred jobs at once: blobs that they share are fetched once, in bounded goroutines, and each job has its turn.
func TestTwoHundredJobs(t *testing.T) {
	inBubble(t, warm.Options{Limits: warm.Limits{Parallel: 6}}, func(t *testing.T, w *world) {
		w.rate = mib
		for i := range 50 {
			w.push(fmt.Sprintf("acme/app:v%d", i), amd64, blob{"base", 5 * mib}, blob{fmt.Sprintf("layer %d", i), 2 * mib})
		}
		before := runtime.NumGoroutine()
		var ids []string
		for i := range 200 {
			ids = append(ids, w.submit(fmt.Sprintf("acme/app:v%d", i%50), fmt.Sprintf("acme/app:v%d", (i+1)%50)).ID)
		}
		time.Sleep(3 * time.Second)
		if more := runtime.NumGoroutine() - before; more > 40 { // other tests run beside this one
			t.Errorf("%d goroutines more for 200 jobs", more)
		}
		if _, _, err := w.Submit(warm.Request{Images: []string{"acme/app:v1"}}); err == nil || err.Error() != "1 job is asked for beside 200 not over yet, and warm.maxJobs is 200; wait for some to end, cancel a job (mirror warm cancel JOB), or raise warm.maxJobs" {
			t.Errorf("job 201: %v", err)
		}
		if got := w.job(ids[199]); got.State != warm.Running && got.Waiting == nil {
			t.Errorf("the last job is %s, waiting for %+v", got.State, got.Waiting)
		}
		for _, id := range ids {
			if j := w.finished(id); j.State != warm.Done {
				t.Fatalf("%+v", j)
			}
		}
		if n := count(w.took(), "BLOB"); n != 51 || w.most() > 6 {
			t.Errorf("%d requests for 51 blobs, %d at once", n, w.most())
		}
	})
}

// The same key with the same request is the same job, with another one an error; over a restart, too.
func TestIdempotencyKey(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.push("acme/a:1", amd64, blob{"a", mib})
		r := warm.Request{Images: []string{"acme/a:1"}, Platforms: both[:1], Key: "deploy-17"}
		first := w.request(r)
		w.finished(first.ID)
		for range 2 {
			same := r
			same.Images = []string{"docker.io/acme/a:1"}
			if j, created, err := w.Submit(same); err != nil || created || j.ID != first.ID {
				t.Errorf("the same request: %s, %t, %v; want job %s", j.ID, created, err, first.ID)
			}
			other := r
			other.Keep = time.Hour
			_, _, err := w.Submit(other)
			if used, ok := errors.AsType[*warm.KeyUsedError](err); !ok || used.ID != first.ID {
				t.Errorf("another request: %v", err)
			}
			w.restart()
		}
	})
}

// A request with mistakes is refused with all of them.
func TestInvalidRequest(t *testing.T) {
	inBubble(t, warm.Options{Limits: warm.Limits{MaxImages: 3}}, func(t *testing.T, w *world) {
		_, _, err := w.Submit(warm.Request{
			Images: []string{"nginx", "https://nginx", "nginx:", "a@sha256:x"}, Platforms: []string{"amd64", "linux/amd64"}, With: []string{"sbom"},
			Keep: -1, Key: strings.Repeat("k", 256),
		})
		invalid, ok := errors.AsType[*warm.InvalidError](err)
		if !ok {
			t.Fatalf("%v", err)
		}
		var at []int
		for _, e := range invalid.Entries {
			at = append(at, e.Index)
			if e.Text == "" || e.Index >= 0 && e.Image == "" {
				t.Errorf("entry %+v", e)
			}
		}
		if diff := cmp.Diff([]int{1, 2, 3, -1, -1, -1, -1}, at); diff != "" {
			t.Errorf("(-want +got):\n%s\n%v", diff, err)
		}
		if _, _, err := w.Submit(warm.Request{}); !strings.Contains(fmt.Sprint(err), "there is no image") {
			t.Errorf("no image: %v", err)
		}
		_, _, err = w.Submit(warm.Request{Images: []string{"a", "b", "c", "d"}})
		if q, ok := errors.AsType[*warm.QuotaError](err); !ok || *q != (warm.QuotaError{Setting: "warm.maxImages", Limit: 3, Asked: 4}) {
			t.Errorf("four images: %v", err)
		}
		w.table.SetFail(func() error { return errors.New("disk") })
		if _, _, err := w.Submit(warm.Request{Images: []string{"a"}}); err == nil || len(w.Jobs()) != 0 {
			t.Errorf("a job that is not written: %v, %d jobs", err, len(w.Jobs()))
		}
	})
}

// A platform that was asked for must be there; of those of the nodes one is enough.
func TestPlatforms(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.push("acme/amd:1", amd64, blob{"amd", mib})
		w.push("acme/arm:1", []string{"linux/arm64"}, blob{"arm", mib})
		w.push("acme/chart:1", []string{""}, blob{"chart", mib})
		j := w.finished(w.request(warm.Request{Images: []string{"acme/amd:1", "acme/arm:1", "acme/chart:1"}, Platforms: both}).ID)
		for i, want := range []warm.State{warm.Failed, warm.Failed, warm.Done} {
			if got := j.Images[i]; got.State != want {
				t.Errorf("both platforms: %s is %s", got.Image, got.State)
			}
		}
		f := j.Images[0].Failure
		if f.Reason != diagnose.PlatformMissing || !strings.HasSuffix(f.Summary, " has linux/amd64, and nothing for linux/arm64") {
			t.Errorf("failure %+v", f)
		}
		if n := count(w.took(), "BLOB"); n != 1 {
			t.Errorf("%d blobs were requested", n)
		}
		j = w.finished(w.submit("acme/amd:1", "acme/arm:1", "acme/chart:1").ID) // the nodes are linux/amd64
		for i, want := range []warm.State{warm.Done, warm.Failed, warm.Done} {
			if got := j.Images[i]; got.State != want {
				t.Errorf("those of the nodes: %s is %s", got.Image, got.State)
			}
		}
	})
}

// An image without an index that is built for another platform than those that were asked for fails, before one of its layers is
// fetched. Where they are those of the nodes it is fetched as it is, and artifacts always are.
func TestPlatformOfTheConfig(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		for _, name := range []string{"acme/amd:1", "acme/artifact:1"} {
			w.push(name, []string{""}, blob{"layer of " + name, mib})
		}
		w.find(ref("acme/amd:1")).built = "linux/amd64"
		for _, c := range []struct {
			platforms []string
			want      warm.State
		}{
			{[]string{"linux/arm64"}, warm.Failed}, {both, warm.Done}, {nil, warm.Done}, {[]string{"windows/amd64"}, warm.Failed},
		} {
			r := warm.Request{Images: []string{"acme/amd:1", "acme/artifact:1"}, Platforms: c.platforms}
			plan, err := w.Plan(t.Context(), r)
			if err != nil || (plan.Images[0].Failure == nil) != (c.want == warm.Done) || plan.Images[1].Failure != nil {
				t.Errorf("%v: plan %+v, %v", c.platforms, plan, err)
			}
			j := w.finished(w.request(r).ID)
			if j.Images[0].State != c.want || j.Images[1].State != warm.Done {
				t.Errorf("%v: %+v", c.platforms, j.Images)
			}
			if f := j.Images[0].Failure; c.want == warm.Failed && (f == nil || f.Reason != diagnose.PlatformMissing) {
				t.Errorf("%v: failure %+v", c.platforms, f)
			}
			list, err := w.Verify(t.Context(), r)
			if err != nil || list[1].State != warm.Done || list[0].Complete && c.want == warm.Failed {
				t.Errorf("%v: verify %+v, %v", c.platforms, list, err)
			}
		}
		if list, err := w.Verify(t.Context(), warm.Request{Images: []string{"acme/amd:1"}, Platforms: []string{"linux/arm64"}}); err != nil || list[0].Failure == nil || list[0].Failure.Reason != diagnose.PlatformMissing {
			t.Errorf("verify of what is here: %+v, %v", list, err)
		}
	})
}

// Signatures and referrers come with an image where they are asked for, and are kept with it, over a restart too.
func TestAttached(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.push("acme/a:1", amd64, blob{"a", mib})
		w.push("acme/a:sha256-x.sig", []string{""}, blob{"signature", kib})
		w.push("acme/a:sbom", []string{""}, blob{"sbom", kib})
		sbom := ref("acme/a:sbom")
		w.find(ref("acme/a:1")).attached = []oci.Ref{ref("acme/a:sha256-x.sig"), {Repo: sbom.Repo, Digest: w.find(sbom).digest}}
		for _, c := range []struct {
			with []string
			want []string
		}{
			{[]string{warm.Signatures}, []string{"BLOB a", "BLOB signature"}},
			{[]string{warm.Referrers, warm.Signatures}, []string{"BLOB sbom"}},
		} {
			if j := w.finished(w.request(warm.Request{Images: []string{"acme/a:1"}, With: c.with}).ID); j.State != warm.Done {
				t.Errorf("%v: %+v", c.with, j.Images[0].Failure)
			}
			blobs := slices.DeleteFunc(w.took(), func(r string) bool { return !strings.HasPrefix(r, "BLOB") })
			if diff := cmp.Diff(c.want, blobs); diff != "" {
				t.Errorf("%v (-want +got):\n%s", c.with, diff)
			}
		}
		time.Sleep(2 * time.Second)
		w.stop()
		w.keeps = make(map[string]kept)
		w.start()
		synctest.Wait()
		if w.kept("signature") != 2 || w.kept("sbom") != 1 {
			t.Errorf("after a restart the signature is kept by %d, the bill of materials by %d", w.kept("signature"), w.kept("sbom"))
		}
	})
}

// While the pulls of clients use the transfers of a registry, the job says so.
func TestLivePulls(t *testing.T) {
	o := warm.Options{Transfers: func(string) (int, int) { return 4, 1 }}
	inBubble(t, o, func(t *testing.T, w *world) {
		quiet := make(chan struct{})
		w.fails(func(request string) error {
			if strings.HasPrefix(request, "BLOB") {
				<-quiet
			}
			return nil
		})
		w.push("acme/a:1", amd64, blob{"a", mib})
		id := w.submit("acme/a:1").ID
		synctest.Wait()
		if got := w.job(id).Waiting; got != nil {
			t.Errorf("at first it waits for %+v", got)
		}
		time.Sleep(10 * time.Second)
		if got := w.job(id).Waiting; got == nil || got.Code != warm.WaitLivePulls {
			t.Errorf("it waits for %+v, want live pulls", got)
		}
		close(quiet)
		if j := w.finished(id); j.State != warm.Done {
			t.Errorf("%s", j.State)
		}
	})
}

// A disk without room is waited for, then the images fail with its words.
func TestDiskIsFullMeanwhile(t *testing.T) {
	for _, works := range []bool{true, false} {
		t.Run(fmt.Sprint(works), func(t *testing.T) {
			inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
				at := time.Now().Add(10 * time.Minute)
				w.fails(func(request string) error {
					if strings.HasPrefix(request, "BLOB") && (!works || time.Now().Before(at)) {
						return fmt.Errorf("blob: %w", &cache.NoRoomError{Need: mib, Why: cache.DiskLacks, Disk: cache.Disk{State: cache.DiskFull, Dir: "/data"}})
					}
					return nil
				})
				for _, name := range []string{"acme/a:1", "ghcr.io/acme/b:1"} {
					w.push(name, amd64, blob{"layer of " + name, mib})
				}
				id := w.submit("acme/a:1", "ghcr.io/acme/b:1").ID
				time.Sleep(5 * time.Minute)
				if got := w.job(id).Waiting; got == nil || got.Code != warm.WaitDisk || !strings.Contains(got.Text, "the disk of /data is full") {
					t.Errorf("it waits for %+v, want the disk", got)
				}
				j := w.finished(id)
				want := map[warm.State]int{warm.Done: 2}
				if !works {
					want = map[warm.State]int{warm.Failed: 2}
				}
				if diff := cmp.Diff(want, states(j)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if f := j.Images[1].Failure; !works && (f == nil || f.Reason != diagnose.NoRoom || f.Remedy == "") {
					t.Errorf("failure %+v", f)
				}
			})
		})
	}
}

// A disk that has no room for a job at first is waited for, too. No blob is asked for meanwhile.
func TestDiskIsFullAtFirst(t *testing.T) {
	for _, works := range []bool{true, false} {
		t.Run(fmt.Sprint(works), func(t *testing.T) {
			inBubble(t, warm.Options{Patience: 10 * time.Minute}, func(t *testing.T, w *world) {
				w.free = mib
				w.push("acme/a:1", amd64, blob{"a", 10 * mib})
				w.push("acme/b:1", amd64, blob{"b", 10 * mib})
				id := w.submit("acme/a:1", "acme/b:1").ID
				time.Sleep(5 * time.Minute)
				if got := w.job(id).Waiting; got == nil || got.Code != warm.WaitDisk || !strings.HasPrefix(got.Text, "20 MiB are needed, and the disk") {
					t.Errorf("it waits for %+v, want the disk", got)
				}
				if n := count(w.took(), "BLOB"); n != 0 {
					t.Errorf("%d blobs were requested", n)
				}
				want := warm.Failed
				if works {
					want = warm.Done
					w.mu.Lock()
					w.free = gib
					w.mu.Unlock()
				}
				j := w.finished(id)
				if took := j.FinishedAt.Sub(j.CreatedAt); j.State != want || took > 10*time.Minute+10*time.Second {
					t.Errorf("%s after %s, want %s", j.State, took, want)
				}
				if f := j.Images[1].Failure; !works && (f == nil || f.Reason != diagnose.NoRoom || !strings.HasPrefix(f.Summary, "20 MiB are needed")) {
					t.Errorf("failure %+v", f)
				}
			})
		})
	}
}

// A plan says what a job would fetch, and what it costs at registries with a limit.
func TestPlan(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.limit, w.resetAt = [2]int64{100, 1}, time.Now().Add(time.Hour)
		a := w.push("acme/a:1", amd64, blob{"base", 10 * mib}, blob{"a", mib})
		w.push("acme/b:1", amd64, blob{"base", 10 * mib}, blob{"b", 2 * mib})
		w.fails(func(request string) error {
			if request == "TREE docker.io/acme/later:1" {
				return &fault.ReserveError{Upstream: "docker.io", Until: w.resetAt}
			}
			return nil
		})
		w.finished(w.submit("acme/b:1").ID)
		w.took()
		plan, err := w.Plan(t.Context(), warm.Request{Images: []string{"acme/a:1", "acme/b:1", "acme/none:1", "acme/later:1"}})
		if err != nil {
			t.Fatal(err)
		}
		if n := count(w.took(), "BLOB"); n != 0 {
			t.Errorf("a plan fetches %d blobs", n)
		}
		if plan.Bytes != 13*mib+4*kib || plan.BytesMissing != mib || !plan.Fits || plan.Requests != 2 {
			t.Errorf("plan %+v", plan)
		}
		if i := plan.Images[0]; i.Digest != a || i.Bytes != 11*mib+2*kib || i.BytesShared != 10*mib || i.BytesCached != 10*mib+2*kib || i.Failure != nil {
			t.Errorf("image %+v", i)
		}
		if i := plan.Images[2]; i.Failure == nil || i.Failure.Reason != diagnose.TagNotFound {
			t.Errorf("the missing image %+v", i)
		}
		if i := plan.Images[3]; i.Waiting == nil || !i.Waiting.Until.Equal(w.resetAt) || i.Requests != 2 {
			t.Errorf("the image for which nothing is left %+v", i)
		}
		want := []warm.Cost{{Upstream: "docker.io", Requests: 2, Known: true, Limit: 100, Remaining: 1, ResetAt: w.resetAt, EnoughAt: w.resetAt}}
		if diff := cmp.Diff(want, plan.Upstreams); diff != "" {
			t.Errorf("costs (-want +got):\n%s", diff)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Plan(ctx, warm.Request{Images: []string{"acme/a:1"}}); !errors.Is(err, context.Canceled) {
			t.Errorf("a plan that nothing waits for: %v", err)
		}
	})
}

// Verify finds what nodes would ask for and that is not here, and asks no registry.
func TestVerify(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		digest := w.push("acme/a:1", both, blob{"linux/amd64|a", mib}, blob{"linux/arm64|arm", mib})
		w.push("acme/b:1", amd64, blob{"b", mib})
		w.finished(w.submit("acme/a:1", "acme/b:1").ID)
		w.lose("b")
		w.took()
		list, err := w.Verify(t.Context(), warm.Request{Images: []string{"acme/a:1", "acme/a@" + digest.String(), "acme/b:1", "acme/none:1"}})
		if err != nil {
			t.Fatal(err)
		}
		for i, complete := range []bool{true, true, false, false} {
			if got := list[i]; got.Complete != complete || complete != (got.Failure == nil) || complete != (got.State == warm.Done) {
				t.Errorf("%+v", got)
			}
		}
		if f := list[2].Failure; f.Reason != diagnose.NotCached || !strings.HasPrefix(f.Summary, "1 of the 3 known parts of docker.io/acme/b:1@sha256:") {
			t.Errorf("%+v", f)
		}
		both, err := w.Verify(t.Context(), warm.Request{Images: []string{"acme/a:1"}, Platforms: both})
		if err != nil || both[0].Complete {
			t.Errorf("for both platforms: %+v, %v", both, err)
		}
		if asked := w.took(); len(asked) != 0 {
			t.Errorf("it asked for %v", asked)
		}
	})
}

// Jobs that are over are kept for a while, and not without end.
func TestJobsAreForgotten(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.push("acme/a:1", amd64, blob{"a", mib})
		var first string
		for i := range 510 {
			j := w.finished(w.submit("acme/a:1").ID)
			if i == 0 {
				first = j.ID
			}
		}
		time.Sleep(2 * time.Minute)
		if n := len(w.Jobs()); n != 500 {
			t.Errorf("%d jobs are shown, want 500", n)
		}
		if _, err := w.Job(first); !errors.Is(err, warm.ErrUnknown) {
			t.Errorf("the first job: %v", err)
		}
		if n := w.kept("a"); n != 500 {
			t.Errorf("%d jobs keep the blob", n)
		}
		items := 0
		for _, err := range w.table.Scan("") {
			if err != nil {
				t.Fatal(err)
			}
			items++
		}
		if items != 1000 {
			t.Errorf("%d items in the table, want 1000", items)
		}
		time.Sleep(8 * 24 * time.Hour)
		if n := len(w.Jobs()); n != 0 || w.Engine.Stats().Kept != 0 {
			t.Errorf("after a week: %d jobs, %d bytes kept", n, w.Engine.Stats().Kept)
		}
	})
}

// Of each pair of jobs one waits for the other one's turn, and says so.
func TestOtherJobs(t *testing.T) {
	inBubble(t, warm.Options{Limits: warm.Limits{Parallel: 1}}, func(t *testing.T, w *world) {
		w.rate = mib
		w.push("acme/a:1", amd64, blob{"a", 30 * mib})
		w.push("acme/b:1", amd64, blob{"b", mib})
		first := w.submit("acme/a:1")
		if first.Waiting != nil {
			t.Errorf("the first job waits for %+v before it begins", first.Waiting)
		}
		a, b := first.ID, w.submit("acme/b:1").ID
		time.Sleep(5 * time.Second)
		if ja, jb := w.job(a), w.job(b); ja.Waiting != nil || jb.Waiting == nil || jb.Waiting.Code != warm.WaitOtherJobs {
			t.Errorf("waiting: %+v and %+v", ja.Waiting, jb.Waiting)
		}
	})
}

// No blob of a job is asked for before its size is known, although another job holds up its last manifests.
func TestSizeComesFirst(t *testing.T) {
	inBubble(t, warm.Options{Limits: warm.Limits{Parallel: 1}}, func(t *testing.T, w *world) {
		w.push("acme/small:1", amd64, blob{"small", kib})
		w.push("acme/model:1", amd64, blob{"model", 100 * gib})
		w.push("acme/slow:1", amd64, blob{"slow", kib})
		w.fails(func(request string) error {
			if strings.HasPrefix(request, "TREE") {
				time.Sleep(time.Minute)
			}
			return nil
		})
		id := w.submit("acme/small:1", "acme/model:1").ID
		w.submit("acme/slow:1")
		if j := w.finished(id); j.State != warm.Failed || j.Images[0].State != warm.Failed {
			t.Errorf("job %+v", j)
		}
		if n := count(w.took(), "BLOB small"); n != 0 {
			t.Errorf("%d requests for a blob of a job that is too large", n)
		}
	})
}

// Jobs take turns, and the time of a keep counts from the end of the job.
func TestJobsTakeTurns(t *testing.T) {
	inBubble(t, warm.Options{Limits: warm.Limits{Parallel: 1}}, func(t *testing.T, w *world) {
		w.rate = mib
		var ids []string
		for _, job := range []string{"a", "b"} {
			var images []string
			for i := range 10 {
				image := fmt.Sprintf("acme/%s:v%d", job, i)
				images = append(images, image)
				w.push(image, amd64, blob{"layer of " + image, mib})
			}
			ids = append(ids, w.request(warm.Request{Images: images, Keep: time.Hour}).ID)
		}
		time.Sleep(10 * time.Second)
		for _, id := range ids {
			if n := states(w.job(id))[warm.Done]; n < 4 || n > 6 {
				t.Errorf("after half of the time %d of 10 images of a job are done", n)
			}
		}
		for _, id := range ids {
			if j := w.finished(id); !j.Images[0].KeptUntil.Equal(j.FinishedAt.Add(time.Hour)) {
				t.Errorf("kept until %s; the job ended at %s", j.Images[0].KeptUntil, j.FinishedAt)
			}
		}
	})
}

// A blob that a client's pull has brought meanwhile counts for a job that waits for it, whichever job finds it.
func TestBlobComesAnotherWay(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.fails(func(request string) error {
			if strings.HasPrefix(request, "BLOB") {
				return diagnose.New(diagnose.ConnectRefused, "it refuses the connection", "check that it runs")
			}
			return nil
		})
		w.push("acme/a:1", amd64, blob{"a", mib})
		w.push("ghcr.io/acme/a:1", amd64, blob{"a", mib})
		first := w.submit("acme/a:1").ID
		time.Sleep(time.Second)
		w.mu.Lock()
		w.here[named("a")] = mib
		w.mu.Unlock()
		for _, id := range []string{w.submit("ghcr.io/acme/a:1").ID, first} {
			if j := w.finished(id); j.State != warm.Done || j.FinishedAt.Sub(j.CreatedAt) > time.Minute {
				t.Errorf("job %+v", j)
			}
		}
	})
}
