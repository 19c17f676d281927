package flight_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// background is a source of background work.
func (o *origin) background(key string, f fault) flight.Source {
	s := o.source(key, f)
	s.Background, s.Client = true, "warm-up"
	return s
}

// want is what was last asked for.
func (o *origin) want() flight.Want {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fetches[len(o.fetches)-1]
}

// hasJoined reports whether a client has joined.
func hasJoined(w flight.Want) bool {
	select {
	case <-w.Joined:
		return true
	default:
		return false
	}
}

// stored waits for the end of Stored in the background, and notes the numbers that it reports.
func stored(ctx context.Context, o flight.Object, report func(int64)) <-chan error {
	done := make(chan error, 1)
	go func() {
		done <- o.(*flight.Reader).Stored(ctx, report)
	}()
	return done
}

// TestClientJoinsBackgroundWork has a client come and go while background work has a blob stored. The source is told, and asked once.
func TestClientJoinsBackgroundWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from := newOrigin(1, 300_000)
		from.chunk = 1000
		st := &store{commit: func() error { time.Sleep(time.Second); return nil }}
		g := flight.New(st.options())
		slow := fault{wait: 100 * time.Millisecond}
		work, _ := join(t, g, from, from.background("k", slow))
		var reports []int64
		done := stored(t.Context(), work, func(n int64) { reports = append(reports, n) })
		synctest.Wait()
		w := from.want()
		if w.Client != "warm-up" || w.Live() || len(w.Needs()) != 0 || hasJoined(w) {
			t.Errorf("background work alone: for %q, live %t, %v wait", w.Client, w.Live(), w.Needs())
		}
		time.Sleep(5 * time.Second)
		s := from.source("k", slow)
		s.Client = "alice"
		alice, joined := join(t, g, from, s)
		if !joined || !w.Live() || !hasJoined(w) || !slices.Equal(w.Needs(), []string{"alice"}) {
			t.Errorf("with a client: joined %t, live %t, %v wait", joined, w.Live(), w.Needs())
		}
		if b, err := copyAll(t.Context(), alice, 0, 10_000); err != nil || len(b) != 10_000 {
			t.Errorf("the client got %d bytes, %v", len(b), err)
		}
		alice.Close()
		if w.Live() || len(w.Needs()) != 0 {
			t.Error("it is live though the client has left")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(reports); n < 100 || !slices.IsSorted(reports) || reports[n-1] != 300_000 {
			t.Errorf("%d reports, the last ones %v", n, reports[max(0, n-3):])
		}
		if st.committed[from.digest()] == nil {
			t.Error("Stored returned before the blob was stored")
		}
		if from.count() != 1 || from.total() != 300_000 {
			t.Errorf("%d requests, %d bytes", from.count(), from.total())
		}
		work.Close()
		g.Close()
		st.check(t)
	})
}

// TestPartsAreForTheClientThatJoined has a blob in parts: those that follow are fetched for the client.
func TestPartsAreForTheClientThatJoined(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from := newOrigin(1, 40<<20)
		from.chunk = 1 << 20
		st := &store{}
		o := st.options()
		o.ParallelAbove = 8 << 20
		g := flight.New(o)
		slow := fault{wait: 100 * time.Millisecond}
		work, _ := join(t, g, from, from.background("k", slow))
		done := stored(t.Context(), work, func(int64) {})
		time.Sleep(500 * time.Millisecond)
		s := from.source("k", slow)
		s.Client = "alice"
		alice, _ := join(t, g, from, s)
		if err := <-done; err != nil {
			t.Error(err)
		}
		from.mu.Lock()
		first, last := from.fetches[0], from.fetches[len(from.fetches)-1]
		from.mu.Unlock()
		if len(from.fetches) < 2 || first.Client != "warm-up" || last.Client != "alice" {
			t.Errorf("%d requests, the first for %q, the last for %q", len(from.fetches), first.Client, last.Client)
		}
		alice.Close()
		work.Close()
		g.Close()
		st.check(t)
	})
}

// TestEndOfBackgroundWork has it leave shortly before the end of a blob: the download stops at once, and what came is kept for the
// next reader. A client's goes on.
func TestEndOfBackgroundWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from := newOrigin(1, 100_000)
		from.chunk = 1000
		st := &store{}
		g := flight.New(st.options())
		slow := fault{wait: 100 * time.Millisecond}
		ctx, cancel := context.WithCancel(t.Context())
		work, _ := join(t, g, from, from.background("k", slow))
		done := stored(ctx, work, func(int64) {})
		time.Sleep(9500 * time.Millisecond)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		work.Close()
		synctest.Wait()
		came := from.total()
		if i := g.Flights()[0]; !i.Parked || came > 96_000 {
			t.Errorf("%+v after %d bytes, want it parked", i, came)
		}
		time.Sleep(time.Minute)
		if from.total() != came {
			t.Errorf("%d bytes came without a reader", from.total()-came)
		}
		again, joined := join(t, g, from, from.background("k", slow))
		if err := <-stored(t.Context(), again, func(int64) {}); err != nil || !joined || from.total() != 100_000 {
			t.Errorf("joined %t, %v, %d bytes in all", joined, err, from.total())
		}
		again.Close()
		g.Close()
		st.check(t)
	})
}

