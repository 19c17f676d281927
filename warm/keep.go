package warm

import (
	"time"

	"github.com/registrymirror/mirror/oci"
)

const (
	// keptAhead is for how long at least the content of a job that is not over is kept with each look at it. The cache ends no
	// keep of this length early.
	keptAhead = 3 * time.Hour
	keepAgain = time.Hour // how often that is made again
)

// keepOpen keeps the content of an image whose job is not over.
func (q *queue) keepOpen(m *image, now time.Time) {
	q.o.Cache.Keep(m.holder(), now.Add(max(m.job.request.Keep, keptAhead)), digests(m.parts)...)
}

// keep keeps the content of an image that is done, for the time of its job.
func (q *queue) keep(m *image, now time.Time) {
	m.keptUntil = now.Add(m.job.request.Keep).UTC().Round(0)
	if m.job.open > 0 {
		q.keepOpen(m, now)
		return
	}
	q.o.Cache.Keep(m.holder(), m.keptUntil, digests(m.parts)...)
}

// release ends the keep of an image, and forgets its parts.
func (q *queue) release(m *image) {
	m.keptUntil = time.Time{}
	q.o.Cache.Keep(m.holder(), m.keptUntil)
	q.contents.detach(m)
}

// refreshKeeps makes the keeps of jobs that are not over again, before they end.
func (q *queue) refreshKeeps(now time.Time) {
	open := false
	for _, j := range q.order {
		open = open || !j.state.Over()
	}
	if !open && !q.inUse.at.IsZero() {
		q.inUse = inUse{}
		q.o.Cache.Keep(heldByUse, now)
	}
	if now.Sub(q.kept) < keepAgain {
		return
	}
	q.kept = now
	for _, j := range q.order {
		for _, m := range j.images {
			switch {
			case j.state.Over() || !m.held:
			case m.state == Done:
				q.keep(m, now)
			default:
				q.keepOpen(m, now)
			}
		}
	}
}

// restore takes in which parts of an image of an earlier process are here.
func (q *queue) restore(m *image, f *found, now time.Time) {
	complete := len(f.parts) > 0
	for _, p := range f.parts {
		complete = complete && p.Here
	}
	switch {
	case m.parts != nil || q.byID[m.job.id] != m.job: // a call was faster
	case m.job.state.Over() && m.state == Done && complete:
		q.contents.attach(m, f.parts)
		q.contents.hold(m)
		q.o.Cache.Keep(m.holder(), m.keptUntil, digests(m.parts)...)
	case m.job.state.Over(): // it was purged, or the disk was lost: there is nothing to keep
		m.keptUntil, m.gone = time.Time{}, true
		q.unsaved.image(m)
	case m.state == Done && complete:
		q.contents.attach(m, f.parts)
		q.contents.hold(m)
		q.keepOpen(m, now)
	case m.state == Done: // it is not complete any more
		m.state, m.keptUntil = Queued, time.Time{}
		m.job.open++
		m.job.pending = append(m.job.pending, m)
	default:
		list := make([]oci.Digest, len(f.parts))
		for i, p := range f.parts {
			list[i] = p.Digest
		}
		q.o.Cache.Keep(m.holder(), now.Add(keptAhead), list...)
	}
}
