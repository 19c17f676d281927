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
	seeds = flag.Int("seeds", 60, "how many random crowds TestModel drives")
	first = flag.Uint64("first", 0, "seed of the first one")
)

// TestModel drives a flight with a random crowd: readers of the whole and of ranges, in any order and by any call, who
// leave early, pause, come back, hang up or are closed in the middle, who know the size, don't, or know a wrong one;
// whose sources are of two kinds, of which one may be denied, cut, slow, stuck, short, wrong or panic; on a disk that
// may fail at any call, in a mirror that may stop. The reference is small: the bytes are the blob's; a reader whose
// source is sound gets all of them; nobody takes wrong ones for a whole blob; no byte is written twice; and where
// nothing failed, none is fetched twice but what was in transit at a cut.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(*seeds) {
		synctest.Test(t, func(t *testing.T) { model(t, *first+seed) })
	}
}

// comparer holds what is written to it against what it should be.
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

func model(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	small := r.IntN(4) > 0
	sizes := []int{1, 1000, 64 << 10, 300 << 10, 4 << 20, 4<<20 + 1, 13<<20 + 77}
	size := sizes[r.IntN(len(sizes))]
	chunk := []int{0, 10 << 10, 64 << 10, 333_333}[r.IntN(4)]
	if small {
		size, chunk = max(1, size/16), chunk/16
	} else if size > 1<<20 && chunk == 10<<10 {
		chunk = 100 << 10
	}
	o := newOrigin(seed, size)
	o.chunk = chunk
	if r.IntN(5) == 0 {
		o.size = -1 // no source tells it
	}
	st := &store{positions: r.IntN(2) == 0}
	switch r.IntN(6) {
	case 0:
		st.faults = &faults{op: opWrite, k: 1 + r.IntN(20), once: r.IntN(2) == 0}
	case 1:
		ops := []op{opRead, opOwn, opSeek, opShort, opOpen, opCommit}
		st.faults = &faults{op: ops[r.IntN(len(ops))], k: 1 + r.IntN(60), once: r.IntN(2) == 0}
	case 2:
		if r.IntN(4) == 0 {
			st.noSpool = errDisk
		}
	}
	bad := fault{wait: time.Duration(r.IntN(3)) * time.Millisecond}
	badOrigin := &origin{content: o.content, size: o.size, flip: -1, chunk: chunk, given: make(map[string]int64)}
	odd := func(_ flight.Want, b flight.Body) flight.Body { return b }
	kind := r.IntN(9)
	wrong := kind == 0
	at := r.Int64N(int64(size))
	switch kind {
	case 0:
		badOrigin.flip = at
		if r.IntN(2) == 0 {
			o.flip = at // no source is right
		}
	case 1:
		bad.deny = errors.New("denied")
	case 2:
		bad.cutAt = 1 + at
	case 3: // as of a watchdog that gives up
		odd = func(_ flight.Want, b flight.Body) flight.Body {
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
	case 4: // short
		odd = func(_ flight.Want, b flight.Body) flight.Body {
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
		wrong = wrong || o.size < 0 // then it passes for the whole
	case 5:
		odd = func(flight.Want, flight.Body) flight.Body { panic("odd") }
	}
	sources := []flight.Source{
		o.source("good", fault{wait: time.Duration(r.IntN(4)) * time.Millisecond}),
		change(badOrigin.source("bad", bad), odd),
	}
	opts := st.options()
	if r.IntN(2) == 0 {
		opts.ParallelAbove = 1 + r.Int64N(int64(size))
	}
	g := flight.New(opts)
	if small {
		g.Small()
	}
	relays := r.IntN(2) == 0
	if relays {
		g.Watch(5 * time.Millisecond)
	}

	type client struct {
		start  time.Duration
		src    int
		size   int64 // as it knows it
		how    int   // it reads
		off, n int64
		leave  int64         // hangs up after so many bytes; 0: stays
		closed time.Duration // is closed after that long; 0: not
		gone   time.Duration // its context ends after that long; 0: not
	}
	crowd := make([]client, 1+r.IntN(12))
	ranges, liars := false, false
	for i := range crowd {
		c := client{start: time.Duration(r.IntN(60)) * time.Millisecond, src: r.IntN(2), size: int64(size), n: int64(size)}
		if r.IntN(3) == 0 {
			ranges = true
			c.off = r.Int64N(int64(size))
			c.n = 1 + r.Int64N(int64(size)-c.off)
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
			if c.src == 1 && kind >= 6 {
				c.size, liars = 1+r.Int64N(2*int64(size)), true
			}
		}
		crowd[i] = c
	}
	stopped := r.IntN(10) == 0
	if stopped {
		time.AfterFunc(time.Duration(r.IntN(80))*time.Millisecond, g.Close)
	}
	results := make(chan string, len(crowd))
	for i, c := range crowd {
		go func() {
			results <- func() (msg string) {
				time.Sleep(c.start)
				ctx := t.Context()
				if c.gone > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.gone)
					defer cancel()
				}
				frail := stopped || c.leave > 0 || c.gone > 0 || c.closed > 0 || c.src == 1 || c.size != int64(size) && liars
				defer func() { // a source that is asked on the caller's goroutine
					if p := recover(); p != nil && (p != "odd" || c.src == 0) {
						msg = fmt.Sprintf("client %d: panic: %v", i, p)
					}
				}()
				obj, _, err := g.Join(ctx, o.digest(), c.size, sources[c.src])
				if err != nil {
					if frail || wrong {
						return ""
					}
					return fmt.Sprintf("client %d: join: %v", i, err)
				}
				defer obj.Close()
				if obj.Size() != int64(size) {
					if liars || wrong {
						return ""
					}
					return fmt.Sprintf("client %d: size %d", i, obj.Size())
				}
				if c.closed > 0 {
					time.AfterFunc(c.closed, func() { _ = obj.Close() })
				}
				got := &comparer{want: o.content[c.off : c.off+c.n]}
				w := io.Writer(got)
				if c.leave > 0 {
					w = io.MultiWriter(got, &leaver{left: c.leave})
				}
				rd, flying := obj.(*flight.Reader)
				switch {
				case !flying || c.how == 1:
					_, err = io.CopyBuffer(writerOnly{w}, io.NewSectionReader(obj, c.off, c.n), make([]byte, 50_000))
				case c.how == 2:
					if _, err = rd.Seek(c.off, io.SeekStart); err == nil {
						_, err = io.CopyBuffer(writerOnly{w}, io.LimitReader(rd, c.n), make([]byte, 50_000))
					}
				default:
					if err = rd.Ready(ctx, c.off, c.n); err == nil {
						_, err = rd.CopyTo(ctx, w, c.off, c.n)
					}
				}
				whole := c.n == int64(size) && c.how != 1
				switch {
				case !wrong && got.differs:
					return fmt.Sprintf("client %d: wrong bytes", i)
				case err == nil && got.differs && whole:
					return fmt.Sprintf("client %d: wrong bytes ended cleanly", i)
				case err == nil && got.n != c.n:
					return fmt.Sprintf("client %d: clean end after %d of %d", i, got.n, c.n)
				case err != nil && !wrong && !frail:
					return fmt.Sprintf("client %d (%+v): sound source, and yet: %v", i, c, err)
				}
				return ""
			}()
		}()
	}
	for range crowd {
		if msg := <-results; msg != "" {
			t.Errorf("seed %d (size %d, chunk %d, small %t, kind %d, %+v, disk %v): %s", seed, size, chunk, small, kind, bad,
				st.faults, msg)
		}
	}
	g.Close()
	ok := !t.Failed()
	st.check(t)
	if ok && t.Failed() {
		t.Logf("seed %d (size %d, kind %d, disk %v, stopped %t): %+v", seed, size, kind, st.faults, stopped, crowd)
	}
	if o.open+badOrigin.open != 0 && kind != 5 {
		t.Errorf("seed %d: %d bodies left open", seed, o.open+badOrigin.open)
	}
	late := false
	for _, c := range crowd {
		late = late || c.start >= time.Hour
	}
	total := o.total() + badOrigin.total()
	calm := kind >= 6 && st.faults == nil && st.noSpool == nil && !late && !liars
	// What another source is tried with may cut short what has just been read, each time.
	if tries := int64(len(o.fetches) + len(badOrigin.fetches)); calm && relays && !ranges &&
		total > int64(size)+(tries-1)*max(int64(o.chunk), 256<<10) {
		t.Errorf("seed %d: %d bytes fetched of a blob of %d, in %d requests", seed, total, size, tries)
	}
	if calm && !relays && !ranges && total > int64(size) {
		t.Errorf("seed %d: %d bytes fetched of a blob of %d", seed, total, size)
	}
	if calm && ranges {
		// Each cut may lose what one read had brought.
		if most := int64(size) + int64(len(crowd))*max(int64(o.chunk), 256<<10); total > most {
			t.Errorf("seed %d: %d bytes fetched of a blob of %d", seed, total, size)
		}
	}
}
