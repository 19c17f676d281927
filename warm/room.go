package warm

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// useAgain is how often the images in use are read again.
const useAgain = 10 * time.Minute

// room is what there is for content, in bytes.
type room struct {
	size  int64 // cache.size
	share int64 // of it, that jobs may keep
	kept  int64 // that jobs keep
	inUse int64 // of content that is in use, and that no job keeps
	disk  int64 // what is free there, beside cache.minFree, and what may be evicted; -1: not known
}

// need is the content of a job, in bytes.
type need struct {
	total   int64 // distinct
	added   int64 // of it, that no job keeps yet
	missing int64 // of it, that is not here
	most    int64 // by the request; 0: no limit
	quota   int64 // warm.maxBytes; 0: no limit
}

// fits is nil where there is room.
func (r room) fits(n need) *TooLargeError {
	e := &TooLargeError{Bytes: n.total, Size: r.size, Share: r.share, Kept: r.kept, InUse: r.inUse}
	switch {
	case n.most > 0 && n.total > n.most:
		e.Limit, e.Room = LimitRequest, n.most
	case n.quota > 0 && n.total > n.quota:
		e.Limit, e.Room = LimitBytes, n.quota
	case n.total > r.size:
		e.Limit, e.Room = LimitCache, r.size
	case r.kept+n.added > r.share:
		e.Limit, e.Bytes, e.Room = LimitShare, n.added, max(r.share-r.kept, 0)
	case r.kept+n.added+r.inUse > r.size:
		e.Limit, e.Bytes, e.Room = LimitInUse, n.added, max(r.size-r.kept-r.inUse, 0)
	case r.disk >= 0 && n.missing > r.disk:
		e.Limit, e.Bytes, e.Room = LimitDisk, n.missing, r.disk
	default:
		return nil
	}
	return e
}

// stock is what was found out about the cache, without the lock, before images are let in.
type stock struct {
	size, stored int64
	disk         int64 // free beside cache.minFree; -1: not known
	inUse        map[oci.Digest]int64
}

// inUse is the content of the images that pods use, as far as it is here, and when that was read.
type inUse struct {
	sizes map[oci.Digest]int64
	at    time.Time
}

// heldByUse is the holder of the keep of content in use, for as long as there are jobs.
const heldByUse = "warm in use"

// present finds out which parts of images are here. They are listed under the lock.
func (e *Engine) present(images func() []*image) map[oci.Digest]bool {
	here := make(map[oci.Digest]bool)
	e.mu.Lock()
	for _, m := range images() {
		for _, b := range m.parts {
			here[b.part.Digest] = false
		}
	}
	e.mu.Unlock()
	for d := range here {
		_, here[d] = e.inspect.Cache.Stat(d)
	}
	return here
}

// unlet are the images that wait to be let in.
func (j *job) unlet() []*image { return j.arrived }

// stock finds out what there is in the cache, and keeps what is in use.
func (e *Engine) stock(ctx context.Context) stock {
	st := e.inspect.Cache.Stats()
	s := stock{size: st.Size, stored: st.Bytes, disk: -1}
	if st.Disk.Space.Total > 0 {
		s.disk = max(st.Disk.Space.Free-st.Disk.Floor, 0)
	}
	e.mu.Lock()
	use := e.jobs.inUse
	e.mu.Unlock()
	now := time.Now()
	if e.inspect.InUse == nil {
		return s
	}
	if now.Sub(use.at) >= useAgain {
		use = inUse{sizes: e.inspect.used(ctx), at: now}
		e.inspect.Cache.Keep(heldByUse, now.Add(keptAhead), slices.Collect(maps.Keys(use.sizes))...)
		e.mu.Lock()
		e.jobs.inUse = use
		e.mu.Unlock()
	}
	s.inUse = use.sizes
	return s
}

// admit lets the images in that wait for it, if they have room. If those of a job that come first have none, the job is too
// large: all of it is refused, unless it is the disk that has none now. Of images that come later, as after a rate window, each is refused for itself.
func (q *queue) admit(j *job, here map[oci.Digest]bool, st stock, now time.Time) {
	list := notOver(j.arrived)
	j.arrived = nil
	for _, m := range list {
		for _, b := range m.parts {
			if is, asked := here[b.part.Digest]; asked {
				b.found(is)
			}
		}
	}
	err, first := q.check(j, list, st), !j.admitted
	if first && err != nil && err.Limit == LimitDisk {
		for _, m := range list {
			m.awaitDisk(err, now)
		}
		q.bump(j)
		return
	}
	j.admitted = true
	switch {
	case err == nil:
		for _, m := range list {
			q.let(m, now)
		}
	case first:
		f := err.finding()
		for _, m := range j.images {
			if !m.state.Over() {
				q.fail(m, f, now)
			}
		}
	default:
		for _, m := range list {
			switch err := q.check(j, []*image{m}, st); {
			case err == nil:
				q.let(m, now)
			case err.Limit == LimitDisk:
				m.awaitDisk(err, now)
			default:
				q.fail(m, err.finding(), now)
			}
		}
	}
	q.bump(j)
}

// diskAgain is how often it is looked whether the disk has room for images that wait for it.
const diskAgain = 15 * time.Second

// awaitDisk has an image wait for room on the disk, which others than the mirror may free.
func (m *image) awaitDisk(e *TooLargeError, now time.Time) {
	f := e.finding()
	m.failed(f, now)
	m.wait = &Waiting{Code: WaitDisk, Text: f.Summary, Until: now.Add(diskAgain)}
	m.job.arrived = append(m.job.arrived, m)
}

// check is nil where images of a job have room.
func (q *queue) check(j *job, list []*image, st stock) *TooLargeError {
	r := room{size: st.size, share: int64(float64(st.size) * q.o.Limits.MaxShare), disk: st.disk}
	var keptHere int64
	r.kept, keptHere = q.contents.kept()
	for d, size := range st.inUse {
		if b := q.contents[d]; b == nil || b.holds == 0 {
			r.inUse += size
		}
	}
	n := need{most: j.request.MaxSize, quota: q.o.Limits.MaxBytes}
	joined, stays := make(map[*blob]bool), int64(0)
	for _, m := range list {
		for _, b := range m.parts {
			if joined[b] {
				continue
			}
			joined[b] = true
			n.total += b.size()
			if b.holds == 0 {
				n.added += b.size()
				stays += b.arrived()
				if size, used := st.inUse[b.part.Digest]; used {
					r.inUse -= size
				}
			}
			if !b.here {
				n.missing += b.size() - b.arrived()
			}
		}
	}
	for _, m := range j.images {
		if m.held {
			for _, b := range m.parts {
				if !joined[b] {
					joined[b] = true
					n.total += b.size()
				}
			}
		}
	}
	if r.disk >= 0 {
		r.disk += max(st.stored-keptHere-stays-r.inUse, 0) // may be evicted
	}
	return r.fits(n)
}

// let lets an image in: its content is kept, and what is not here is fetched.
func (q *queue) let(m *image, now time.Time) {
	m.trouble = trouble{}
	q.contents.hold(m)
	for _, b := range m.parts {
		if !b.here {
			m.missing++
			m.todo = append(m.todo, b)
			b.wanters = append(b.wanters, m)
		}
	}
	q.keepOpen(m, now)
	if m.missing == 0 {
		q.over(m, Done, now)
		return
	}
	m.job.ready = append(m.job.ready, m)
}
