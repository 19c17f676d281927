package warm

import (
	"context"
	"slices"
	"time"
)

// unit is a piece of work with a goroutine of its own.
type unit struct {
	kind  unitKind
	job   *job
	image *image // whose manifests are fetched, or in whose name a blob is
	blob  *blob  // of a unit that fetches one

	ctx   context.Context
	stop  context.CancelFunc
	began time.Time
	seen  int64     // bytes of the blob that were there at the last look
	moved time.Time // when there were more
	still bool      // pulls of clients hold it up
}

type unitKind int

const (
	resolving  unitKind = iota // fetches the manifests of an image
	admitting                  // finds out whether images have room
	confirming                 // finds out whether all of the images whose last blob has come is here
	fetching                   // fetches a blob
)

// stillAfter is how long no byte of a blob comes before it counts as held up.
const stillAfter = 3 * time.Second

// next is the unit that may begin now; nil: there is none. Jobs take turns.
func (q *queue) next(now time.Time) *unit {
	var running [fetching + 1]int
	for u := range q.units {
		running[u.kind]++
	}
	mayFetch := running[fetching] < q.o.Limits.Parallel
	mayResolve := running[resolving] < q.o.Limits.Parallel
	mayAdmit := running[admitting] == 0
	mayConfirm := running[confirming] == 0
	for i := range q.order {
		at := (q.turn + i) % len(q.order)
		j := q.order[at]
		if j.state.Over() {
			continue
		}
		var u *unit
		if mayConfirm && len(j.landed) > 0 {
			u = &unit{kind: confirming, job: j}
		}
		if u == nil && mayResolve {
			u = q.nextManifests(j, now)
		}
		if u == nil && mayAdmit && j.sized(q.gates, now) {
			u = &unit{kind: admitting, job: j}
		}
		if u == nil && mayFetch {
			u = q.nextBlob(j, now)
		}
		if u != nil {
			q.turn = at + 1
			return u
		}
	}
	return nil
}

// nextManifests is a unit for an image whose manifests are to be fetched.
func (q *queue) nextManifests(j *job, now time.Time) *unit {
	j.pending = notOver(j.pending)
	for i, m := range j.pending {
		if q.gates.holdUp(m, now) == nil {
			j.pending = slices.Delete(j.pending, i, i+1)
			return &unit{kind: resolving, job: j, image: m}
		}
	}
	return nil
}

// sized reports whether images of a job wait to be let in, and the size of all is known whose manifests can be had now.
func (j *job) sized(s gates, now time.Time) bool {
	if j.arrived = notOver(j.arrived); len(j.arrived) == 0 || j.resolving > 0 {
		return false
	}
	for _, m := range j.pending {
		if s.holdUp(m, now) == nil {
			return false
		}
	}
	return slices.ContainsFunc(j.arrived, func(m *image) bool { return !m.paused(now) })
}

// nextBlob is a unit for a blob that an image lacks.
func (q *queue) nextBlob(j *job, now time.Time) *unit {
	j.ready = notOver(j.ready)
	for _, m := range j.ready {
		for len(m.todo) > 0 && m.todo[0].here {
			m.todo = m.todo[1:]
		}
		if q.gates.holdUp(m, now) != nil {
			continue
		}
		for _, b := range m.todo {
			if !b.here && b.fetch == nil {
				return &unit{kind: fetching, job: j, image: m, blob: b}
			}
		}
	}
	return nil
}

func notOver(list []*image) []*image {
	return slices.DeleteFunc(list, func(m *image) bool { return m.state.Over() })
}

// begin records that a unit runs.
func (q *queue) begin(ctx context.Context, u *unit, now time.Time) {
	u.ctx, u.stop = context.WithCancel(ctx)
	u.began, u.moved = now, now
	q.units[u] = struct{}{}
	u.job.units++
	switch u.kind {
	case resolving:
		u.job.resolving++
		u.image.stop, u.image.wait, u.image.state = u.stop, nil, Running
		q.gates.begin(u)
	case fetching:
		u.blob.fetch, u.image.wait = u, nil
		q.gates.begin(u)
	case admitting, confirming:
	}
	if u.job.state == Queued {
		u.job.state, u.job.started = Running, now.UTC().Round(0)
		q.unsaved.job(u.job)
	}
	q.bump(u.job)
}