// TestBackgroundWorkBypassesNoSpool has the disk fail in several ways: background work ends with that error, and has nothing fetched that
// can't be stored. A client that had joined goes on.
func TestBackgroundWorkBypassesNoSpool(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		set  func(s *store)
		asks int // requests of background work
	}{
		{"no spool", func(s *store) { s.noSpool = errDisk }, 0},
		{"full in the middle", func(s *store) { s.faults = &faults{op: opWrite, k: 50} }, 1},
		{"unreadable", func(s *store) { s.faults = &faults{op: opRead, k: 20} }, 1},
		{"not committed", func(s *store) { s.faults = &faults{op: opCommit, k: 1} }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				from := newOrigin(1, 100_000)
				from.chunk = 1000
				st := &store{}
				tt.set(st)
				g := flight.New(st.options())
				slow := fault{wait: 10 * time.Millisecond}
				for _, size := range []int64{100_000, -1} {
					o, _, err := g.Join(t.Context(), from.digest(), size, from.background("k", slow))
					if err == nil {
						err = <-stored(t.Context(), o, func(int64) {})
						o.Close()
					}
					if !errors.Is(err, errDisk) {
						t.Errorf("size %d: %v", size, err)
					}
					if n := from.count(); n != tt.asks {
						t.Errorf("size %d: %d requests, want %d", size, n, tt.asks)
					}
					from.fetches = nil
				}
				alice, _ := join(t, g, from, from.source("k", fault{}))
				if b, err := copyAll(t.Context(), alice, 0, 100_000); err != nil || len(b) != 100_000 {
					t.Errorf("a client got %d bytes, %v", len(b), err)
				}
				alice.Close()
				g.Close()
				st.check(t)
			})
		})
	}
}

// TestStoredEndsWithItsSource has the source refuse, send wrong bytes, and the reader closed.
func TestStoredEndsWithItsSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from := newOrigin(1, 100_000)
		st := &store{}
		g := flight.New(st.options())
		denied := errors.New("denied")
		o, _ := join(t, g, from, from.background("denied", fault{deny: denied}))
		if err := <-stored(t.Context(), o, func(int64) {}); !errors.Is(err, denied) {
			t.Error(err)
		}
		o.Close()
		from.flip = 50_000
		o, _ = join(t, g, from, from.background("wrong", fault{}))
		err := <-stored(t.Context(), o, func(int64) {})
		if _, wrong := errors.AsType[*flight.MismatchError](err); !wrong {
			t.Error(err)
		}
		o.Close()
		from.flip = -1
		o, _ = join(t, g, from, from.background("slow", fault{wait: time.Hour}))
		done := stored(t.Context(), o, func(int64) {})
		synctest.Wait()
		o.Close()
		if err := <-done; err == nil {
			t.Error("no error after Close")
		}
		g.Close()
		st.check(t)
	})
}

// TestBackgroundWorkLearnsNothingBad has the trial of more connections fail while background work alone wants a blob, which may
// have been paused: the next blob tries again.
func TestBackgroundWorkLearnsNothingBad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(t, 1)
		defer u.close()
		u.shared = true
		for i, tt := range []struct{ work, more bool }{{true, true}, {false, true}, {false, false}, {true, false}} {
			u.work = tt.work
			if n := u.pull().peak; n > 1 != tt.more {
				t.Errorf("blob %d came by %d connections", i, n)
			}
		}
	})
}

// TestBackgroundWorkLeavesConnections has a host that limits each connection: background work has half of the lanes that clients
// would have.
func TestBackgroundWorkLeavesConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		of   func(from *origin, f fault) flight.Source
		most int
	}{
		{"background work", func(from *origin, f fault) flight.Source { return from.background("k", f) }, 3},
		{"client", func(from *origin, f fault) flight.Source { return from.source("k", f) }, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				st := &store{}
				o := st.options()
				o.ParallelAbove, o.LanesPerHost = 8<<20, 4
				g := flight.New(o)
				from := newOrigin(1, 60<<20)
				from.chunk = 256 << 10
				r, _ := join(t, g, from, tt.of(from, fault{wait: 50 * time.Millisecond}))
				if err := <-stored(t.Context(), r, func(int64) {}); err != nil {
					t.Error(err)
				}
				if n := from.most(); n != tt.most {
					t.Errorf("it came by %d connections, want %d", n, tt.most)
				}
				r.Close()
				g.Close()
				st.check(t)
			})
		})
	}
}
