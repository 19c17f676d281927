package admin_test

import (
	"bufio"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/warm"
)

// newLargeWarmer has a job of so many images.
func newLargeWarmer(n int) *warmer {
	w := newWarmer()
	w.now.Images = make([]warm.Image, n)
	for i := range n {
		w.now.Images[i] = warm.Image{Image: fmt.Sprintf("docker.io/acme/application-%05d:v1", i), State: warm.Queued, Digest: sum, Platforms: []string{"linux/amd64"}}
	}
	return w
}

// finish makes images those that are done.
func (w *warmer) finish(from, to int) {
	w.set(func(j *warm.Job) {
		j.Images = slices.Clone(j.Images)
		for i := from; i < to; i++ {
			j.Images[i].State = warm.Done
		}
	})
}

// The events of a large job have the images that have changed, at most 100, and come once a second.
func TestEventsOfALargeJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLargeWarmer(10_000)
		dial, end := listening(t, w)
		defer end()
		conn := dial()
		lines := bufio.NewReader(subscribe(t, conn, "").Body)
		block(t, lines)
		if id, job := event(t, lines); id != "7" || !job.Partial || len(job.Images) != 0 || job.Counts["queued"] != 10_000 {
			t.Errorf("the first event: %s, partial %v, %d images, counts %v", id, job.Partial, len(job.Images), job.Counts)
		}
		w.finish(5, 8)
		if _, job := event(t, lines); len(job.Images) != 3 || job.Images[0].Image != "docker.io/acme/application-00005:v1" || job.Counts["done"] != 3 {
			t.Errorf("%d images after 3 changed: %+v", len(job.Images), job.Counts)
		}
		w.finish(1000, 1500)
		if id, job := event(t, lines); id != "9" || len(job.Images) != 100 || job.Counts["done"] != 503 {
			t.Errorf("%d images after 500 changed: %+v", len(job.Images), job.Counts)
		}
		// A stream that goes on after a break has what changed since.
		w.finish(8, 10)
		again := bufio.NewReader(subscribe(t, dial(), "9").Body)
		block(t, again)
		if id, job := event(t, again); id != "10" || len(job.Images) != 2 {
			t.Errorf("after a break: %s, %d images", id, len(job.Images))
		}
		event(t, lines)
		start, events := time.Now(), 0
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			for i := range 100 {
				time.Sleep(100 * time.Millisecond)
				w.finish(2000+i, 2001+i)
			}
			w.set(func(j *warm.Job) { j.State = warm.Done })
		}()
		for {
			_, job := event(t, lines)
			if events++; job.State.Over() {
				break
			}
		}
		if passed := time.Since(start); events > 12 || passed > 12*time.Second {
			t.Errorf("%d events in %s", events, passed)
		}
		<-stop
		_ = conn.Close()
	})
}

// As many streams as there may be of the largest job: clients that do not read, and each of which has seen another state.
func TestEventsOfALargeJobTakeLittleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, limit = 128, 16 << 20
		w := newLargeWarmer(10_000)
		for i := range w.now.Images {
			w.now.Images[i].Failure = &warm.Failure{Summary: strings.Repeat("s", 300), Remedy: strings.Repeat("r", 300)}
		}
		dial, end := listening(t, w)
		defer end()
		before := heap()
		for range streams {
			lines := bufio.NewReader(subscribe(t, dial(), "").Body)
			block(t, lines)
			event(t, lines)
			w.set(func(j *warm.Job) {
				j.Images = slices.Clone(j.Images)
				for i := range j.Images {
					j.Images[i].BytesDone++
				}
			})
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		if grown := heap() - before; grown > limit {
			t.Errorf("%d MiB for %d streams, want at most %d", grown>>20, streams, limit>>20)
		} else {
			t.Logf("%d MiB", grown>>20)
		}
	})
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // it fits
}
