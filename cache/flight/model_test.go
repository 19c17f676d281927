package flight_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

var (
	seeds = flag.Int("seeds", 60, "how many random scenarios TestModel plays")
	first = flag.Uint64("first", 0, "seed of the first scenario")
)

// TestModel plays random scenarios. Clients read the whole blob or a range of it, in any order and by any call; they
// pause, hang up, come back or are closed in the middle; they know the size, or do not, or know a wrong one. There are
// two sources: the first is sound or sends wrong bytes; the second may also be denied, cut, slow, stuck, short, or panic.
// The disk may fail at any call, and the group may be closed.
//
// What must hold: the bytes are those of the blob; a client whose source is sound gets all of them; wrong bytes never
// pass for a whole blob; no byte is written twice; and where nothing failed, no byte is fetched twice except those that
// were in transit at a cut.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(*seeds) {
		synctest.Test(t, func(t *testing.T) {
			s := planScenario(*first + seed)
			s.judge(t, s.play(t))
		})
	}
}

// The second source of a scenario misbehaves in one of these ways. From soundKind on it is sound.
const (
	wrongKind   = iota // it sends a wrong byte
	deniedKind         // it answers no request
	cutKind            // its connection breaks
	stuckKind          // it stalls, and then breaks as for a watchdog
	shortKind          // it ends early, and cleanly
	panicKind          // it panics
	soundKind          // nothing is wrong with it
	scenarioEnd = 9    // a third of the scenarios have a sound second source
)

// scenario is what happens in one run of the model, all of it drawn from its seed.
type scenario struct {
	seed      uint64
	size      int
	chunk     int // most bytes of a read; 0: all
	small     bool
	kind      int
	good, bad *origin
	slow      fault // of the bad source
	store     *store
	group     *flight.Group
	sources   [2]flight.Source
	relays    bool // faster sources take over
	clients   []modelClient
	closed    bool // the group is closed in the middle
	closeAt   time.Duration

	wrong  bool // wrong bytes may arrive
	ranges bool // a client reads a part of the blob
	liars  bool // a client expects a wrong size
}

// modelClient is a reader of a scenario.
type modelClient struct {
	start  time.Duration
	source int
	size   int64 // that it expects; -1: it does not know
	how    int   // 1: ReadAt, 2: Read, else CopyTo
	off, n int64
	leave  int64         // it hangs up after that many bytes; 0: it stays
	closed time.Duration // it is closed after that time; 0: at its end
	gone   time.Duration // its context ends after that time; 0: never
}

// comparer compares what is written to it with what is expected.
type comparer struct {
	want    []byte
	n       int64
	differs bool
}

func (c *comparer) Write(p []byte) (int, error) {
	if n := int(c.n) + len(p); n > len(c.want) || !bytes.Equal(p, c.want[c.n:n]) {
		c.differs = true
	}
	c.n += int64(len(p))
	return len(p), nil
}

// planScenario draws a scenario.
func planScenario(seed uint64) *scenario {
	r := rand.New(rand.NewPCG(seed, 7))
	s := &scenario{seed: seed, small: r.IntN(4) > 0}
	sizes := []int{1, 1000, 64 << 10, 300 << 10, 4 << 20, 4<<20 + 1, 13<<20 + 77}
	s.size = sizes[r.IntN(len(sizes))]
	s.chunk = []int{0, 10 << 10, 64 << 10, 333_333}[r.IntN(4)]
	if s.small {
		s.size, s.chunk = max(1, s.size/16), s.chunk/16
	} else if s.size > 1<<20 && s.chunk == 10<<10 {
		s.chunk = 100 << 10
	}
	s.good = newOrigin(seed, s.size)
	s.good.chunk = s.chunk
	if r.IntN(5) == 0 {
		s.good.size = -1 // no source tells it
	}
	s.planStore(r)
	s.planSources(r)
	opts := s.store.options()
	if r.IntN(2) == 0 {
		opts.ParallelAbove = 1 + r.Int64N(int64(s.size))
	}
	s.group = flight.New(opts)
	if s.small {
		s.group.Small()
	}
	if s.relays = r.IntN(2) == 0; s.relays {
		s.group.Watch(5 * time.Millisecond)
	}
	s.clients = make([]modelClient, 1+r.IntN(12))
	for i := range s.clients {
		s.clients[i] = s.planClient(r)
	}
	if s.closed = r.IntN(10) == 0; s.closed {
		s.closeAt = time.Duration(r.IntN(80)) * time.Millisecond
	}
	return s
}

