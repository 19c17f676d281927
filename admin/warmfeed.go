package admin

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/warm"
)

const (
	// maxInEvent is how many images an event has at most. The events of a job with more of them have only those that have changed.
	maxInEvent = 100
	// largeEvery is how often the state of such a job is looked at.
	largeEvery = time.Second
)

// feeds are the jobs that have streams. The streams of a job share one view of its state, and the text of its events: a large
// job has megabytes.
type feeds struct {
	warmer Warmer

	mu   sync.Mutex // guards byID, and the readers of each feed; it is taken before that of a feed
	byID map[string]*feed
}

// feed is the state of a job for its streams.
type feed struct {
	readers int // streams
	stop    context.CancelFunc
	ended   sync.WaitGroup // until the job is no longer watched

	mu      sync.Mutex // guards what follows
	job     warm.Job   // empty ID: not known yet
	over    bool       // there are no further states
	changed chan struct{}
	// since has for each image of a large job the revision in which it got its state; 0: it had that at the first look.
	since []int64
	texts map[int64]string // events of the state, by the revision that their stream has seen
}

// join is the feed of a job, for one more stream. leave ends the stream's part.
func (x *feeds) join(id string) (f *feed, leave func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f = x.byID[id]
	if f == nil {
		ctx, cancel := context.WithCancel(context.Background()) // it serves several requests, and ends with the last of them
		f = &feed{stop: cancel, changed: make(chan struct{})}
		x.byID[id] = f
		f.ended.Go(func() { f.watch(ctx, x.warmer, id) })
	}
	f.readers++
	return f, func() {
		x.mu.Lock()
		f.readers--
		last := f.readers == 0
		if last {
			delete(x.byID, id)
		}
		x.mu.Unlock()
		if last {
			f.stop()
			f.ended.Wait()
		}
	}
}

// watch takes in the states of the job until it has ended, or no stream is left.
func (f *feed) watch(ctx context.Context, warmer Warmer, id string) {
	for job, err := range warmer.Watch(ctx, id) {
		if err != nil {
			break
		}
		f.take(job)
		if len(job.Images) > maxInEvent && !job.State.Over() {
			backoff.Wait(ctx, largeEvery)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	close(f.changed)
}

// take takes in a state.
func (f *feed) take(job warm.Job) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since == nil {
		f.since = make([]int64, len(job.Images))
	} else {
		for i := range job.Images {
			if !sameImage(job.Images[i], f.job.Images[i]) {
				f.since[i] = job.Revision
			}
		}
	}
	f.job, f.texts = job, make(map[int64]string)
	close(f.changed)
	f.changed = make(chan struct{})
}

// sameImage reports whether an image looks the same in two states.
func sameImage(a, b warm.Image) bool {
	return a.State == b.State && a.BytesDone == b.BytesDone && a.BytesTotal == b.BytesTotal && a.BytesCached == b.BytesCached &&
		a.Digest == b.Digest && a.Complete == b.Complete && a.KeptUntil.Equal(b.KeptUntil) && slices.Equal(a.Platforms, b.Platforms)
}

// news is what a feed has for a stream.
type news struct {
	text     string        // the event; empty: there is no newer state
	revision int64         // of the state
	pause    time.Duration // after the event
	over     bool          // there are no further states
	changed  <-chan struct{}
}

// news is what there is for a stream that has seen a revision; 0: it has had no event.
func (f *feed) news(seen int64) (news, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := news{revision: seen, over: f.over || f.job.State.Over(), changed: f.changed}
	if f.job.ID == "" || f.job.Revision == seen {
		return n, nil
	}
	n.revision, n.pause = f.job.Revision, time.Duration(min(len(f.job.Images), maxInEvent))*pauseForImage
	large := len(f.job.Images) > maxInEvent
	if !large {
		seen = 0 // all streams get the same
	}
	if n.text = f.texts[seen]; n.text != "" {
		return n, nil
	}
	v := viewJob(f.job, !large)
	v.Partial = large
	if large && seen != 0 {
		v.Images = viewImages(f.changedSince(seen))
	}
	data, err := json.Marshal(v)
	if err != nil {
		return n, err
	}
	n.text = "id: " + strconv.FormatInt(n.revision, 10) + "\ndata: " + string(data) + "\n\n"
	f.texts[seen] = n.text
	return n, nil
}

// changedSince are the first images that have changed since a revision, as many as an event may have. f.mu is held.
func (f *feed) changedSince(revision int64) []warm.Image {
	var list []warm.Image
	for i, x := range f.job.Images {
		if f.since[i] > revision && len(list) < maxInEvent {
			list = append(list, x)
		}
	}
	return list
}
