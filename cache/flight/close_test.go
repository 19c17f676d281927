package flight_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

func TestCloseEndsReaders(t *testing.T) {
	t.Parallel()
	o := newOrigin(14, 5<<20)
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{gate: make(chan struct{})}))
	res := make(chan error, 1)
	go func() {
		_, err := obj.(*flight.Reader).CopyTo(t.Context(), io.Discard, 0, obj.Size())
		res <- err
	}()
	g.Close()
	if err := <-res; !errors.Is(err, flight.ErrClosed) {
		t.Errorf("reader: %v, want ErrClosed", err)
	}
	_ = obj.Close()
	if _, _, err := g.Join(t.Context(), o.digest(), 1, o.source("a", fault{})); !errors.Is(err, flight.ErrClosed) {
		t.Errorf("Join after Close: %v", err)
	}
	st.check(t)
}

// Each call of Close returns once everything has ended, the second one too.
func TestCloseTwiceAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(14, 5<<20)
		st := &store{}
		opts := st.options()
		create, gate := opts.Create, make(chan struct{})
		opts.Create = func(d oci.Digest, size int64) (flight.Spool, error) {
			s, err := create(d, size)
			return &slowlyGone{s, gate}, err
		}
		g := flight.New(opts)
		one := make(chan struct{}, 1)
		one <- struct{}{}
		o.chunk = 1000
		obj, _ := join(t, g, o, o.source("a", fault{gate: one}))
		if _, err := obj.Read(make([]byte, 10)); err != nil { // or the flight would end with its reader
			t.Error(err)
		}
		_ = obj.Close()
		ends := make(chan struct{}, 2)
		for range 2 {
			go func() {
				g.Close()
				ends <- struct{}{}
			}()
			synctest.Wait()
		}
		if n := len(ends); n > 0 {
			t.Errorf("%d of 2 have ended before the spool was gone", n)
		}
		close(gate)
		<-ends
		<-ends
		st.check(t)
	})
}

// slowlyGone is a spool that is slow to be discarded.
type slowlyGone struct {
	flight.Spool
	gate chan struct{}
}

func (s *slowlyGone) Discard() error {
	<-s.gate
	return s.Spool.Discard()
}

// Close may be called at any time: goroutines end, and nothing is left open or used afterwards.
func TestCloseWhileReading(t *testing.T) {
	t.Parallel()
	const size = 300_000
	reads := map[string]func(t *testing.T, r *flight.Reader) error{
		"Ready": func(t *testing.T, r *flight.Reader) error { return r.Ready(t.Context(), 0, size) },
		"CopyTo": func(t *testing.T, r *flight.Reader) error {
			_, err := r.CopyTo(t.Context(), io.Discard, 0, size)
			return err
		},
		"Read":   func(_ *testing.T, r *flight.Reader) error { _, err := io.Copy(writerOnly{io.Discard}, r); return err },
		"ReadAt": func(_ *testing.T, r *flight.Reader) error { _, err := r.ReadAt(make([]byte, size), 0); return err },
	}
	stores := map[string]func() *store{
		"cached":    func() *store { return &store{} },
		"files":     func() *store { return &store{positions: true} },
		"uncached":  func() *store { return &store{noSpool: errDisk} },
		"disk full": func() *store { return &store{failAt: 6} },
		"disk bad":  func() *store { return &store{faults: &faults{op: opRead, k: 12}} },
	}
	for how, read := range reads {
		for where, st := range stores {
			t.Run(how+", "+where, func(t *testing.T) {
				t.Parallel()
				for ms := range 12 {
					synctest.Test(t, func(t *testing.T) {
						o := newOrigin(15, size)
						o.chunk = 30_000
						st := st()
						g := flight.New(st.options())
						g.Small()
						slow := fault{wait: time.Millisecond, late: time.Millisecond}
						obj, _ := join(t, g, o, o.source("a", slow))
						ended := make(chan error, 1)
						go func() { ended <- read(t, obj.(*flight.Reader)) }()
						time.Sleep(time.Duration(ms) * time.Millisecond)
						for range 3 {
							go obj.Close()
						}
						start := time.Now()
						err := <-ended
						if took := time.Since(start); took > 0 {
							t.Errorf("after %d ms: it took %v more", ms, took)
						}
						if err == nil && ms < 10 && how != "Ready" {
							t.Errorf("after %d ms: ended without an error", ms)
						}
						synctest.Wait()
						g.Close()
						st.check(t)
						if o.open != 0 {
							t.Errorf("after %d ms: %d bodies left open", ms, o.open)
						}
					})
				}
			})
		}
	}
}

// A read of a client that hangs up returns at once, no matter what its source does.
func TestContextEndsEveryWait(t *testing.T) {
	t.Parallel()
	const size = 300_000
	for _, tt := range []struct {
		name string
		st   *store
		f    fault
	}{
		{"no answer", &store{}, fault{late: time.Hour}},
		{"no bytes", &store{}, fault{wait: time.Hour}},
		{"no answer, uncached", &store{noSpool: errDisk}, fault{late: time.Hour}},
		{"no bytes, uncached", &store{noSpool: errDisk}, fault{wait: time.Hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(16, size)
				g := flight.New(tt.st.options())
				defer g.Close()
				for range 2 { // the second time after one that has failed
					obj, _ := join(t, g, o, o.source("a", tt.f))
					r := obj.(*flight.Reader)
					ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, errGone)
					start := time.Now()
					_ = r.Ready(ctx, 0, size)
					if _, err := r.CopyTo(ctx, io.Discard, 0, size); !errors.Is(err, errGone) {
						t.Errorf("CopyTo: %v, want the context's cause", err)
					}
					if took := time.Since(start); took != 10*time.Second {
						t.Errorf("let go after %v", took)
					}
					cancel()
					_ = r.Close()
				}
				g.Close()
				tt.st.check(t)
				if o.open != 0 {
					t.Errorf("%d bodies left open", o.open)
				}
			})
		})
	}
}

// When the mirror stops, readers get ErrClosed, the uncached ones too.
func TestCloseEndsUncached(t *testing.T) {
	t.Parallel()
	const size = 300_000
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(17, size)
		g := flight.New((&store{}).options())
		var ends []chan error
		for _, f := range []fault{{late: time.Hour}, {wait: time.Hour}} {
			r, err := g.Direct(t.Context(), o.digest(), size, o.source("a", f))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			end := make(chan error, 1)
			ends = append(ends, end)
			go func() {
				_, err := r.CopyTo(t.Context(), io.Discard, 0, size)
				end <- err
			}()
		}
		synctest.Wait()
		start := time.Now()
		g.Close()
		for _, end := range ends {
			if err := <-end; !errors.Is(err, flight.ErrClosed) {
				t.Errorf("%v, want ErrClosed", err)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("took %v", took)
		}
		if _, err := g.Direct(t.Context(), o.digest(), size, o.source("a", fault{})); !errors.Is(err, flight.ErrClosed) {
			t.Errorf("Direct after Close: %v", err)
		}
	})
}
