package warm

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// A job is one item of the table, and one for each of its images: job/ID, image/ID/NUMBER. The images are written first, so a
// job that is there has all of them.
const (
	jobKeys   = "job/"
	imageKeys = "image/"
	// storedVersion is that of storedJob and storedImage. Items of a later one are not read, and stay.
	storedVersion = 1
	writeEvery    = time.Second
	writeAgain    = 5 * time.Second // after a failure
)

// storedJob is a job as the table has it. Fields may be added, and are never renamed.
type storedJob struct {
	Version   int            `json:"version"`
	Name      string         `json:"name,omitempty"`
	By        catalog.Source `json:"by"`
	Platforms []string       `json:"platforms"`
	Explicit  bool           `json:"explicit,omitempty"`
	Keep      time.Duration  `json:"keep"`
	With      []string       `json:"with,omitempty"`
	Fresh     bool           `json:"fresh,omitempty"`
	MaxSize   int64          `json:"maxSize,omitempty"`
	Key       string         `json:"key,omitempty"`
	Sum       string         `json:"sum,omitempty"`
	State     State          `json:"state"`
	Created   time.Time      `json:"created"`
	Started   time.Time      `json:"started,omitzero"`
	Finished  time.Time      `json:"finished,omitzero"`
	Images    int            `json:"images"`
	Total     int64          `json:"total,omitempty"`
	Here      int64          `json:"here,omitempty"`
	Cached    int64          `json:"cached,omitempty"`
}

// storedImage is an image of a job as the table has it.
type storedImage struct {
	Version   int          `json:"version"`
	Image     string       `json:"image"`
	State     State        `json:"state"`
	Digest    oci.Digest   `json:"digest,omitempty"`
	Platforms []string     `json:"platforms,omitempty"`
	Attached  []oci.Digest `json:"attached,omitempty"`
	Total     int64        `json:"total,omitempty"`
	Here      int64        `json:"here,omitempty"`
	Cached    *int64       `json:"cached,omitempty"` // absent: the manifests were not read yet
	KeptUntil time.Time    `json:"keptUntil,omitzero"`
	Gone      bool         `json:"gone,omitempty"`
	Failure   *Failure     `json:"failure,omitempty"`
}

func (j *job) key() string { return jobKeys + j.id }

func (j *job) item() state.Item {
	r := j.request
	b, _ := json.Marshal(storedJob{ // of strings, numbers and times: it can't fail
		Version: storedVersion, Name: r.Name, By: r.By, Platforms: r.Platforms, Explicit: j.explicit, Keep: r.Keep, With: r.With,
		Fresh: r.Fresh, MaxSize: r.MaxSize, Key: r.Key, Sum: j.sum, State: j.state, Created: j.created, Started: j.started, Finished: j.finished,
		Images: len(j.images), Total: j.total, Here: j.here, Cached: j.cached,
	})
	return state.Item{Key: j.key(), Value: b}
}

func (m *image) item() state.Item {
	s := storedImage{
		Version: storedVersion, Image: m.ref.String(), State: m.state, Digest: m.digest, Platforms: m.platforms, Attached: m.attached,
		Total: m.total, Here: m.here, KeptUntil: m.keptUntil, Gone: m.gone, Failure: m.failure,
	}
	if m.cached >= 0 {
		s.Cached = &m.cached
	}
	b, _ := json.Marshal(s)
	return state.Item{Key: m.key(), Value: b}
}

// save writes a new job.
func (e *Engine) save(j *job) error {
	if e.table == nil {
		return nil
	}
	items := make([]state.Item, 0, len(j.images)+1)
	for _, m := range j.images {
		items = append(items, m.item())
	}
	if err := e.table.Write(append(items, j.item())); err != nil {
		return fmt.Errorf("record the job: %w", err)
	}
	return nil
}

// unsaved is what differs from the table.
type unsaved struct {
	due    chan struct{} // holds one: there is something to write
	jobs   map[*job]struct{}
	images map[*image]struct{}
	gone   []string // keys
}

func newUnsaved() unsaved {
	return unsaved{due: make(chan struct{}, 1), jobs: make(map[*job]struct{}), images: make(map[*image]struct{})}
}

// job, image and forget have something written soon.
func (u *unsaved) job(j *job) {
	u.jobs[j] = struct{}{}
	send(u.due)
}

func (u *unsaved) image(m *image) {
	u.images[m] = struct{}{}
	send(u.due)
}

func (u *unsaved) forget(keys ...string) {
	u.gone = append(u.gone, keys...)
	send(u.due)
}

// take takes all of it out.
func (u *unsaved) take() unsaved {
	batch := *u
	*u = newUnsaved()
	u.due = batch.due
	return batch
}

// giveBack puts back what could not be written.
func (u *unsaved) giveBack(batch unsaved) {
	maps.Copy(u.jobs, batch.jobs)
	maps.Copy(u.images, batch.images)
	u.forget(batch.gone...)
}

// items are what is to be written of it. Jobs that were forgotten meanwhile are not.
func (q *queue) items(batch unsaved) []state.Item {
	var items []state.Item
	for _, key := range batch.gone {
		items = append(items, state.Item{Key: key})
	}
	for m := range batch.images {
		if q.byID[m.job.id] == m.job {
			items = append(items, m.item())
		}
	}
	for j := range batch.jobs {
		if q.byID[j.id] == j {
			items = append(items, j.item())
		}
	}
	return items
}

