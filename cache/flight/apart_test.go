package flight_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// lying is the blob of o as a registry sends it whose bytes are wrong from the beginning.
func lying(o *origin) *origin {
	return &origin{content: o.content, size: o.size, chunk: o.chunk, flip: 1, given: make(map[string]int64)}
}

// A parked download is continued by the Key that brought it, and by no other Key.
func TestParkedOfAnotherSourceIsNotBuiltOn(t *testing.T) {
	t.Parallel()
	const size, taken = 24 << 20, 3 << 20
	for _, back := range []string{"evil", "good"} {
		t.Run(back, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(60, size)
				o.chunk = 64 << 10
				st := &store{}
				opts := st.options()
				opts.GoOn = 1 // the fill does not continue without a reader
				g := flight.New(opts)
				first := o
				if back != "evil" {
					first = lying(o)
				}
				obj, _ := join(t, g, o, first.source("evil", fault{wait: 200 * time.Millisecond}))
				if _, err := obj.(*flight.Reader).CopyTo(t.Context(), &leaver{left: taken}, 0, size); !errors.Is(err, errGone) {
					t.Error(err)
				}
				_ = obj.Close()
				time.Sleep(time.Minute)
				if fs := g.Flights(); len(fs) != 1 || !fs[0].Parked {
					t.Fatalf("not parked: %+v", fs)
				}
				before := o.total()
				pullWhole(t, g, o, o.source(back, fault{}))
				if n := o.total() - before; back == "good" && n != size || back == "evil" && before+n != size {
					t.Errorf("%d bytes came, after %d", n, before)
				}
				g.Close()
				st.check(t)
			})
		})
	}
}

// Where the bytes of one source spoilt those of another, neither is blamed, and they are not mixed again for a while.
func TestMixedSourcesAreBlamedForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 24 << 20
		o := newOrigin(61, size)
		o.chunk = 64 << 10
		bad := lying(o)
		bad.flip = size - 1
		st := &store{}
		g := watched(st)
		var mu sync.Mutex
		told := 0
		tells := func(s flight.Source) flight.Source {
			s.Wrong = func(error) { mu.Lock(); told++; mu.Unlock() }
			return s
		}
		good := tells(o.source("good", fault{wait: 50 * time.Millisecond}))
		evil := tells(bad.source("evil", fault{wait: 5 * time.Millisecond}))
		try := func(s flight.Source) error {
			obj, _ := join(t, g, o, s)
			defer obj.Close()
			b, err := copyAll(t.Context(), obj, 0, size)
			if err == nil && !bytes.Equal(b, o.content) {
				t.Error("wrong bytes")
			}
			return err
		}
		both := func(after time.Duration) (err error) {
			var wg sync.WaitGroup
			wg.Go(func() { err = try(good) })
			time.Sleep(after)
			wg.Go(func() { _ = try(evil) })
			wg.Wait()
			return err
		}
		err := both(time.Millisecond)
		e, ok := errors.AsType[*flight.MismatchError](err)
		if !ok {
			t.Fatalf("the sources were not mixed: %v", err)
		}
		if e.FaultOf("good") || told != 0 {
			t.Errorf("good is blamed: %v, told %d", e, told)
		}
		// Now each Key has a download of its own, in any order.
		if err := both(time.Millisecond); err != nil {
			t.Errorf("spoilt again: %v", err)
		}
		if told != 1 {
			t.Errorf("told %d, want evil alone", told)
		}
		g.Close()
		st.check(t)
	})
}

// A reader of another source than the one that lied is cut off once, and its source is not blamed.
func TestReaderOfALiarsDownload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 2 << 20
		o := newOrigin(62, size)
		o.chunk = 64 << 10
		st := &store{}
		g := watched(st)
		evil := lying(o).source("evil", fault{wait: 10 * time.Millisecond})
		for i := range 2 {
			obj, _ := join(t, g, o, evil)
			other, joined := join(t, g, o, o.source("good", fault{}))
			var read sync.WaitGroup
			read.Go(func() { _, _ = copyAll(t.Context(), obj, 0, size) })
			synctest.Wait() // its source is the one that is asked
			_, err := copyAll(t.Context(), other, 0, size)
			e, wrong := errors.AsType[*flight.MismatchError](err)
			if i == 0 && (!wrong || !joined || e.FaultOf("good") || !e.FaultOf("evil")) {
				t.Errorf("joined %t: %v", joined, err)
			}
			if i == 1 && (err != nil || joined) {
				t.Errorf("again: joined %t: %v", joined, err)
			}
			_, _ = obj.Close(), other.Close()
			read.Wait() // a read that goes on keeps the spool
		}
		g.Close()
		st.check(t)
	})
}

// The memory of spoilt digests is bounded, and expires.
func TestSpoiltAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := flight.New((&store{}).options())
		defer g.Close()
		for i := range 3000 {
			g.Spoil(newOrigin(uint64(i), 16).digest())
		}
		if n := g.Spoilt(); n > 1000 {
			t.Errorf("%d are remembered", n)
		}
		if !g.IsSpoilt(newOrigin(2999, 16).digest()) {
			t.Error("the last one is not among them")
		}
		time.Sleep(time.Hour)
		if g.IsSpoilt(newOrigin(2999, 16).digest()) {
			t.Error("it is spoilt for good")
		}
	})
}
