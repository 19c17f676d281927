package flight_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// A small blob is verified before its headers go out: what is missing of it is brought for that, though the byte that
// is asked for is there.
func TestReadyBringsTheRestOfASmallBlob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 2 << 20
		o := newOrigin(30, size)
		o.chunk = 64 << 10
		st := &store{}
		opts := st.options()
		opts.GoOn = 1
		g := flight.New(opts)
		defer g.Close()
		obj, _ := join(t, g, o, o.source("a", fault{wait: 2 * time.Second}))
		if _, err := obj.(*flight.Reader).CopyTo(t.Context(), &leaver{left: size / 8}, 0, size); !errors.Is(err, errGone) {
			t.Fatal(err)
		}
		_ = obj.Close()
		time.Sleep(time.Minute) // parked
		obj, joined := join(t, g, o, o.source("a", fault{}))
		if !joined {
			t.Error("did not join what was parked")
		}
		start := time.Now()
		if err := obj.(*flight.Reader).Ready(t.Context(), 100, 10); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("ready after %v, though the source answers at once", took)
		}
		if n := o.total(); n != size {
			t.Errorf("%d bytes fetched, want each of %d once", n, size)
		}
		_ = obj.Close()
		g.Close()
		st.check(t)
	})
}
