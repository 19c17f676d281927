package journal

import (
	"container/list"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// Options for a Journal.
type Options struct {
	// Log gets one Info line per pull and one Warn line per failing one. Nil: discard.
	Log *slog.Logger
	// OnPull is told of each pull once it is over, from Run's goroutine, which waits for it. Nil: nobody is told.
	OnPull func(Pull)
	// OnFailure is told of each pull that fails or is declined, once for each reason, when that is recorded. It must not
	// block. Nil: nobody is told.
	OnFailure func(Failure)
	// Record keeps the failures. Nil: one that is lost at a restart.
	Record *Record
	// Idle is how long a pull stays open after its last request. Zero: 60 s.
	Idle time.Duration
	// Buffer is how many requests may wait to be recorded, and as many again of clients that have few waiting; further ones
	// are lost, and counted. Zero: 4096.
	Buffer int
}

const (
	// gather is how long requests wait to be recorded together: at ten thousand a second, waking somebody for each would
	// cost as much as finding the manifest. What failed is recorded at once.
	gather    = 50 * time.Millisecond
	maxOpen   = 10_000 // pulls; of more, those of the client that has most of them are closed, the longest idle one first
	maxSeen   = 4096   // failures that are remembered for not being said again
	sayAgain  = time.Minute
	maxUnsure = 100 // failing parts of one pull

	// So many lines of pulls that went wrong are logged within a window; of more there is a count. A broken deployment
	// fails ten thousand pulls a second, and what there is to say of them is in the record.
	lineWindow = 10 * time.Second
	mostLines  = 500
	// ownLines are those of each source that no other source's use up, up to mostLines of all such.
	ownLines = 5
)

// Journal makes pulls out of requests. Observe and Begin may be called from anywhere, also without Run; then they fill
// the buffer.
type Journal struct {
	log    *slog.Logger
	onPull func(Pull)
	onFail func(Failure)
	idle   time.Duration
	buffer int
	record *Record
	do     chan func()   // to be run by Run
	some   chan struct{} // something waits
	now    chan struct{} // what waits should not wait longer

	nodes atomic.Pointer[[]string] // what they are, as far as that is said

	mu      sync.Mutex // guards what follows
	waiting []event
	sources map[string]int // how many of waiting are whose; counted only once there are many
	dropped int64

	// What follows is Run's alone.
	taken   []event
	open    map[key]*list.List       // pulls of a client in a repository, the one active last in front
	recent  *list.List               // all open pulls, the one active last in front
	held    *shares[*opened]         // the same, by client
	tags    map[name]*opened         // the same, by tag
	digests map[name]*list.List      // those of a digest, the one active last in front
	seen    map[string]*share[*said] // failures by what tells them apart
	said    *shares[*said]           // the same, by client
	lost    int64                    // of dropped, what has been reported
	doubts  *list.List               // pulls that got an index, by when they are settled; each is a doubt
	doubted *shares[*list.Element]   // the same, by client
	indexes map[oci.Digest]*index
	learned map[string]*share[*learnt] // platforms of clients
	learnt  *shares[*learnt]           // the same, by client
	ending  bool
	over    *list.List             // the last pulls that are over; each is a Pull
	kept    *shares[*list.Element] // the same, by client

	window time.Time      // when the lines began to be counted
	lines  int            // logged in that window, without the own ones
	own    map[string]int // lines of each source that were its own in that window
	owned  int            // all of them
	unsaid int            // lines that were not logged, and have not been reported
}

type event struct {
	Request
	begin bool
}

type key struct {
	client string
	repo   oci.Repo
}

// New makes a Journal.
func New(o Options) *Journal {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnPull == nil {
		o.OnPull = func(Pull) {}
	}
	if o.OnFailure == nil {
		o.OnFailure = func(Failure) {}
	}
	if o.Idle <= 0 {
		o.Idle = time.Minute
	}
	if o.Buffer <= 0 {
		o.Buffer = 4096
	}
	if o.Record == nil {
		o.Record = NewRecord(nil, o.Log)
	}
	j := &Journal{
		sources: make(map[string]int), record: o.Record, do: make(chan func()), log: o.Log, onPull: o.OnPull, onFail: o.OnFailure,
		idle: o.Idle, buffer: o.Buffer, some: make(chan struct{}, 1), now: make(chan struct{}, 1),
		open: make(map[key]*list.List), recent: list.New(), held: newShares[*opened](maxOpen),
		tags: make(map[name]*opened), digests: make(map[name]*list.List),
		doubts: list.New(), doubted: newShares[*list.Element](maxOpen),
		indexes: make(map[oci.Digest]*index), learned: make(map[string]*share[*learnt]), learnt: newShares[*learnt](maxLearned),
		seen: make(map[string]*share[*said]), said: newShares[*said](maxSeen),
		own: make(map[string]int), over: list.New(), kept: newShares[*list.Element](keepPulls),
	}
	j.Platforms(nil)
	return j
}

// Platforms says what the nodes are, each OS/ARCH or OS/ARCH/VARIANT, for clients of which that isn't known. It holds from
// now on, and may be called from anywhere.
func (j *Journal) Platforms(nodes []string) {
	nodes = slices.Clone(nodes)
	j.nodes.Store(&nodes)
}

// Nodes are what Platforms was told last.
func (j *Journal) Nodes() []string { return slices.Clone(*j.nodes.Load()) }

// Observe records a request that has been answered. It never blocks.
func (j *Journal) Observe(r Request) { j.send(event{Request: r}) }

// Begin says that the body of a blob begins to be sent: its pull stays open until Observe tells of its end. It never
// blocks.
func (j *Journal) Begin(r Request) { j.send(event{Request: r, begin: true}) }

func (j *Journal) send(e event) {
	j.mu.Lock()
	n := len(j.waiting) + 1
	if n > j.buffer/2 && !j.room(n, e.holder().source) {
		j.dropped++
		j.mu.Unlock()
		return
	}
	j.waiting = append(j.waiting, e)
	j.mu.Unlock()
	switch {
	case e.Finding != nil || n == j.buffer/4:
		tell(j.now)
	case n == 1:
		tell(j.some)
	}
}

// room reports whether the nth event may wait, which is of a source. When the buffer is full, as much again is for those
// sources that have less than their part of it: one that floods loses its own events, and no others.
func (j *Journal) room(n int, source string) bool {
	if len(j.sources) == 0 {
		for _, e := range j.waiting {
			j.sources[e.holder().source]++
		}
	}
	if n > j.buffer && (!guard.Share || n > 2*j.buffer || (j.sources[source]+1)*max(1, len(j.sources)) > j.buffer) {
		return false
	}
	j.sources[source]++
	return true
}

func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Dropped is how many events were lost since the start because more came than could be recorded.
func (j *Journal) Dropped() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.dropped
}

