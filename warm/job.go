package warm

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// job is a job with what is still to be done for it. The engine's mutex guards all fields, and those of its images and blobs.
type job struct {
	id       string
	request  Request // without images; with the platforms and the time that count
	explicit bool    // the platforms were asked for: an image must have all of them
	sum      string  // of the request, for its key
	images   []*image

	state                      State
	created, started, finished time.Time

	open int // images that are not over
	work

	content map[*blob]struct{} // the distinct parts of the images as far as they are known; nil: the job is over
	bytes
	cached int64 // bytes of the content that were here before the job began

	revision int64
	changed  chan struct{} // closed with the next revision
}

// work is what is to be done for a job.
type work struct {
	pending []*image // whose manifests are to be fetched
	arrived []*image // whose manifests are here, and that have not been let in yet
	ready   []*image // that have room, and lack blobs
	landed  []*image // whose last blob has come: they are done if all of it is here
	units   int      // that are under way for it
	// resolving are the units that fetch manifests. While there are any, the size of the job is not known.
	resolving int
	admitted  bool // some of it has been let in
}

// lacking yields the images that lack manifests, room or blobs.
func (w *work) lacking(yield func(*image) bool) {
	for _, list := range [][]*image{w.pending, w.arrived, w.ready} {
		for _, m := range list {
			if !yield(m) {
				return
			}
		}
	}
}

// bytes are those of content: in all, and that are here once it is over.
type bytes struct{ total, here int64 }

// image is an image of a job.
type image struct {
	job   *job
	index int
	ref   oci.Ref // as it was asked for, canonical
	state State

	digest    oci.Digest // empty: not known yet
	platforms []string
	attached  []oci.Digest // of signatures and referrers
	parts     []*blob      // each once; nil: not known, or the image is over and not kept
	todo      []*blob      // of them, that may have to be fetched
	missing   int          // parts that are not here, once it is held
	held      bool         // the parts are counted as held, and kept
	bytes                  // once the image is over
	cached    int64        // bytes that were here at first; -1: not known yet
	keptUntil time.Time
	gone      bool // parts were removed from the cache after it was done
	removed   int  // how often parts were, before its job was over
	failure   *Failure

	trouble
	stop context.CancelFunc // of the unit that fetches its manifests; nil: there is none
}

// trouble is what holds up an image.
type trouble struct {
	wait     *Waiting          // why it is not tried now; nil: it may be
	tries    int               // that failed though the registry works
	failedAt time.Time         // the last time; zero: it has not failed since something of it came
	last     *diagnose.Finding // of that failure; nil: there was none
	since    time.Time         // the first of the failures in a row, or when the closed gate was first seen; zero: neither
}

// paused reports whether the image is not to be tried yet.
func (t *trouble) paused(now time.Time) bool { return t.wait != nil && now.Before(t.wait.Until) }

// eased is the trouble of an image of which something has come. It may still have to wait.
func (t trouble) eased() trouble { return trouble{wait: t.wait, failedAt: t.failedAt} }

// sizes are the bytes of an image: in all, and that are here.
func (m *image) sizes() (total, here int64) {
	if m.parts == nil {
		return m.total, m.here
	}
	for _, b := range m.parts {
		total += b.size()
		here += b.arrived()
	}
	return total, here
}

// key is the image's in the table.
func (m *image) key() string { return fmt.Sprintf("image/%s/%05d", m.job.id, m.index) }

// holder is the name of an image's keep.
func (m *image) holder() string { return "warm " + m.key() }

// view is the image as others see it.
func (m *image) view(now time.Time) Image {
	v := Image{
		Image: m.ref.String(), State: m.state, Digest: m.digest, Platforms: slices.Clone(m.platforms), BytesCached: max(m.cached, 0),
	}
	v.BytesTotal, v.BytesDone = m.sizes()
	v.Complete = m.state == Done && !m.gone
	if now.Before(m.keptUntil) {
		v.KeptUntil = m.keptUntil
	}
	if m.failure != nil {
		f := *m.failure
		v.Failure = &f
	}
	return v
}

// view is the job as others see it.
func (j *job) view(now time.Time, waiting *Waiting) Job {
	v := Job{
		ID: j.id, Name: j.request.Name, By: j.request.By, State: j.state, Revision: j.revision, Platforms: slices.Clone(j.request.Platforms),
		Keep: j.request.Keep, With: slices.Clone(j.request.With), CreatedAt: j.created, StartedAt: j.started, FinishedAt: j.finished,
		Waiting: waiting, Images: make([]Image, len(j.images)), BytesTotal: j.total, BytesDone: j.done(), BytesCached: j.cached,
	}
	for i, m := range j.images {
		v.Images[i] = m.view(now)
	}
	return v
}

// done are the bytes of the content that are here.
func (j *job) done() int64 {
	if j.content == nil {
		return j.here
	}
	here := int64(0)
	for b := range j.content {
		here += b.arrived()
	}
	return here
}

// outcome is the state of a job whose images are all over.
func (j *job) outcome() State {
	for _, m := range j.images {
		if m.state == Failed {
			return Failed
		}
	}
	return Done
}
