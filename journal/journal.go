package journal

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options for a Journal.
type Options struct {
	// Log gets one Info line per pull and one Warn line per failing pull. Nil: discard.
	Log *slog.Logger
	// OnPull is called with each finished pull, from Run's goroutine, which waits for it. Nil: no call.
	OnPull func(Pull)
	// OnLoss is called with the number of events that were lost since the last call, from Run's goroutine. Nil: no call.
	OnLoss func(n int64)
	// OnFailure is called with each pull that fails or is declined, once for each reason, when that is recorded. It must
	// not block. Nil: no call.
	OnFailure func(Failure)
	// Record keeps the failures. Nil: one that is lost at a restart.
	Record *Record
	// Idle is how long a pull stays open after its last request. Zero: 60 s.
	Idle time.Duration
	// Buffer is how many requests may wait to be recorded, and as many again of clients that have few waiting; further ones
	// are lost, and counted. Zero: 4096.
	Buffer int
}

// gather is how long requests wait to be recorded together: at ten thousand a second, waking a goroutine for each would
// cost as much as finding the manifest. A failure is recorded at once.
const gather = 50 * time.Millisecond

// Journal assembles pulls from requests. Observe and Begin may be called from anywhere, also without Run; then they fill
// the queue.
type Journal struct {
	o     Options
	queue *queue
	calls chan func()              // run by Run
	nodes atomic.Pointer[[]string] // platforms of the nodes, as far as they are configured

	// Run alone uses the fields below.
	open      *openPulls
	inference *inference
	log       *pullLog
	history   *shares[Pull] // finished pulls
	stopping  bool
}

// New makes a Journal.
func New(o Options) *Journal {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnPull == nil {
		o.OnPull = func(Pull) {}
	}
	if o.OnLoss == nil {
		o.OnLoss = func(int64) {}
	}
	if o.OnFailure == nil {
		o.OnFailure = func(Failure) {}
	}
	o.Idle, o.Buffer = cmp.Or(o.Idle, time.Minute), cmp.Or(o.Buffer, 4096)
	if o.Record == nil {
		o.Record = NewRecord(nil, o.Log)
	}
	j := &Journal{
		o: o, queue: newQueue(o.Buffer), calls: make(chan func()), open: newOpenPulls(), inference: newInference(),
		log: newPullLog(o.Log), history: newShares[Pull](maxHistory),
	}
	j.Platforms(nil)
	return j
}

// Platforms sets the platforms of the nodes, each OS/ARCH or OS/ARCH/VARIANT, for clients whose own is not known. It holds
// from now on, and may be called from anywhere.
func (j *Journal) Platforms(nodes []string) {
	nodes = slices.Clone(nodes)
	j.nodes.Store(&nodes)
}

// Nodes are the platforms that Platforms has set last.
func (j *Journal) Nodes() []string { return slices.Clone(*j.nodes.Load()) }

// Observe records a request that has been answered. It never blocks.
func (j *Journal) Observe(r Request) { j.queue.send(event{Request: r}) }

// Begin records that the body of a blob begins to be sent: its pull stays open until Observe reports its end. It never
// blocks.
func (j *Journal) Begin(r Request) { j.queue.send(event{Request: r, begin: true}) }

// Run records until the context ends; then it closes the open pulls, and returns nil.
func (j *Journal) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx)) // it ends after the last failure is recorded
	var writer sync.WaitGroup
	defer writer.Wait()
	defer stop()
	writer.Go(func() { j.o.Record.run(writing) })
	sweepAt := time.Now().Add(j.o.Idle)
	due, gathered := time.NewTimer(0), time.NewTimer(0)
	defer due.Stop()
	defer gathered.Stop()
	for {
		due.Reset(time.Until(j.next(sweepAt)))
		select {
		case now := <-due.C:
			j.take(ctx)
			j.inferMissing(ctx, now)
			j.closeComplete(ctx, now)
			if !now.Before(sweepAt) {
				sweepAt = now.Add(j.sweep(ctx, now))
			}
		case <-j.queue.some:
			gathered.Reset(gather)
		case <-gathered.C:
			j.take(ctx)
		case <-j.queue.urgent:
			j.take(ctx)
		case f := <-j.calls:
			j.take(ctx)
			f()
		case <-ctx.Done():
			j.finish(context.WithoutCancel(ctx)) // the last lines are written although the context has ended
			return nil
		}
	}
}

// next is the time at which something is due: a sweep, or something of a pull before that.
func (j *Journal) next(sweep time.Time) time.Time {
	if p := first(j.inference.waiting); p != nil && p.chooseBy.Before(sweep) {
		sweep = p.chooseBy
	}
	if p := first(j.open.complete); p != nil && p.completeAt().Before(sweep) {
		return p.completeAt()
	}
	return sweep
}