// write writes what has changed, at most once in a second, until the context ends; what is left, it writes then.
func (e *Engine) write(ctx context.Context) {
	if e.table == nil {
		return
	}
	due, failing := e.jobs.unsaved.due, false
	pause := time.NewTimer(0)
	defer pause.Stop()
	for over := false; !over; {
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		select {
		case <-due:
		case <-ctx.Done():
			over = true
		}
		next := writeEvery
		err := e.flush()
		if err != nil {
			next = writeAgain
			if !failing {
				e.log.ErrorContext(ctx, "cannot write the warm-up jobs; a restart repeats what is not written; check the disk", "error", err)
			}
		}
		failing = err != nil
		pause.Reset(next)
	}
}

// flush writes what has changed. After an error it is still to be written.
func (e *Engine) flush() error {
	e.mu.Lock()
	batch := e.jobs.unsaved.take()
	items := e.jobs.items(batch)
	e.mu.Unlock()
	if len(items) == 0 {
		return nil
	}
	err := e.table.Write(items)
	if err != nil {
		e.mu.Lock()
		e.jobs.unsaved.giveBack(batch)
		e.mu.Unlock()
	}
	return err
}

// load reads the jobs of an earlier process. What can't be read is left out, and images without their job are removed.
func (e *Engine) load() {
	unread := 0
	var problem error
	read := func(it state.Item, version *int, to any) bool {
		err := json.Unmarshal(it.Value, to)
		if err == nil && *version > storedVersion {
			err = fmt.Errorf("version %d is newer than %d", *version, storedVersion)
		}
		if err != nil {
			unread, problem = unread+1, err
		}
		return err == nil
	}
	found := make(map[string]*job)
	wanted := make(map[string]int)
	for it, err := range e.table.Scan(jobKeys) {
		if err != nil {
			problem = err
			break
		}
		var s storedJob
		if id := strings.TrimPrefix(it.Key, jobKeys); read(it, &s.Version, &s) {
			found[id], wanted[id] = s.job(id), s.Images
		}
	}
	for it, err := range e.table.Scan(imageKeys) {
		if err != nil {
			problem = err
			break
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(it.Key, imageKeys), "/")
		if found[id] == nil {
			e.jobs.unsaved.forget(it.Key)
			continue
		}
		var s storedImage
		if !read(it, &s.Version, &s) {
			continue
		}
		if m, err := s.image(); err == nil {
			found[id].add(m)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]*job, 0, len(found))
	for id, j := range found {
		if len(j.images) == wanted[id] {
			list = append(list, j)
		} else {
			unread++
		}
	}
	slices.SortFunc(list, func(a, b *job) int { return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id, b.id)) })
	for _, j := range list {
		e.jobs.insert(j)
	}
	if unread > 0 || problem != nil {
		e.log.Error("warm-up jobs of an earlier run can't be read; they are left out", "count", unread, "error", problem)
	}
}

func (s storedJob) job(id string) *job {
	j := &job{
		id: id, explicit: s.Explicit, sum: s.Sum, state: s.State, created: s.Created, started: s.Started, finished: s.Finished,
		request: Request{
			Platforms: s.Platforms, Keep: s.Keep, With: s.With, Fresh: s.Fresh, MaxSize: s.MaxSize, By: s.By, Name: s.Name, Key: s.Key,
		},
		bytes: bytes{s.Total, s.Here}, cached: s.Cached, changed: make(chan struct{}),
	}
	if !j.state.Over() {
		j.total, j.here, j.content = 0, 0, make(map[*blob]struct{})
	}
	return j
}

func (s storedImage) image() (*image, error) {
	ref, err := oci.ParseRef(s.Image)
	if err != nil {
		return nil, err
	}
	m := &image{
		ref: ref, state: s.State, digest: s.Digest, platforms: s.Platforms, attached: s.Attached, bytes: bytes{s.Total, s.Here},
		cached: -1, keptUntil: s.KeptUntil, gone: s.Gone, failure: s.Failure,
	}
	if s.Cached != nil {
		m.cached = *s.Cached
	}
	return m, nil
}

// Restore makes the keeps of an earlier process again. It is called before the cache may evict; Run does so where it was not.
func (e *Engine) Restore(ctx context.Context) {
	e.restored.Do(func() {
		e.mu.Lock()
		var list []*image
		for _, j := range e.jobs.order {
			for _, m := range j.images {
				if m.digest != "" && (!j.state.Over() || m.state == Done && time.Now().Before(m.keptUntil)) {
					list = append(list, m)
				}
			}
		}
		e.mu.Unlock()
		for _, m := range list {
			if ctx.Err() != nil {
				return
			}
			f := e.inspect.survey(m)
			e.mu.Lock()
			e.jobs.restore(m, f, time.Now())
			e.mu.Unlock()
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, j := range e.jobs.order {
			if j.open == 0 && !j.state.Over() { // that it ended was not written
				e.jobs.finish(j, j.outcome(), time.Now())
			}
		}
	})
}