// end records that a unit has ended.
func (q *queue) end(u *unit) {
	u.stop()
	delete(q.units, u)
	u.job.units--
	q.gates.ended(u)
	send(q.wake)
}

// due is when there may be something to do though nothing has changed.
func (q *queue) due(now time.Time) time.Duration {
	due := q.looked.Add(lookEvery).Sub(now)
	if len(q.units) > 0 {
		due = min(due, progressEvery)
	}
	at := func(t time.Time) {
		if d := t.Sub(now); d > 0 {
			due = min(due, d)
		}
	}
	for _, g := range q.gates {
		at(g.until)
	}
	for _, j := range q.order {
		for m := range j.lacking {
			if m.wait != nil {
				at(m.wait.Until)
			}
			if !m.since.IsZero() {
				at(m.since.Add(q.o.Patience))
			}
		}
	}
	return max(due, 0)
}

// look does what is done from time to time: it reports bytes, makes keeps again, and forgets what is over.
func (q *queue) look(now time.Time) {
	q.reportProgress(now)
	if now.Sub(q.looked) < lookEvery {
		return
	}
	q.looked = now
	q.refreshKeeps(now)
	q.expire(now)
}

// reportProgress makes the bytes that have come a new state of the jobs that want them.
func (q *queue) reportProgress(now time.Time) {
	moved := make(map[*job]bool)
	for u := range q.units {
		if u.kind != fetching {
			continue
		}
		n := u.blob.done.Load()
		still := n == u.seen && now.Sub(u.moved) >= stillAfter && q.waitsForClients(u.image.ref.Host)
		if n == u.seen && still == u.still {
			continue
		}
		if n != u.seen {
			u.seen, u.moved = n, now
		}
		u.still = still
		for _, m := range u.blob.wanters {
			moved[m.job] = true
		}
	}
	for j := range moved {
		q.bump(j)
	}
}

// waitsForClients reports whether work waits for a turn at a registry while clients have turns there.
func (q *queue) waitsForClients(host string) bool {
	running, waiting := q.o.Transfers(host)
	for u := range q.units {
		if u.kind == fetching && u.image.ref.Host == host && u.seen > 0 && !u.still {
			running--
		}
	}
	return waiting > 0 && running > 0
}

// waiting is why nothing of a job moves; nil: it moves, or is over.
func (q *queue) waiting(j *job, now time.Time) *Waiting {
	if j.state.Over() {
		return nil
	}
	if j.units > 0 {
		for u := range q.units {
			if u.job == j && !u.still {
				return nil
			}
		}
		return &Waiting{Code: WaitLivePulls, Text: "pulls of clients use the transfers of the registry, and come first"}
	}
	busy := len(q.units) >= q.o.Limits.Parallel
	var first *Waiting
	for m := range j.lacking {
		if m.state.Over() {
			continue
		}
		w := q.gates.holdUp(m, now)
		if w == nil {
			return waitingForTurn(m, busy)
		}
		if first == nil || w.Until.Before(first.Until) {
			first = w
		}
	}
	if first == nil {
		return waitingForJobs(busy)
	}
	w := *first
	return &w
}

// waitingForTurn is why nothing moves of an image that nothing holds up; nil: units of other jobs fetch its blobs.
func waitingForTurn(m *image, busy bool) *Waiting {
	for _, b := range m.todo {
		if b.fetch != nil && !b.fetch.still {
			return nil
		}
	}
	return waitingForJobs(busy)
}

// waitingForJobs is the wait for units of other jobs; nil: not all of them are busy, so the next ones are for this job.
func waitingForJobs(busy bool) *Waiting {
	if !busy {
		return nil
	}
	return &Waiting{Code: WaitOtherJobs, Text: "other jobs use all downloads of warm.parallel; jobs take turns"}
}

// holdUp is what holds up work for an image; nil: it may go on.
func (s gates) holdUp(m *image, now time.Time) *Waiting {
	if m.paused(now) {
		return m.wait
	}
	for _, key := range m.gates() {
		if !s.pass(key, now) {
			return &s[key].waiting
		}
	}
	return nil
}