// Run records until the context ends; then it closes what is open, and returns nil.
func (j *Journal) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx)) // it ends after the last failure is recorded
	var writer sync.WaitGroup
	defer writer.Wait()
	defer stop()
	writer.Go(func() { j.record.run(writing) })
	sweep := time.NewTimer(j.idle)
	defer sweep.Stop()
	gathered := time.NewTimer(0)
	defer gathered.Stop()
	settling := time.NewTimer(0)
	defer settling.Stop()
	armed := true
	for {
		if first := j.doubts.Front(); first != nil && !armed {
			armed = true
			settling.Reset(max(time.Until(first.Value.(*doubt).at), time.Millisecond))
		}
		select {
		case now := <-settling.C:
			j.take(ctx)
			var next time.Duration
			if next, armed = j.settle(ctx, now); armed {
				settling.Reset(next)
			}
		case <-j.some:
			gathered.Reset(gather)
		case <-gathered.C:
			j.take(ctx)
		case <-j.now:
			j.take(ctx)
		case now := <-sweep.C:
			j.take(ctx)
			sweep.Reset(j.sweep(ctx, now))
		case f := <-j.do:
			j.take(ctx)
			f()
		case <-ctx.Done():
			j.finish(context.WithoutCancel(ctx)) // the last lines are written, whatever has ended
			return nil
		}
	}
}

// Sync returns when all that was observed before it is recorded, or with the context's error. Run must run.
func (j *Journal) Sync(ctx context.Context) error { return j.within(ctx, func() {}) }

// within has Run run f, after all that was observed before.
func (j *Journal) within(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case j.do <- func() { f(); close(done) }:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-done
	return nil
}

// take records what has been observed until now.
func (j *Journal) take(ctx context.Context) {
	j.mu.Lock()
	j.taken, j.waiting = j.waiting, j.taken[:0]
	clear(j.sources)
	j.mu.Unlock()
	for _, e := range j.taken {
		j.note(ctx, e)
	}
	clear(j.taken) // what it points to is not kept
}

// finish records what has been observed until now, and closes all pulls.
func (j *Journal) finish(ctx context.Context) {
	j.take(ctx)
	j.ending = true
	for e := j.recent.Back(); e != nil; e = j.recent.Back() {
		j.close(ctx, e.Value.(*opened))
	}
	j.reportLoss(ctx)
}

// sweep closes the pulls that have been idle, and returns how long until the next one may be.
func (j *Journal) sweep(ctx context.Context, now time.Time) time.Duration {
	j.reportLoss(ctx)
	next := j.idle
	for e := j.recent.Back(); e != nil; {
		p, before := e.Value.(*opened), e.Prev()
		left := p.last.Add(j.idle).Sub(now)
		if left > 0 {
			next = left // those before it were active later
			break
		}
		// A pull that sends for ever has lost the event of its end.
		if p.sending == 0 || now.Sub(p.last) > 24*time.Hour {
			j.close(ctx, p)
		}
		e = before
	}
	return max(next, j.idle/60)
}

func (j *Journal) reportLoss(ctx context.Context) {
	if n := j.Dropped(); n > j.lost {
		j.log.WarnContext(ctx, "journal is overloaded: requests are not recorded", "lost", n-j.lost)
		j.lost = n
	}
	if j.unsaid > 0 {
		j.log.WarnContext(ctx, "too many pulls fail to log each; see mirror failures", "unsaid", j.unsaid)
		j.unsaid = 0
	}
}

// line logs a line of what went wrong for a client behind a source, unless there were too many of late. The first few of
// each source are its own, so that one that floods the log leaves room for those of others.
func (j *Journal) line(ctx context.Context, source string, level slog.Level, msg string, attrs ...slog.Attr) {
	if now := time.Now(); now.Sub(j.window) >= lineWindow {
		j.window, j.lines, j.owned = now, 0, 0
		clear(j.own)
	}
	switch {
	case guard.Share && j.owned < mostLines && j.own[source] < ownLines:
		j.own[source]++
		j.owned++
	case j.lines < mostLines:
		j.lines++
	default:
		j.unsaid++
		return
	}
	j.log.LogAttrs(ctx, level, msg, attrs...)
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
	}
	if e.Finding != nil {
		j.failed(ctx, p, e.Request)
	}
}
