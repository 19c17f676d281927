package warm

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/diagnose"
)

const (
	// maxOver bounds the jobs that are over and still shown, with their images; the oldest go first, and their keeps with them.
	maxOver       = 500
	maxOverImages = 20_000
	keepOver      = 7 * 24 * time.Hour // how long they are shown, if they keep nothing

	lookEvery     = time.Minute            // for keeps and jobs that have ended
	progressEvery = 500 * time.Millisecond // that bytes are reported
)

// queue is all jobs, with their content and what holds them up. It has no lock, and makes no request: Engine.mu guards it.
type queue struct {
	o    Options
	wake chan struct{} // holds one: there may be something to start

	byID  map[string]*job
	byKey map[string]*job
	order []*job // by creation, the oldest first
	turn  int    // of the job in order that is served next

	contents contents
	gates    gates
	units    map[*unit]struct{} // that run
	unsaved  unsaved
	inUse    inUse
	kept     time.Time // when the keeps of jobs that are not over were last made again
	looked   time.Time // when look was last called
	checked  time.Time // when it was last found out whether what is kept is here
	counts   counts
}

func newQueue(o Options) *queue {
	return &queue{
		o: o, wake: make(chan struct{}, 1), byID: make(map[string]*job), byKey: make(map[string]*job), contents: make(contents),
		gates: make(gates), units: make(map[*unit]struct{}), unsaved: newUnsaved(),
		counts: counts{jobs: make(map[State]int64), images: make(map[State]int64), causes: make(map[diagnose.Class]int64)},
	}
}

// send fills a channel that holds one value, unless it is full: what it tells is on its way then.
func send(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// quota is nil where a further job keeps the quotas.
func (q *queue) quota(j *job) error {
	jobs, images := 0, 0
	for _, other := range q.order {
		if !other.state.Over() {
			jobs++
			images += other.open
		}
	}
	if most := q.o.Limits.MaxJobs; jobs+1 > most {
		return &QuotaError{Setting: "warm.maxJobs", Limit: most, Have: jobs, Asked: 1}
	}
	if most := q.o.Limits.MaxImages; images+j.open > most {
		return &QuotaError{Setting: "warm.maxImages", Limit: most, Have: images, Asked: j.open}
	}
	return nil
}

// insert makes a job known.
func (q *queue) insert(j *job) {
	q.byID[j.id] = j
	q.order = append(q.order, j)
	if j.request.Key != "" {
		q.byKey[j.request.Key] = j
	}
	q.bump(j)
}

// view is a job as others see it.
func (q *queue) view(j *job) Job {
	now := time.Now()
	return j.view(now, q.waiting(j, now))
}

// bump makes the present state of a job a new one.
func (q *queue) bump(j *job) {
	j.revision = max(j.revision+1, time.Now().UnixMicro())
	close(j.changed)
	j.changed = make(chan struct{})
}

// cancel ends a job and its keeps: downloads that no other job wants end. A job that is over keeps its state.
func (q *queue) cancel(j *job, now time.Time) {
	if !j.state.Over() {
		j.state = Cancelled // so that the end of its last image does not finish it
		for _, m := range j.images {
			if !m.state.Over() {
				q.over(m, Cancelled, now)
			}
		}
		q.finish(j, Cancelled, now)
	}
	for _, m := range j.images {
		q.release(m)
		q.unsaved.image(m)
	}
	q.bump(j)
	send(q.wake)
}

// expire forgets keeps that have ended, and jobs that were over long ago or are too many, with their keeps.
func (q *queue) expire(now time.Time) {
	jobs, images := 0, 0
	var gone []*job
	for _, j := range slices.Backward(q.order) {
		if !j.state.Over() {
			continue
		}
		keeps := false
		for _, m := range j.images {
			if m.state == Done && m.parts != nil && !now.Before(m.keptUntil) {
				q.release(m)
			}
			keeps = keeps || m.parts != nil
		}
		jobs, images = jobs+1, images+len(j.images)
		if jobs > maxOver || images > maxOverImages || !keeps && now.Sub(j.finished) > keepOver {
			gone = append(gone, j)
		}
	}
	for _, j := range gone {
		q.forget(j)
	}
	q.order = slices.DeleteFunc(q.order, func(j *job) bool { return q.byID[j.id] != j })
}

// forget removes a job that is over. Its caller takes it out of the order.
func (q *queue) forget(j *job) {
	for _, m := range j.images {
		q.release(m)
	}
	delete(q.byID, j.id)
	if q.byKey[j.request.Key] == j {
		delete(q.byKey, j.request.Key)
	}
	q.unsaved.forget(j.key())
	for _, m := range j.images {
		q.unsaved.forget(m.key())
	}
	q.bump(j)
}
