package warm

import (
	"cmp"
	"context"
	"crypto/rand"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// Puller is the part of a puller that jobs need. *pull.Puller is the real one.
type Puller interface {
	// Canonical is the reference under which the mirror knows an image.
	Canonical(ref oci.Ref) (oci.Ref, error)
	// Manifests resolves the tag of a reference and fetches the manifests of an image; Part brings one piece of its content
	// into the cache; Attached finds its signatures and referrers.
	Manifests(ctx context.Context, ref oci.Ref, o pull.FetchOptions) (*pull.Image, error)
	Part(ctx context.Context, repo oci.Repo, part pull.Part, o pull.FetchOptions) error
	Attached(ctx context.Context, ref oci.Ref, o pull.FetchOptions) ([]oci.Ref, error)
	// Survey reads which parts an image has, by the manifests that are in the cache.
	Survey(ref oci.Ref, platforms []string) (*pull.Image, error)
	// Built is the platform of an image without an index, by its config, if that is in the cache.
	Built(m *pull.Image) string
	// Known is the record of a tag, and Choice the digest that a pull of it gets.
	Known(ctx context.Context, ref oci.Ref) (catalog.Tag, error)
	Choice(t catalog.Tag) catalog.Choice
	// Budget is what background work may still spend of the limit of a registry.
	Budget(host string) (limit, remaining int64, resetAt time.Time, known bool)
}

// Cache is the part of the cache that jobs need. *cache.Cache is the real one.
type Cache interface {
	Stat(d oci.Digest) (size int64, ok bool)
	Keep(holder string, until time.Time, digests ...oci.Digest)
	Stats() cache.Stats
}

// Options for an Engine.
type Options struct {
	Puller Puller
	Cache  Cache
	Table  state.Table // for jobs; nil: they end with the process
	Limits Limits
	// Platforms are those of the nodes. Nil, or none: that of this machine, with linux.
	Platforms func() []string
	// InUse are the images that pods use: their content is not evicted for a job. Nil: that is not known.
	InUse func() []oci.Ref
	// Transfers are the blobs that a registry sends now, and those that wait for their turn there, for jobs and for clients.
	// Nil: that is not known.
	Transfers func(host string) (running, waiting int)
	// Patience is how long a job waits for a registry that is down, and for a disk without room. 0: 1 h.
	Patience time.Duration
	Log      *slog.Logger // nil: discard
}

// watchEvery is how often one watcher is told of changes at most.
const watchEvery = 100 * time.Millisecond

// Engine runs jobs. Its methods are safe for concurrent use.
type Engine struct {
	inspect  inspector
	table    state.Table // nil: jobs end with the process
	log      *slog.Logger
	planning chan struct{} // a value for each Plan that runs
	restored sync.Once

	submitting sync.Mutex // one Submit at a time, also while it writes; taken before mu
	mu         sync.Mutex // guards jobs; held for no I/O but lines of the log
	jobs       *queue
}

// New makes an Engine, with the jobs of its table. They go on with Run.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Transfers == nil {
		o.Transfers = func(string) (running, waiting int) { return 0, 0 }
	}
	if o.Patience == 0 {
		o.Patience = time.Hour
	}
	o.Limits = o.Limits.withDefaults()
	e := &Engine{
		inspect: inspector{o}, table: o.Table, log: o.Log, planning: make(chan struct{}, maxPlans), jobs: newQueue(o),
	}
	if o.Table != nil {
		e.load()
	}
	return e
}

