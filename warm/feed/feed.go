// Package feed keeps the images warm that the pods of a cluster use: those of its pods, and of the pod templates of its workloads.
//
//	internal/kube ──> Put, Delete ──> images in use ──> new ones, and those whose keep is half over ──> jobs of warm
//
// Promise: an image that a pod or a template names is in the cache soon after it is first named, and stays there for as long as it
// is named and its registry has it; for a workload without pods, too.
//
// Guarantees:
//   - Images that come together are one job. A few jobs of the feed run at once, and none has many images.
//   - An image that can't be brought is tried again after pauses that grow to six hours.
//   - While objects are listed anew, those that are known stay in use.
//   - What is remembered is bounded: objects and images above the bounds are left out, and the log says so once.
//
// What it does not do: it does not end the keep of an image that is no longer used. That ends by itself, so that a rollback within
// its time finds the image.
package feed

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
)

const (
	maxObjects = 200_000 // a cluster has at most 150,000 pods
	maxImages  = 20_000
	maxName    = 512 // bytes of an image's name
	jobImages  = 50  // of one job: of a job that is too large all images fail
	maxJobs    = 4   // at once

	settle    = 2 * time.Second // after an image is first named, for those that come with it
	lookEvery = 2 * time.Second // at jobs that run
)

// tryAgain are the pauses after an image could not be brought, and refused those after a job was refused.
var (
	tryAgain = backoff.Backoff{First: 10 * time.Minute, Most: 6 * time.Hour}
	refused  = backoff.Backoff{First: time.Minute, Most: 30 * time.Minute}
)

// Jobs are the jobs of a warm.Engine.
type Jobs interface {
	Submit(r warm.Request) (j warm.Job, created bool, err error)
	Job(id string) (warm.Job, error)
}

// Options for a Feed.
type Options struct {
	Jobs Jobs
	// Canonical is the reference under which the mirror knows an image. False: it is not of one of its upstreams.
	Canonical func(ref oci.Ref) (oci.Ref, bool)
	Keep      time.Duration // of the images; 0: 72 h
	Log       *slog.Logger  // nil: discard
}

// Feed is a kube.Sink. Its methods are safe for concurrent use.
type Feed struct {
	o    Options
	wake chan struct{} // holds one: an image is new

	mu      sync.Mutex // guards what follows
	objects map[objectKey]*object
	images  map[string]*image // by the name that objects give them
	round   map[string]uint64 // by kind: how often it was listed
	full    bool              // the log has said so

	// What follows is Run's alone.
	jobs     map[string][]asked // that run, by id
	refusals int                // of jobs, in a row
	retry    time.Time          // no job before
}

type objectKey struct{ kind, name string }

// object is a pod or a workload.
type object struct {
	images []*image
	round  uint64 // of its kind, in which it was last seen
}

// image is one that objects name.
type image struct {
	name     string
	ref      oci.Ref // canonical; zero: it is not of an upstream of ours
	uses     int     // objects that name it; 0: it is not in images any more
	due      time.Time
	running  bool // a job has it
	warm     bool // the last job has brought it
	failures int  // in a row
}

// asked is an image that a job has, with the reference of then.
type asked struct {
	*image
	as string
}

// New makes a Feed of no objects.
func New(o Options) *Feed {
	o.Keep = cmp.Or(o.Keep, 72*time.Hour)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Feed{
		o: o, wake: make(chan struct{}, 1), objects: make(map[objectKey]*object), images: make(map[string]*image),
		round: make(map[string]uint64), jobs: make(map[string][]asked),
	}
}

// Put says which images an object names now.
func (f *Feed) Put(kind, name string, images []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := objectKey{kind, name}
	o := f.objects[k]
	if o == nil {
		if len(f.objects) >= maxObjects {
			f.tooMany("objects", maxObjects)
			return
		}
		o = &object{}
		f.objects[k] = o
	}
	o.round = f.round[kind]
	if slices.EqualFunc(o.images, images, func(m *image, name string) bool { return m.name == name }) {
		return
	}
	old := o.images
	o.images = nil
	for _, name := range images {
		if m := f.use(name); m != nil {
			o.images = append(o.images, m)
		}
	}
	f.release(old)
}

// use counts a use of an image. Nil: there is no room to remember it, or no image has such a name. The lock is held.
func (f *Feed) use(name string) *image {
	m := f.images[name]
	if m == nil {
		if len(f.images) >= maxImages {
			f.tooMany("images", maxImages)
			return nil
		}
		if len(name) > maxName {
			return nil
		}
		m = &image{name: strings.Clone(name)} // not the whole document that it is a part of
		m.find(f.o.Canonical)
		m.due = time.Now().Add(settle)
		f.images[m.name] = m
		f.signal()
	}
	m.uses++
	return m
}

// find reads the image's name.
func (m *image) find(canonical func(oci.Ref) (oci.Ref, bool)) {
	m.ref = oci.Ref{}
	if ref, err := oci.ParseRef(m.name); err == nil {
		if own, ok := canonical(ref); ok {
			m.ref = own
		}
	}
}

// release takes uses back. The lock is held.
func (f *Feed) release(images []*image) {
	for _, m := range images {
		if m.uses--; m.uses == 0 {
			delete(f.images, m.name)
		}
	}
}

