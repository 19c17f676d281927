package warm

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/oci"
)

// maxPlans bounds the plans that are made at once; others wait.
const maxPlans = 2

// Plan is what a job would do.
type Plan struct {
	Images []Planned // in the order of the request, each once
	// Bytes of the distinct content, of it that are here, and that are to be fetched.
	Bytes, BytesCached, BytesMissing int64
	Requests                         int // of all images
	Fits                             bool
	Why                              string // it does not fit, with the numbers; empty: it fits
	Upstreams                        []Cost // by name
}

// Planned is an image of a plan.
type Planned struct {
	Image     string // canonical
	Digest    oci.Digest
	Platforms []string
	// Bytes of the image, of them that are here, and that other images of the plan have too.
	Bytes, BytesCached, BytesShared int64
	// Requests are the manifests that the job has still to fetch, each of which counts at registries with a limit: the plan has
	// fetched the others. It is an estimate, for an image whose manifests can't be had now.
	Requests int
	Waiting  *Waiting // why its manifests can't be had now; nil: they are here, or it fails
	Failure  *Failure // nil: it does not fail
}

// Cost is what a job costs at an upstream.
type Cost struct {
	Upstream  string
	Requests  int       // that the job has still to make
	Known     bool      // whether the registry has said what is left
	Limit     int64     // of a window; -1: not said
	Remaining int64     // that warm-up may still make
	ResetAt   time.Time // when there is more; zero: not known
	EnoughAt  time.Time // when there is enough; zero: not known, or it takes more than one window
}

// Plan finds out what a job would do. It fetches the manifests of the images, as the job would, and no blob. The error is an
// *InvalidError, a *QuotaError, or that of the context.
func (e *Engine) Plan(ctx context.Context, r Request) (Plan, error) {
	j, err := e.read(r)
	if err != nil {
		return Plan{}, err
	}
	e.mu.Lock()
	err = e.jobs.quota(j)
	e.mu.Unlock()
	if err != nil {
		return Plan{}, err
	}
	select {
	case e.planning <- struct{}{}:
		defer func() { <-e.planning }()
	case <-ctx.Done():
		return Plan{}, context.Cause(ctx)
	}
	p := Plan{Images: make([]Planned, len(j.images))}
	parts := make([]*found, len(j.images))
	var group errgroup.Group
	group.SetLimit(e.inspect.Limits.Parallel)
	for i, m := range j.images {
		group.Go(func() error {
			if ctx.Err() == nil {
				p.Images[i], parts[i] = e.inspect.plan(ctx, m)
			}
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return Plan{}, context.Cause(ctx)
	}
	st := e.stock(ctx)
	e.mu.Lock()
	for i, f := range parts {
		if f != nil {
			e.jobs.contents.attach(j.images[i], f.parts)
		}
	}
	if err := e.jobs.check(j, j.images, st); err != nil {
		p.Why = err.Error()
	}
	for _, m := range j.images {
		e.jobs.contents.detach(m)
	}
	e.mu.Unlock()
	p.Fits = p.Why == ""
	p.share(parts)
	p.Upstreams = e.inspect.costs(j, p.Images)
	return p, nil
}

// share counts the bytes of a plan.
func (p *Plan) share(images []*found) {
	uses := make(map[oci.Digest]int)
	for _, f := range images {
		if f == nil {
			continue
		}
		for _, part := range f.parts {
			uses[part.Digest]++
		}
	}
	counted := make(map[oci.Digest]bool)
	for i, f := range images {
		v := &p.Images[i]
		p.Requests += v.Requests
		if f == nil {
			continue
		}
		for _, part := range f.parts {
			size := max(part.Size, 0)
			v.Bytes += size
			if part.Here {
				v.BytesCached += size
			}
			if uses[part.Digest] > 1 {
				v.BytesShared += size
			}
			if counted[part.Digest] {
				continue
			}
			counted[part.Digest] = true
			p.Bytes += size
			if part.Here {
				p.BytesCached += size
			}
		}
	}
	p.BytesMissing = p.Bytes - p.BytesCached
}

// enoughAt is when there is enough for the requests.
func (c Cost) enoughAt(now time.Time) time.Time {
	switch n := int64(c.Requests); {
	case !c.Known || n <= c.Remaining:
		return now
	case c.Limit < 0 || n <= c.Limit:
		return c.ResetAt
	}
	return time.Time{}
}

// Verify finds out whether all that nodes of the platforms ask for is here. It asks no registry; signatures and referrers do not
// count. The error is an *InvalidError, or that of the context.
func (e *Engine) Verify(ctx context.Context, r Request) ([]Image, error) {
	j, err := e.read(r)
	if err != nil {
		return nil, err
	}
	list := make([]Image, len(j.images))
	for i, m := range j.images {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		list[i] = e.inspect.verify(ctx, m)
	}
	return list, nil
}