// Submit accepts a request: it returns the job, which is on disk, and whether it is new. The error is an *InvalidError, a
// *QuotaError, a *KeyUsedError, or that of the table.
func (e *Engine) Submit(r Request) (Job, bool, error) {
	j, err := e.read(r)
	if err != nil {
		return Job{}, false, err
	}
	e.submitting.Lock()
	defer e.submitting.Unlock()
	if old, err := e.known(j); err != nil || old.ID != "" {
		return old, false, err
	}
	if err := e.save(j); err != nil {
		return Job{}, false, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.jobs.insert(j)
	e.log.Info("warm-up job accepted", "id", j.id, "name", j.request.Name, "items", len(j.images))
	send(e.jobs.wake)
	return e.jobs.view(j), true, nil
}

// known returns the job that has the key of a request already. The error is that of a request which is not accepted.
func (e *Engine) known(j *job) (Job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.jobs.byKey[j.request.Key]
	switch {
	case j.request.Key == "" || old == nil:
		return Job{}, e.jobs.quota(j)
	case old.sum != j.sum:
		return Job{}, &KeyUsedError{Key: j.request.Key, ID: old.id}
	}
	return e.jobs.view(old), nil
}

// read makes a job of a request.
func (e *Engine) read(r Request) (*job, error) {
	refs, err := check(r)
	if err != nil {
		return nil, err
	}
	j := &job{
		id: strings.ToLower(rand.Text()[:12]), request: r, explicit: len(r.Platforms) > 0, sum: sum(r, refs), state: Queued,
		created: time.Now().UTC().Round(0), changed: make(chan struct{}), content: make(map[*blob]struct{}),
	}
	j.request.Images = nil
	j.request.By = cmp.Or(r.By, catalog.ByWarm)
	j.request.Keep = cmp.Or(r.Keep, e.inspect.Limits.Keep)
	if !j.explicit {
		j.request.Platforms = e.inspect.platforms()
	}
	seen := make(map[oci.Ref]bool)
	for _, ref := range refs {
		if own, err := e.inspect.Puller.Canonical(ref); err == nil {
			ref = own
		} // else the image fails, with that reason
		if !seen[ref] {
			seen[ref] = true
			j.add(&image{ref: ref, state: Queued, cached: -1})
		}
	}
	return j, nil
}

// add adds an image that is not over.
func (j *job) add(m *image) {
	m.job, m.index = j, len(j.images)
	j.images = append(j.images, m)
	if !m.state.Over() {
		j.pending = append(j.pending, m)
		j.open++
	}
}

// Job returns a job, or ErrUnknown.
func (e *Engine) Job(id string) (Job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := e.jobs.byID[id]
	if j == nil {
		return Job{}, ErrUnknown
	}
	return e.jobs.view(j), nil
}

// Jobs returns all jobs, the newest first.
func (e *Engine) Jobs() []Job {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]Job, 0, len(e.jobs.order))
	for _, j := range slices.Backward(e.jobs.order) {
		list = append(list, e.jobs.view(j))
	}
	return list
}

// Cancel ends a job and its keeps: downloads that no other job wants end. A job that is over keeps its state. The error is
// ErrUnknown, or nil.
func (e *Engine) Cancel(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := e.jobs.byID[id]
	if j == nil {
		return ErrUnknown
	}
	e.jobs.cancel(j, time.Now())
	return nil
}

// Stats returns the present numbers.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.jobs.stats(time.Now())
}

// Watch yields the state of a job: at once, after each change, and the final one as the last. A reader that is slow misses
// states, never the latest. The error is ErrUnknown or that of the context, and ends it.
func (e *Engine) Watch(ctx context.Context, id string) iter.Seq2[Job, error] {
	return func(yield func(Job, error) bool) {
		for {
			e.mu.Lock()
			j := e.jobs.byID[id]
			if j == nil {
				e.mu.Unlock()
				yield(Job{}, ErrUnknown)
				return
			}
			now, changed := e.jobs.view(j), j.changed
			e.mu.Unlock()
			if !yield(now, nil) || now.State.Over() {
				return
			}
			pause := time.NewTimer(watchEvery)
			select {
			case <-changed:
			case <-ctx.Done():
			}
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				yield(Job{}, context.Cause(ctx))
				return
			}
		}
	}
}
