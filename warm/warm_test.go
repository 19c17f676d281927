package warm_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/warm"
)

var amd64, both = []string{"linux/amd64"}, []string{"linux/amd64", "linux/arm64"}

// A job brings each blob once, for the chosen platforms alone, and keeps it for its time from the end of the job on.
func TestJobBringsEachBlobOnce(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		base := blob{"base", 10 * mib}
		a := w.push("acme/a:1", both, base, blob{"linux/amd64|a", mib}, blob{"linux/arm64|a-arm", mib})
		w.push("ghcr.io/acme/b:1", amd64, base, blob{"b", mib})
		j := w.finished(w.request(warm.Request{Images: []string{"acme/a:1", "ghcr.io/acme/b:1", "docker.io/acme/a:1"}, Keep: time.Hour}).ID)
		want := []string{"BLOB b", "BLOB base", "BLOB linux/amd64|a", "TREE docker.io/acme/a:1", "TREE ghcr.io/acme/b:1"}
		if diff := cmp.Diff(want, w.took()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		total := 12*mib + 4*kib // and four manifests
		if j.State != warm.Done || len(j.Images) != 2 || j.BytesTotal != total || j.BytesDone != total || j.Waiting != nil {
			t.Errorf("job %+v", j)
		}
		if i := j.Images[0]; i.Image != "docker.io/acme/a:1" || i.Digest != a || !i.Complete || i.BytesDone != 11*mib+2*kib || i.BytesCached != 0 {
			t.Errorf("image %+v", i)
		}
		if !j.Images[1].KeptUntil.Equal(j.FinishedAt.Add(time.Hour)) || w.kept("base") != 2 {
			t.Errorf("kept until %s by %d, want until an hour after %s by both", j.Images[1].KeptUntil, w.kept("base"), j.FinishedAt)
		}
		again := w.finished(w.request(warm.Request{Images: []string{"acme/a:1"}}).ID)
		if diff := cmp.Diff([]string{"TREE docker.io/acme/a:1"}, w.took()); diff != "" {
			t.Errorf("requests of the second job (-want +got):\n%s", diff)
		}
		if again.State != warm.Done || again.BytesCached != again.BytesTotal || again.BytesDone != again.BytesTotal {
			t.Errorf("second job %+v", again)
		}
		time.Sleep(2 * time.Hour)
		if n := w.kept("base"); n != 1 {
			t.Errorf("two hours later %d jobs keep the base, want the second one alone", n)
		}
		if got := w.job(j.ID).Images[1].KeptUntil; !got.IsZero() {
			t.Errorf("the first job is kept until %s", got)
		}
	})
}

// One image of thirty is missing: the others are done, and the failure is told as that of a pull is.
func TestOneImageIsMissing(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		var images []string
		for i := range 30 {
			name := fmt.Sprintf("acme/app:v%d", i)
			if images = append(images, name); i != 17 {
				w.push(name, amd64, blob{"layer " + name, mib})
			}
		}
		j := w.finished(w.submit(images...).ID)
		if diff := cmp.Diff(map[warm.State]int{warm.Done: 29, warm.Failed: 1}, states(j)); diff != "" || j.State != warm.Failed {
			t.Errorf("job %s (-want +got):\n%s", j.State, diff)
		}
		f := j.Images[17].Failure
		finding := errMissing.Finding
		want := &warm.Failure{
			ID: finding.ID("docker.io/acme/app:v17"), Reason: diagnose.TagNotFound, Class: diagnose.ClassMissing, Summary: finding.Summary,
			Remedy: finding.Remedy,
		}
		if diff := cmp.Diff(want, f); diff != "" {
			t.Errorf("failure (-want +got):\n%s", diff)
		}
		if n := count(w.took(), "BLOB"); n != 29 {
			t.Errorf("%d blob requests, want 29", n)
		}
	})
}

// A watcher that does not read gets the latest state when it does, and holds up nothing.
func TestWatcherThatStopsReading(t *testing.T) {
	inBubble(t, warm.Options{}, func(t *testing.T, w *world) {
		w.rate = mib
		w.push("acme/a:1", amd64, blob{"a", 100 * mib})
		id := w.submit("acme/a:1").ID
		seen := 0
		var last warm.Job
		for j, err := range w.Watch(context.Background(), id) {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; seen == 3 {
				time.Sleep(time.Hour) // the job ends meanwhile
			}
			last = j
		}
		if seen != 4 || last.State != warm.Done {
			t.Errorf("%d states, the last one %s; want 4 and done", seen, last.State)
		}
		if took := last.FinishedAt.Sub(last.CreatedAt); took > 2*time.Minute {
			t.Errorf("the job took %s: the watcher held it up", took)
		}
	})
}