// planStore draws what fails on the disk.
func (s *scenario) planStore(r *rand.Rand) {
	s.store = &store{positions: r.IntN(2) == 0}
	switch r.IntN(6) {
	case 0:
		s.store.faults = &faults{op: opWrite, k: 1 + r.IntN(20), once: r.IntN(2) == 0}
	case 1:
		ops := []op{opRead, opOwn, opSeek, opShort, opOpen, opCommit}
		s.store.faults = &faults{op: ops[r.IntN(len(ops))], k: 1 + r.IntN(60), once: r.IntN(2) == 0}
	case 2:
		if r.IntN(4) == 0 {
			s.store.noSpool = errDisk
		}
	}
}

// planSources draws what is wrong with the sources.
func (s *scenario) planSources(r *rand.Rand) {
	s.slow = fault{wait: time.Duration(r.IntN(3)) * time.Millisecond}
	s.bad = &origin{content: s.good.content, size: s.good.size, flip: -1, chunk: s.chunk, given: make(map[string]int64)}
	s.kind = r.IntN(scenarioEnd)
	at := r.Int64N(int64(s.size))
	odd := func(_ flight.Want, b flight.Body) flight.Body { return b }
	switch s.kind {
	case wrongKind:
		s.wrong, s.bad.flip = true, at
		if r.IntN(2) == 0 {
			s.good.flip = at // no source is right
		}
	case deniedKind:
		s.slow.deny = errors.New("denied")
	case cutKind:
		s.slow.cutAt = 1 + at
	case stuckKind:
		odd = func(_ flight.Want, b flight.Body) flight.Body { return stuckAfter(b, at) }
	case shortKind:
		odd = func(_ flight.Want, b flight.Body) flight.Body { return endsAfter(b, at) }
		s.wrong = s.good.size < 0 // the short body passes for the whole blob
	case panicKind:
		odd = func(flight.Want, flight.Body) flight.Body { panic("odd") }
	}
	s.sources = [2]flight.Source{
		s.good.source("good", fault{wait: time.Duration(r.IntN(4)) * time.Millisecond}),
		change(s.bad.source("bad", s.slow), odd),
	}
}

// stuckAfter is a body that stalls after at bytes, until a watchdog breaks it.
func stuckAfter(b flight.Body, at int64) flight.Body {
	var n int64
	return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
		if n > at {
			time.Sleep(30 * time.Second)
			return 0, errCut
		}
		m, err := b.Read(p)
		n += int64(m)
		return m, err
	}}
}

// endsAfter is a body that ends cleanly after at bytes.
func endsAfter(b flight.Body, at int64) flight.Body {
	var n int64
	return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
		m, err := b.Read(p[:min(int64(len(p)), at-n)])
		n += int64(m)
		if n == at {
			err = io.EOF
		}
		return m, err
	}}
}

// planClient draws a client.
func (s *scenario) planClient(r *rand.Rand) modelClient {
	size := int64(s.size)
	c := modelClient{start: time.Duration(r.IntN(60)) * time.Millisecond, source: r.IntN(2), size: size, n: size}
	if r.IntN(3) == 0 {
		s.ranges = true
		c.off = r.Int64N(size)
		c.n = 1 + r.Int64N(size-c.off)
	}
	if r.IntN(4) == 0 {
		c.leave = 1 + r.Int64N(c.n)
	}
	if r.IntN(10) == 0 {
		c.start += time.Duration(r.IntN(3)) * time.Hour
	}
	c.how = max(0, r.IntN(6)-3)
	switch r.IntN(12) {
	case 0:
		c.closed = time.Duration(1+r.IntN(40)) * time.Millisecond
	case 1:
		c.gone = time.Duration(1+r.IntN(40)) * time.Millisecond
	case 2, 3:
		c.size = -1
	case 4:
		if c.source == 1 && s.kind >= soundKind {
			c.size, s.liars = 1+r.Int64N(2*size), true
		}
	}
	return c
}

// result is how a client's read ended.
type result struct {
	client   int
	joinErr  error
	size     int64 // of the object
	err      error
	got      comparer
	panicked any
}

// play runs a scenario to its end.
func (s *scenario) play(t *testing.T) []result {
	if s.closed {
		time.AfterFunc(s.closeAt, s.group.Close)
	}
	ended := make(chan result, len(s.clients))
	for i, c := range s.clients {
		go func() {
			res := result{client: i}
			defer func() {
				res.panicked = recover() // a source may panic in the reader's own goroutine
				ended <- res
			}()
			s.read(t.Context(), c, &res)
		}()
	}
	var results []result
	for range s.clients {
		results = append(results, <-ended)
	}
	s.group.Close()
	return results
}

