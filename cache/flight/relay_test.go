package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// watched is a group that looks for a faster source as often as in production.
func watched(st *store) *flight.Group {
	g := flight.New(st.options())
	g.Watch(time.Second)
	return g
}

// pullWhole reads all of a blob from a group, and returns how long that took.
func pullWhole(t *testing.T, g *flight.Group, o *origin, s flight.Source) time.Duration {
	t.Helper()
	start := time.Now()
	obj, _ := join(t, g, o, s)
	defer obj.Close()
	b, err := copyAll(t.Context(), obj, 0, int64(len(o.content)))
	if err != nil || !bytes.Equal(b, o.content) {
		t.Errorf("%s: %d bytes, %v", s.Key, len(b), err)
	}
	return time.Since(start)
}

// A slow registry that is asked first does not slow the readers of a fast one; nor does a registry that stops sending, does
// not answer at all, or is fast until it has won.
func TestFasterSourceTakesOver(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100 << 10, 1 << 20, 10 << 20, 16 << 20} {
		for name, slow := range map[string]fault{
			"slow":        {wait: time.Second}, // 20 KB at a time
			"still":       {wait: time.Hour},
			"no answer":   {late: time.Hour},
			"rather slow": {wait: 100 * time.Millisecond},
		} {
			t.Run(fmt.Sprintf("%d, %s", size, name), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					o := newOrigin(50, size)
					o.chunk = 20 << 10
					st := &store{}
					g := watched(st)
					var wg sync.WaitGroup
					wg.Go(func() { pullWhole(t, g, o, o.source("slow.example/a", slow)) })
					time.Sleep(time.Millisecond)
					wg.Go(func() {
						// 20 MB/s: the largest takes 0.8 s by itself.
						if took := pullWhole(t, g, o, o.source("fast.example/b", fault{wait: time.Millisecond})); took > 10*time.Second {
							t.Errorf("it took %v", took)
						}
					})
					wg.Wait()
					g.Close()
					st.check(t)
					// A cut costs one read at most.
					if n := o.total(); n > int64(size)+2*int64(o.chunk) {
						t.Errorf("%d bytes fetched of %d", n, size)
					}
				})
			})
		}
	}
}

// Readers that share a source share the bytes of one request to it, however slow it is.
func TestSameSourceIsAskedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		o := newOrigin(51, size)
		o.chunk = 20 << 10
		st := &store{}
		g := watched(st)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { pullWhole(t, g, o, o.source("slow.example/a", fault{wait: time.Second})) })
		}
		wg.Wait()
		g.Close()
		st.check(t)
		if o.count() != 1 || o.total() != size {
			t.Errorf("%d requests, %d bytes of %d", o.count(), o.total(), size)
		}
	})
}

// A fast source is left alone. A trial of one that is not faster costs two requests at most, and no byte comes twice.
func TestTrialThatIsLost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		first, second fault
		most          int
	}{
		"fast enough": {fault{wait: time.Millisecond}, fault{}, 1},
		"no better":   {fault{wait: 100 * time.Millisecond}, fault{wait: 100 * time.Millisecond}, 9},
		"worse":       {fault{wait: 100 * time.Millisecond}, fault{wait: time.Second}, 9},
		"denied":      {fault{wait: 100 * time.Millisecond}, fault{deny: errors.New("denied")}, 9},
		"silent":      {fault{wait: 100 * time.Millisecond}, fault{late: time.Hour}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const size = 10 << 20
				o := newOrigin(52, size)
				o.chunk = 20 << 10
				alone := time.Duration(size/o.chunk+1) * tt.first.wait
				st := &store{}
				g := watched(st)
				var wg sync.WaitGroup
				wg.Go(func() { pullWhole(t, g, o, o.source("a", tt.first)) })
				time.Sleep(time.Microsecond)
				wg.Go(func() {
					if took := pullWhole(t, g, o, o.source("b", tt.second)); took > alone+alone/10 {
						t.Errorf("it took %v, %v without the second source", took, alone)
					}
				})
				wg.Wait()
				g.Close()
				st.check(t)
				if o.count() > tt.most {
					t.Errorf("%d requests, want %d at most", o.count(), tt.most)
				}
				if n := o.total(); n > size+int64(o.count())*int64(o.chunk) {
					t.Errorf("%d bytes fetched of %d", n, size)
				}
			})
		})
	}
}

