package flight_test

import (
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// A flight leaves nothing behind in its group, no matter how it ended.
func TestFlightIsForgotten(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		store *store
		flip  int64
		fault fault
	}{
		{name: "committed", flip: -1, store: &store{}},
		{name: "wrong", flip: 5, store: &store{}},
		{name: "no spool", flip: -1, store: &store{noSpool: errDisk}},
		{name: "disk full", flip: -1, store: &store{failAt: 2}},
		{name: "denied", flip: -1, store: &store{}, fault: fault{deny: errCut}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const size = 5 << 20
				o := newOrigin(40, size)
				o.flip, o.chunk = tt.flip, 100<<10
				g := flight.New(tt.store.options())
				defer g.Close()
				obj, _ := join(t, g, o, o.source("a", tt.fault))
				_, _ = copyAll(t.Context(), obj, 0, size)
				_ = obj.Close()
				synctest.Wait()
				if tt.fault.deny != nil {
					g.Close()
				}
				select {
				case <-obj.(*flight.Reader).Over():
				default:
					t.Error("its context lives on")
				}
			})
		})
	}
	t.Run("uncached", func(t *testing.T) {
		t.Parallel()
		o := newOrigin(41, 1000)
		g := flight.New(flight.Options{})
		defer g.Close()
		r, err := g.Direct(t.Context(), o.digest(), 1000, o.source("a", fault{}))
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		select {
		case <-r.Over():
		default:
			t.Error("its context lives on")
		}
	})
}

// A flight that is parked, or waits for a slow source, holds no buffer: there may be thousands of them. The test is not
// parallel, since it measures the heap.
func TestParkedFlightsHoldNoBuffers(t *testing.T) {
	const flights = 300
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // frees the buffers in the pool
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	synctest.Test(t, func(t *testing.T) {
		st := &store{}
		g := flight.New(st.options())
		defer g.Close()
		before := heap()
		for i := range flights {
			o := newOrigin(uint64(i), 5000)
			obj, _ := join(t, g, o, o.source("a", fault{cutAt: 1000}))
			if _, err := copyAll(t.Context(), obj, 0, 5000); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			_ = obj.Close()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(g.Flights()); n != flights {
			t.Fatalf("%d flights are parked, want %d", n, flights)
		}
		if each := (heap() - before) / flights; each > 40<<10 {
			t.Errorf("a parked flight holds %d bytes", each)
		}
	})
}