// read is what a client does.
func (s *scenario) read(ctx context.Context, c modelClient, res *result) {
	time.Sleep(c.start)
	if c.gone > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.gone)
		defer cancel()
	}
	obj, _, err := s.group.Join(ctx, s.good.digest(), c.size, s.sources[c.source])
	if err != nil {
		res.joinErr = err
		return
	}
	defer obj.Close()
	if res.size = obj.Size(); res.size != int64(s.size) {
		return
	}
	if c.closed > 0 {
		time.AfterFunc(c.closed, func() { _ = obj.Close() })
	}
	res.got.want = s.good.content[c.off : c.off+c.n]
	w := io.Writer(&res.got)
	if c.leave > 0 {
		w = io.MultiWriter(&res.got, &leaver{left: c.leave})
	}
	rd, flying := obj.(*flight.Reader)
	switch {
	case !flying || c.how == 1:
		_, res.err = io.CopyBuffer(writerOnly{w}, io.NewSectionReader(obj, c.off, c.n), make([]byte, 50_000))
	case c.how == 2:
		if _, res.err = rd.Seek(c.off, io.SeekStart); res.err == nil {
			_, res.err = io.CopyBuffer(writerOnly{w}, io.LimitReader(rd, c.n), make([]byte, 50_000))
		}
	default:
		if res.err = rd.Ready(ctx, c.off, c.n); res.err == nil {
			_, res.err = rd.CopyTo(ctx, w, c.off, c.n)
		}
	}
}

// mayFail reports whether a client may end without its bytes: it leaves, the group is closed, its own source is bad, or
// it does not know the size and so takes that of a client that expects a wrong one.
func (s *scenario) mayFail(c modelClient) bool {
	leaves := c.leave > 0 || c.gone > 0 || c.closed > 0
	badSource := c.source == 1 && s.kind < soundKind
	misled := c.size != int64(s.size) && s.liars
	return s.closed || leaves || badSource || misled
}

// fault is what a client's result does not keep of the promises; empty: nothing.
func (s *scenario) fault(res result) string {
	c := s.clients[res.client]
	whole := c.n == int64(s.size) && c.how != 1
	switch {
	case res.panicked != nil && (res.panicked != "odd" || c.source == 0):
		return fmt.Sprintf("panic: %v", res.panicked)
	case res.panicked != nil:
		return ""
	case res.joinErr != nil && !s.mayFail(c) && !s.wrong:
		return fmt.Sprintf("join: %v", res.joinErr)
	case res.joinErr != nil:
		return ""
	case res.size != int64(s.size) && !s.liars && !s.wrong:
		return fmt.Sprintf("size %d", res.size)
	case res.size != int64(s.size):
		return ""
	case !s.wrong && res.got.differs:
		return "wrong bytes"
	case res.err == nil && res.got.differs && whole:
		return "wrong bytes ended cleanly"
	case res.err == nil && res.got.n != c.n:
		return fmt.Sprintf("clean end after %d of %d", res.got.n, c.n)
	case res.err != nil && !s.wrong && !s.mayFail(c):
		return fmt.Sprintf("its source is sound, and it ended with: %v", res.err)
	}
	return ""
}

// judge holds what happened against the promises.
func (s *scenario) judge(t *testing.T, results []result) {
	for _, res := range results {
		if msg := s.fault(res); msg != "" {
			t.Errorf("%v: client %d (%+v): %s", s, res.client, s.clients[res.client], msg)
		}
	}
	ok := !t.Failed()
	s.store.check(t)
	if ok && t.Failed() {
		t.Logf("%v: %+v", s, s.clients)
	}
	if n := s.good.open + s.bad.open; n != 0 && s.kind != panicKind {
		t.Errorf("%v: %d bodies left open", s, n)
	}
	s.judgeBytes(t)
}

// judgeBytes holds the bytes that were fetched against the size of the blob, where nothing failed.
func (s *scenario) judgeBytes(t *testing.T) {
	calm := s.kind >= soundKind && s.store.faults == nil && s.store.noSpool == nil && !s.liars
	for _, c := range s.clients {
		calm = calm && c.start < time.Hour
	}
	if !calm {
		return
	}
	// A cut may lose what one read has brought: each range that is fetched ahead cuts the fill, and so does each trial of
	// another source.
	cuts := int64(0)
	tries := int64(len(s.good.fetches) + len(s.bad.fetches))
	switch {
	case s.ranges:
		cuts = int64(len(s.clients))
	case s.relays:
		cuts = max(0, tries-1)
	}
	fetched := s.good.total() + s.bad.total()
	if most := int64(s.size) + cuts*max(int64(s.chunk), 256<<10); fetched > most {
		t.Errorf("%v: %d bytes fetched of %d, in %d requests; want at most %d", s, fetched, s.size, tries, most)
	}
}

func (s *scenario) String() string {
	return fmt.Sprintf("seed %d (size %d, chunk %d, small %t, kind %d, %+v, disk %v, closed %t)",
		s.seed, s.size, s.chunk, s.small, s.kind, s.slow, s.store.faults, s.closed)
}