// A source that is fast only while it is tried does little harm.
func TestSourceThatTurnsSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 10 << 20
		o := newOrigin(53, size)
		o.chunk = 20 << 10
		st := &store{}
		g := watched(st)
		hostile := change(o.source("b", fault{}), func(w flight.Want, b flight.Body) flight.Body {
			return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
				if !w.Part {
					time.Sleep(30 * time.Second)
				}
				return b.Read(p)
			}}
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			// 200 KB/s: alone in 52 s.
			if took := pullWhole(t, g, o, o.source("a", fault{wait: 100 * time.Millisecond})); took > 100*time.Second {
				t.Errorf("it took %v", took)
			}
		})
		time.Sleep(time.Millisecond)
		wg.Go(func() { pullWhole(t, g, o, hostile) })
		wg.Wait()
		g.Close()
		st.check(t)
	})
}

// Trials of many sources that are not faster than the first one delay the trial of a faster one, but don't prevent it.
func TestManySlowSourcesAndAFastOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 10 << 20
		o := newOrigin(54, size)
		o.chunk = 20 << 10
		st := &store{}
		g := watched(st)
		var wg sync.WaitGroup
		for i := range 50 {
			s := o.source(fmt.Sprint("slow", i), fault{wait: time.Second})
			s.Client = "attacker"
			wg.Go(func() { pullWhole(t, g, o, s) })
		}
		time.Sleep(5 * time.Second)
		fast := o.source("fast", fault{wait: time.Millisecond})
		fast.Client = "victim"
		wg.Go(func() {
			if took := pullWhole(t, g, o, fast); took > time.Minute {
				t.Errorf("it took %v", took)
			}
		})
		wg.Wait()
		g.Close()
		st.check(t)
	})
}

// A slow source is replaced even when the reader that brought it has left.
func TestSlowSourceWhoseReaderHasLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(57, 10<<20)
		o.chunk = 20 << 10
		st := &store{}
		g := watched(st)
		obj, _ := join(t, g, o, o.source("slow", fault{wait: time.Second}))
		if _, err := obj.Read(make([]byte, 100)); err != nil {
			t.Error(err)
		}
		_ = obj.Close()
		if took := pullWhole(t, g, o, o.source("fast", fault{wait: time.Millisecond})); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		g.Close()
		st.check(t)
	})
}

// A source that does not answer is replaced by another one, also where the size of the blob is not known.
func TestNoAnswerAndNoSize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		o := newOrigin(56, size)
		st := &store{}
		g := watched(st)
		var wg sync.WaitGroup
		for i, f := range []fault{{late: time.Hour}, {}} {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				start := time.Now()
				obj, _, err := g.Join(t.Context(), o.digest(), -1, o.source(fmt.Sprint(i), f))
				if err != nil {
					t.Error(err)
					return
				}
				defer obj.Close()
				if b, err := copyAll(t.Context(), obj, 0, size); err != nil || !bytes.Equal(b, o.content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
		wg.Wait()
		g.Close()
		st.check(t)
		if n := o.total(); n != size {
			t.Errorf("%d bytes fetched of %d", n, size)
		}
	})
}

// A source that has taken over may fail: its own readers get the error, the others continue.
func TestWinnerFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 10 << 20
		o := newOrigin(55, size)
		o.chunk = 20 << 10
		st := &store{}
		g := watched(st)
		winner := o.source("b", fault{wait: time.Millisecond})
		fetch := winner.Fetch
		winner.Fetch = func(ctx context.Context, w flight.Want) (flight.Body, error) {
			if !w.Part {
				return nil, errCut
			}
			return fetch(ctx, w)
		}
		var wg sync.WaitGroup
		wg.Go(func() { pullWhole(t, g, o, o.source("a", fault{wait: 50 * time.Millisecond})) })
		time.Sleep(time.Millisecond)
		wg.Go(func() {
			obj, _ := join(t, g, o, winner)
			defer obj.Close()
			if _, err := copyAll(t.Context(), obj, 0, size); !errors.Is(err, errCut) {
				t.Errorf("%v, want its source's", err)
			}
		})
		wg.Wait()
		g.Close()
		st.check(t)
	})
}
