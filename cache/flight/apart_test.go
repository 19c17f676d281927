package flight_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// lying is o as a registry has it whose bytes are wrong from the beginning.
func lying(o *origin) *origin {
	return &origin{content: o.content, size: o.size, chunk: o.chunk, flip: 1, given: make(map[string]int64)}
}

// What is parked is gone on with by the Key that brought it, and by no other one.
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
				opts.GoOn = 1 // it is not brought to its end without a reader
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
