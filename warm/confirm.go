package warm

import (
	"fmt"
	"slices"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// maxRemoved is how often an image is fetched again whose parts are removed from the cache while its job runs, as by a purge.
const maxRemoved = 3

// unconfirmed are the images that are done if all of their parts are here. The last of a job are looked at with those that were
// done before.
func (j *job) unconfirmed() []*image {
	j.landed = notOver(j.landed)
	if j.open > len(j.landed) {
		return j.landed
	}
	return j.images
}

// confirm ends the images whose parts are all here.
func (q *queue) confirm(j *job, here map[oci.Digest]bool, now time.Time) {
	q.lose(j, here, now)
	landed := notOver(j.landed)
	j.landed = nil
	for _, m := range landed {
		q.over(m, Done, now)
	}
	q.bump(j)
}

// Recheck finds out whether what jobs keep is still here: it is called after a purge. Images of a job that is not over are
// fetched again; the others are not complete any more, and keep nothing.
func (e *Engine) Recheck() {
	here := e.present(func() (list []*image) {
		e.jobs.checked = time.Now()
		for _, j := range e.jobs.order {
			for _, m := range j.images {
				if m.state == Done {
					list = append(list, m)
				}
			}
		}
		return list
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for _, j := range e.jobs.order {
		e.jobs.lose(j, here, now)
	}
}

// lose takes in which parts of images that have had all of theirs are not here any more.
func (q *queue) lose(j *job, here map[oci.Digest]bool, now time.Time) {
	for _, m := range j.images {
		if m.missing > 0 || !m.held {
			continue
		}
		lost := false
		for _, b := range m.parts {
			if is, asked := here[b.part.Digest]; asked && !is {
				b.found(false)
				lost = true
			}
		}
		switch {
		case !lost:
		case !j.state.Over():
			q.repeat(m, now)
		default:
			m.total, m.here = m.sizes()
			m.gone = true
			q.release(m)
			q.unsaved.image(m)
			q.bump(j)
		}
	}
}

// repeat has an image fetched once more, since parts of it are not here any more.
func (q *queue) repeat(m *image, now time.Time) {
	j := m.job
	m.total, m.here = m.sizes()
	if m.state == Done {
		j.open++
	}
	is := func(x *image) bool { return x == m }
	j.ready, j.landed = slices.DeleteFunc(j.ready, is), slices.DeleteFunc(j.landed, is)
	m.state, m.keptUntil = Queued, time.Time{}
	if m.removed++; m.removed > maxRemoved {
		q.fail(m, diagnose.New(diagnose.NotCached,
			fmt.Sprintf("%s is not complete in the cache: it was fetched %d times, and each time some of it was removed", m.ref, m.removed),
			"find what removes it, as purges or a disk that loses files, then start the job again").Finding, now)
		return
	}
	q.contents.drop(m)
	j.pending = append(j.pending, m)
	q.unsaved.image(m)
	q.bump(j)
}
