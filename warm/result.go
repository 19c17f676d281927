package warm

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/diagnose"
)

// resolved takes in the manifests of an image.
func (q *queue) resolved(u *unit, f *found, err error, now time.Time) {
	m := u.image
	u.job.resolving--
	m.stop = nil
	switch {
	case m.state.Over():
		return
	case err != nil:
		u.job.pending = append(u.job.pending, m)
		q.failed(u, gateKey{host: m.ref.Host}, err, now)
		return
	}
	q.gates.worked(gateKey{host: m.ref.Host}, now)
	m.digest, m.platforms, m.attached, m.trouble = f.digest, f.platforms, f.attached, trouble{}
	q.contents.attach(m, f.parts)
	u.job.arrived = append(u.job.arrived, m)
	q.unsaved.image(m)
	q.bump(u.job)
}

// fetched takes in that a blob has come, or not.
func (q *queue) fetched(u *unit, err error, now time.Time) {
	b := u.blob
	b.fetch = nil
	if err != nil {
		if !u.image.state.Over() { // else other images that want it try by themselves
			q.failed(u, gateKey{u.image.ref.Host, true}, err, now)
		}
		return
	}
	q.gates.worked(gateKey{u.image.ref.Host, true}, now)
	q.gates.worked(theDisk, now)
	q.counts.bytes += b.size()
	q.arrived(b, now)
}

// arrived records that a blob is here, for all images that want it.
func (q *queue) arrived(b *blob, now time.Time) {
	b.here = true
	wanters := b.wanters
	b.wanters = nil
	for _, m := range wanters {
		m.trouble = m.eased()
		if m.missing--; m.missing == 0 {
			m.job.landed = append(m.job.landed, m)
		}
		q.bump(m.job)
	}
}

// failed decides what follows from an error: the image has failed, or it is tried again later.
func (q *queue) failed(u *unit, key gateKey, err error, now time.Time) {
	m := u.image
	f := diagnose.Explain(err)
	w := wait(err, f, now)
	switch {
	case u.ctx.Err() != nil:
		return // the image is over, or goes on at the next start
	case w == nil:
		q.fail(m, f, now)
		return
	case w.Code == WaitRateWindow:
		w.Until = later(w.Until, now)
		m.trouble = trouble{wait: w}
		q.bump(m.job)
		return
	case w.Code == WaitDisk:
		key = theDisk
	}
	g := q.gates.at(key)
	works := g.worked.After(u.began) || !m.failedAt.IsZero() && g.worked.After(m.failedAt) // for others, so this image is at fault
	m.failed(f, now)
	q.bump(m.job)
	if works {
		m.tries++
		w.Until = now.Add(pauses.After(m.tries))
	} else {
		g.failed(*w, f.Reason, now)
		w.Until = g.until.Add(time.Second) // another image finds out whether it works, if there is one
	}
	m.wait = w
	if m.tries >= maxTries || now.Sub(m.since) >= q.o.Patience {
		q.fail(m, f, now)
	}
}

// failed records a failure.
func (t *trouble) failed(f diagnose.Finding, now time.Time) {
	t.last, t.failedAt = &f, now
	if t.since.IsZero() {
		t.since = now
	}
}

// later is a time that is not so near that an image would be tried again and again.
func later(t, now time.Time) time.Time {
	if soon := now.Add(time.Second); t.Before(soon) {
		return soon
	}
	return t
}

// giveUp fails the images that have waited for a registry, or the disk, for as long as they may.
func (q *queue) giveUp(now time.Time) {
	running := make(map[*image]bool)
	for u := range q.units {
		running[u.image] = true
	}
	for _, j := range q.order {
		for m := range j.lacking {
			if m.state.Over() || running[m] || m.wait != nil && m.wait.Code == WaitRateWindow {
				continue
			}
			key, g := q.gates.before(m)
			switch {
			case g == nil && m.last == nil:
				m.since = time.Time{}
			case m.since.IsZero():
				m.since = now
			case now.Sub(m.since) < q.o.Patience:
			case m.last != nil:
				q.fail(m, *m.last, now)
			default:
				q.fail(m, g.finding(key, m.ref, q.o.Patience), now)
			}
		}
	}
}

// fail ends an image with a failure.
func (q *queue) fail(m *image, f diagnose.Finding, now time.Time) {
	m.failure = newFailure(m.ref, f)
	q.counts.causes[f.Class]++
	q.o.Log.Warn("an image was not warmed", "ref", m.ref.String(), "id", m.failure.ID, "reason", string(f.Reason), "summary", f.Summary,
		"remedy", f.Remedy)
	q.over(m, Failed, now)
}

// over ends an image.
func (q *queue) over(m *image, s State, now time.Time) {
	j := m.job
	m.state, m.wait, m.todo = s, nil, nil
	m.total, m.here = m.sizes()
	if m.stop != nil {
		m.stop()
	}
	for _, b := range m.parts {
		if i := slices.Index(b.wanters, m); i >= 0 {
			b.wanters = slices.Delete(b.wanters, i, i+1)
			if len(b.wanters) == 0 && b.fetch != nil {
				b.fetch.stop()
			}
		}
	}
	q.counts.images[s]++
	j.open--
	if s == Done {
		q.keep(m, now)
	} else {
		q.release(m)
	}
	q.unsaved.image(m)
	if j.open == 0 && !j.state.Over() {
		q.finish(j, j.outcome(), now)
	}
	q.bump(j)
}

// finish ends a job whose images are all over.
func (q *queue) finish(j *job, s State, now time.Time) {
	j.here = j.done()
	j.state, j.finished, j.content = s, now.UTC().Round(0), nil
	j.pending, j.arrived, j.ready, j.landed = nil, nil, nil, nil
	for _, m := range j.images {
		if m.state == Done {
			q.keep(m, now) // the time counts from the end of the job
			q.unsaved.image(m)
		}
	}
	q.counts.jobs[s]++
	q.unsaved.job(j)
	q.o.Log.Info("warm-up job is over", "id", j.id, "name", j.request.Name, "state", string(s), "items", len(j.images), "bytes", j.total,
		"from_cache", j.cached, "took", now.Sub(j.created).Round(time.Millisecond))
}