// Sync returns when everything observed before it is recorded, or with the context's error. Run must be running.
func (j *Journal) Sync(ctx context.Context) error { return j.call(ctx, func() {}) }

// call has Run's goroutine run f, after everything observed before.
func (j *Journal) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case j.calls <- func() { f(); close(done) }:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-done
	return nil
}

// take records the events that wait.
func (j *Journal) take(ctx context.Context) {
	j.queue.take(func(e event) { j.note(ctx, e) })
}

func (j *Journal) note(ctx context.Context, e event) {
	p := j.pullOf(ctx, e)
	switch {
	case e.begin:
		if p != nil {
			p.sending++
		}
		return
	case p != nil:
		j.add(p, e.Request)
		j.open.markComplete(p)
	}
	if e.Finding != nil && !ignored(e.Request) {
		j.fail(ctx, p, e.Request)
	}
}

// finish records the events that wait, and closes all pulls.
func (j *Journal) finish(ctx context.Context) {
	j.take(ctx)
	j.stopping = true
	for p := range j.open.fromIdlest() {
		j.close(ctx, p)
	}
	j.reportLoss(ctx)
}

// endless is how long a pull may have been sending for; longer means that the event of its end was lost.
const endless = 24 * time.Hour

// sweep closes the pulls that have been idle for long enough, and returns when to sweep again.
func (j *Journal) sweep(ctx context.Context, now time.Time) time.Duration {
	j.reportLoss(ctx)
	next := j.o.Idle
	for p := range j.open.fromIdlest() {
		if left := p.lastActive.Add(j.o.Idle).Sub(now); left > 0 {
			next = left // the others were active later
			break
		}
		if p.sending == 0 || now.Sub(p.lastActive) > endless {
			j.close(ctx, p)
		}
	}
	return max(next, j.o.Idle/60)
}

// closeComplete closes the pulls whose clients have had everything for long enough.
func (j *Journal) closeComplete(ctx context.Context, now time.Time) {
	for p := first(j.open.complete); p != nil && !p.completeAt().After(now); p = first(j.open.complete) {
		if p.sending > 0 || len(p.missing) > 0 { // the client has requested more
			j.open.unmarkComplete(p)
			continue
		}
		j.close(ctx, p)
	}
}

// close ends a pull, and records how it went.
func (j *Journal) close(ctx context.Context, p *pull) {
	if !j.stopping { // a client that the mirror's own stop cuts off has not left
		j.inferLeft(ctx, p)
	}
	h := p.share.holder()
	j.open.remove(p)
	j.inference.settle(p)
	done := p.sum()
	j.keep(h, done)
	j.log.pull(ctx, h.source, done)
	j.o.OnPull(done)
}

func (j *Journal) reportLoss(ctx context.Context) {
	n := j.queue.newlyLost()
	j.log.reportLoss(ctx, n)
	if n > 0 {
		j.o.OnLoss(n)
	}
}

// Open returns all pulls that are not finished, each as it would be if it ended now. Run must be running.
func (j *Journal) Open(ctx context.Context) (list []Pull, err error) {
	err = j.call(ctx, func() {
		for e := j.open.recent.Front(); e != nil; e = e.Next() {
			list = append(list, e.Value.(*pull).sum())
		}
	})
	return list, err
}

const (
	maxHistory = 1000 // finished pulls; beyond that, the client with the most of them loses one
	// pausing is how long after its last request a pull is still shown as running: a client waits as long for an answer. It
	// stays open for longer, since later requests may belong to it.
	pausing = 30 * time.Second
)

// keep remembers a finished pull.
func (j *Journal) keep(h holder, p Pull) {
	if _, victim := j.history.add(h, p); victim != nil {
		j.history.remove(victim)
	}
}

// Pulls returns the running pulls, the one active last first, or the finished ones, the last first: at most 1,000 of
// either. A running pull has the outcome that it would have if it ended now. Run must be running.
func (j *Journal) Pulls(ctx context.Context, active bool) (list []Pull, err error) {
	err = j.call(ctx, func() {
		if !active {
			all := slices.SortedFunc(j.history.all(), func(a, b *share[Pull]) int { return cmp.Compare(b.used, a.used) })
			for _, e := range all {
				list = append(list, e.value)
			}
			return
		}
		for e := j.open.recent.Front(); e != nil && len(list) < maxHistory; e = e.Next() {
			if p := e.Value.(*pull); p.sending > 0 || time.Since(p.lastActive) < pausing {
				list = append(list, p.sum())
			}
		}
	})
	return list, err
}
