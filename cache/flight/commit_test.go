package flight_test

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// While a complete blob is being committed, it is not downloaded again, even when its space is wanted.
func TestSlowCommit(t *testing.T) {
	t.Parallel()
	const size = 100 << 10
	for _, commitErr := range []error{nil, errDisk} {
		synctest.Test(t, func(t *testing.T) {
			o := newOrigin(70, size)
			st := &store{commit: func() error { time.Sleep(3 * time.Hour); return commitErr }}
			g := flight.New(st.options())
			defer g.Close()
			pull := func() bool {
				obj, joined := join(t, g, o, o.source("a", fault{}))
				defer obj.Close()
				if b, err := copyAll(t.Context(), obj, 0, size); err != nil || !bytes.Equal(b, o.content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				return joined
			}
			pull()
			for _, wait := range []time.Duration{0, time.Minute, 2 * time.Hour} {
				time.Sleep(wait)
				g.DropParked()
				if !pull() {
					t.Errorf("after %v: did not join the flight", wait)
				}
			}
			time.Sleep(3 * time.Hour)
			if g.Flying(o.digest()) {
				t.Error("still flying after the commit")
			}
			if n := o.total(); n != size {
				t.Errorf("%d bytes fetched, want each of %d once", n, size)
			}
			_, kept := st.committed[o.digest()]
			if kept != (commitErr == nil) {
				t.Errorf("kept: %t, commit: %v", kept, commitErr)
			}
			g.Close()
			st.check(t)
		})
	}
}

// A store that is slow to find content does not delay reads of other content, and a commit meanwhile is not missed.
func TestSlowOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 100 << 10
		slow, other := newOrigin(71, size), newOrigin(72, size)
		var asked atomic.Int32
		answer := make(chan struct{})
		st := &store{}
		opts := st.options()
		open := opts.Open
		opts.Open = func(d oci.Digest) (flight.Object, error) {
			obj, err := open(d)
			if d == slow.digest() && asked.Add(1) == 1 {
				<-answer
			}
			return obj, err
		}
		g := flight.New(opts)
		defer g.Close()
		pull := func(o *origin) error {
			obj, _, err := g.Join(t.Context(), o.digest(), size, o.source("a", fault{}))
			if err != nil {
				return err
			}
			defer obj.Close()
			b, err := copyAll(t.Context(), obj, 0, size)
			if err == nil && !bytes.Equal(b, o.content) {
				err = errors.New("wrong bytes")
			}
			return err
		}
		late := make(chan error, 1)
		go func() { late <- pull(slow) }()
		synctest.Wait()
		for _, o := range []*origin{other, slow} { // the second time, the store answers at once
			if err := pull(o); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		close(answer)
		if err := <-late; err != nil {
			t.Error(err)
		}
		for _, o := range []*origin{other, slow} {
			if n := o.total(); n != size {
				t.Errorf("%d bytes fetched, want each of %d once", n, size)
			}
		}
		g.Close()
		st.check(t)
	})
}
