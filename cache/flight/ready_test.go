package flight_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// A small blob is verified before its headers are sent: its missing bytes are fetched for that, although the byte that the
// client asks for is there.
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

// The agreement of a fetch that was stopped does not count: the reader's own source is asked before the headers.
func TestReadyAsksWhenAFetchIsStopped(t *testing.T) {
	t.Parallel()
	const size = 600_000
	for _, broken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			o := newOrigin(31, size)
			o.chunk = 10_000
			st := &store{}
			if broken {
				st.failAt = 2
			}
			opts := st.options()
			opts.GoOn = 1
			g := flight.New(opts)
			g.Small()
			defer g.Close()
			stuck := make(chan struct{}) // and does not notice that its context has ended
			deaf := change(o.source("deaf", fault{}), func(_ flight.Want, b flight.Body) flight.Body {
				n := 0
				return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
					if n++; n == 2 {
						<-stuck
					}
					return b.Read(p)
				}}
			})
			obj, _ := join(t, g, o, deaf)
			if err := obj.(*flight.Reader).Ready(t.Context(), 0, size); err != nil {
				t.Fatal(err)
			}
			denied, _ := join(t, g, o, o.source("denied", fault{deny: errGone}))
			if broken { // by another fetch
				far, _ := join(t, g, o, o.source("far", fault{}))
				if b, err := copyAll(t.Context(), far, 400_000, 1000); err != nil || len(b) != 1000 {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				_ = far.Close()
			} else {
				_ = denied.Close()
				_ = obj.Close()
				time.Sleep(time.Minute)
				denied, _ = join(t, g, o, o.source("denied", fault{deny: errGone}))
			}
			time.AfterFunc(time.Minute, func() { close(stuck) })
			if err := denied.(*flight.Reader).Ready(t.Context(), 100_000, 1000); !errors.Is(err, errGone) {
				t.Errorf("broken %t: ready: %v, want the denial", broken, err)
			}
			_ = denied.Close()
			_ = obj.Close()
			time.Sleep(2 * time.Minute)
			g.Close()
			st.check(t)
		})
	}
}

// A source has agreed, has sent some bytes and stalls: the headers of a small blob do not wait for it, although all of
// these bytes are held back.
func TestReadyOfASmallBlobThatStalls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ size, off, n int64 }{{1000, 0, 1000}, {1000, 100, 10}, {64<<10 + 1, 40_000, 100}} {
		synctest.Test(t, func(t *testing.T) {
			o := newOrigin(32, int(c.size))
			o.chunk = int(c.size / 2)
			st := &store{}
			g := flight.New(st.options())
			defer g.Close()
			stalls := change(o.source("a", fault{}), func(_ flight.Want, b flight.Body) flight.Body {
				n := 0
				return &changed{Body: b, read: func(b flight.Body, p []byte) (int, error) {
					if n++; n == 2 {
						time.Sleep(35 * time.Second)
					}
					return b.Read(p)
				}}
			})
			obj, _ := join(t, g, o, stalls)
			start := time.Now()
			if err := obj.(*flight.Reader).Ready(t.Context(), c.off, c.n); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%d bytes at %d of %d: ready after %v", c.n, c.off, c.size, took)
			}
			if b, err := copyAll(t.Context(), obj, c.off, c.n); err != nil || int64(len(b)) != c.n {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			_ = obj.Close()
			g.Close()
			st.check(t)
		})
	}
}