func (f *Feed) tooMany(what string, most int) {
	if !f.full {
		f.full = true
		f.o.Log.Warn("the cluster has more than the feed keeps warm; the rest is left out", "items", what, "limit", most)
	}
}

func (f *Feed) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Delete says that an object is gone.
func (f *Feed) Delete(kind, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(objectKey{kind, name})
}

// remove forgets an object. The lock is held.
func (f *Feed) remove(k objectKey) {
	if o := f.objects[k]; o != nil {
		delete(f.objects, k)
		f.release(o.images)
	}
}

// Listing says that all objects of a kind are going to be put.
func (f *Feed) Listing(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.round[kind]++
}

// Listed says that they were: others are gone.
func (f *Feed) Listed(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, o := range f.objects {
		if k.kind == kind && o.round != f.round[kind] {
			f.remove(k)
		}
	}
}

// byRef are the images in use that are of upstreams. Of those that objects name in several ways it has one. The lock is held.
func (f *Feed) byRef() map[oci.Ref]*image {
	list := make(map[oci.Ref]*image, len(f.images))
	for _, m := range f.images {
		if m.ref.Name != "" {
			list[m.ref] = m
		}
	}
	return list
}

// InUse are the images in use that are of upstreams, each once.
func (f *Feed) InUse() []oci.Ref {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.byRef()))
}

// Stats are the numbers of a Feed.
type Stats struct {
	Objects int // pods and workloads
	Images  int // that they name, of upstreams of this mirror
	Warm    int // of these, that are here and kept
	Failing int // of these, that could not be brought when it was last tried
}

// Stats returns the numbers now.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	own := f.byRef()
	s := Stats{Objects: len(f.objects), Images: len(own)}
	for _, m := range own {
		if m.warm {
			s.Warm++
		}
		if m.failures > 0 {
			s.Failing++
		}
	}
	return s
}

// Refresh looks up all names anew, after the upstreams have changed.
func (f *Feed) Refresh() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.images {
		m.find(f.o.Canonical)
	}
	f.signal()
}

// Run begins jobs until ctx ends, whose error it returns.
func (f *Feed) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wake:
		case <-timer.C:
		}
		f.finish()
		timer.Reset(time.Until(f.begin(ctx)))
	}
}

// finish takes over what has come of jobs.
func (f *Feed) finish() {
	for id, images := range f.jobs {
		j, err := f.o.Jobs.Job(id) // one that is not known any more has brought nothing
		if err == nil && !j.State.Over() {
			continue
		}
		delete(f.jobs, id)
		done := make(map[string]bool)
		for _, m := range j.Images {
			done[m.Image] = m.State == warm.Done
		}
		f.mu.Lock()
		for _, m := range images {
			m.running = false
			if m.warm = done[m.as]; m.warm {
				m.failures, m.due = 0, time.Now().Add(backoff.Between(f.o.Keep/3, f.o.Keep/2))
			} else {
				m.failures++
				m.due = time.Now().Add(tryAgain.After(m.failures))
			}
		}
		f.mu.Unlock()
	}
}

// begin begins the jobs that are due, and returns when to look again.
func (f *Feed) begin(ctx context.Context) time.Time {
	for now := time.Now(); ; {
		due, next := f.due(now)
		if len(due) == 0 {
			return next
		}
		r := warm.Request{Keep: f.o.Keep, By: catalog.ByWarm, Name: "feed"}
		for _, m := range due {
			r.Images = append(r.Images, m.as)
		}
		j, _, err := f.o.Jobs.Submit(r)
		if err == nil {
			f.refusals = 0
			f.jobs[j.ID] = due
			continue
		}
		f.refusals++
		f.retry = now.Add(refused.After(f.refusals))
		if _, quota := errors.AsType[*warm.QuotaError](err); f.refusals == 1 || !quota {
			f.o.Log.WarnContext(ctx, "a job of the cluster feed was refused", "error", err, "count", len(due), "next_try", f.retry.UTC().Format(time.RFC3339))
		}
		f.mu.Lock()
		for _, m := range due {
			m.running = false
		}
		f.mu.Unlock()
		return f.retry
	}
}

// due are the images of the next job, which are running then, and when to look again. Images that have failed are in smaller jobs
// each time: one that is too large for its share of the cache takes none of the others with it.
func (f *Feed) due(now time.Time) (list []asked, next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next = now.Add(time.Hour)
	if len(f.jobs) > 0 {
		next = now.Add(lookEvery)
	}
	if now.Before(f.retry) {
		return nil, earlier(next, f.retry)
	}
	var first *image
	for _, m := range f.images {
		if m.ref.Name != "" && !m.running && (first == nil || m.due.Before(first.due)) {
			first = m
		}
	}
	switch {
	case first == nil || len(f.jobs) >= maxJobs:
		return nil, next
	case first.due.After(now):
		return nil, earlier(next, first.due)
	}
	most := max(1, jobImages>>min(first.failures, 10))
	for _, m := range f.images {
		if m.ref.Name != "" && !m.running && !m.due.After(now.Add(settle)) && m.failures == first.failures && len(list) < most {
			m.running = true
			list = append(list, asked{m, m.ref.String()})
		}
	}
	slices.SortFunc(list, func(a, b asked) int { return strings.Compare(a.as, b.as) })
	return list, next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
