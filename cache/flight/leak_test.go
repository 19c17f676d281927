package flight_test

import (
	"testing"
	"testing/synctest"

	"github.com/registrymirror/mirror/cache/flight"
)

// A flight that is over leaves nothing behind in its group, whichever way it went.
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
