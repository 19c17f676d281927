package warm

import (
	"context"
	"sync"
	"time"

	"github.com/registrymirror/mirror/pull"
)

// Run does the work of jobs until the context ends. Those that are not over go on at the next start.
func (e *Engine) Run(ctx context.Context) error {
	e.Restore(ctx)
	var writer, units sync.WaitGroup
	writing, stop := context.WithCancel(context.WithoutCancel(ctx)) // what the last units bring is written, too
	writer.Go(func() { e.write(writing) })
	defer writer.Wait()
	defer stop()
	defer units.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		e.mu.Lock()
		now := time.Now()
		e.jobs.look(now)
		e.jobs.giveUp(now)
		for u := e.jobs.next(now); u != nil; u = e.jobs.next(now) {
			e.jobs.begin(ctx, u, now)
			units.Go(func() { e.do(u) })
		}
		due := e.jobs.due(now)
		recheck := now.Sub(e.jobs.checked) >= lookEvery
		e.mu.Unlock()
		if recheck {
			e.Recheck()
		}
		timer.Reset(due)
		select {
		case <-ctx.Done():
		case <-e.jobs.wake:
		case <-timer.C:
		}
	}
	return nil
}

// do is the work of a unit, in its goroutine.
func (e *Engine) do(u *unit) {
	var result func(now time.Time)
	switch u.kind {
	case resolving:
		found, err := e.inspect.manifests(u.ctx, u.image.known(), &u.job.request, u.job.explicit)
		result = func(now time.Time) { e.jobs.resolved(u, found, err, now) }
	case admitting:
		here, there := e.present(u.job.unlet), e.stock(u.ctx)
		result = func(now time.Time) { e.jobs.admit(u.job, here, there, now) }
	case confirming:
		here := e.present(u.job.unconfirmed)
		result = func(now time.Time) { e.jobs.confirm(u.job, here, now) }
	case fetching:
		err := e.inspect.Puller.Part(u.ctx, u.image.ref.Repo, u.blob.part, e.inspect.options(&u.job.request, func(_ pull.Part, n int64) { u.blob.done.Store(n) }))
		result = func(now time.Time) { e.jobs.fetched(u, err, now) }
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	result(time.Now())
	e.jobs.end(u)
}
