package flight_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

func TestWithoutReaders(t *testing.T) {
	t.Parallel()
	const size, kib = 2000 << 10, 1 << 10
	tests := []struct {
		name    string
		missing int64 // when the last reader leaves
		away    time.Duration
		fetches int // in all, after a reader came back and read everything
	}{
		{"little missing: goes on", 600 * kib, time.Minute, 1},
		{"half there: goes on", 990 * kib, time.Minute, 1},
		{"much missing, back within 10 s", 1500 * kib, 9 * time.Second, 1},
		{"much missing: parked, resumed", 1500 * kib, time.Minute, 2},
		{"parked too long: from the start", 1500 * kib, 2 * time.Hour, 2},
	}
	o := newOrigin(7, size)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &origin{content: o.content, size: size, flip: -1, chunk: 2500, given: make(map[string]int64)}
				st := &store{}
				opts := st.options()
				opts.GoOn = 640 * kib
				g := flight.New(opts)
				obj, _ := join(t, g, o, o.source("a", fault{wait: 200 * time.Millisecond})) // 800 reads: 160 s
				w := &leaver{left: size - tt.missing}
				if _, err := obj.(*flight.Reader).CopyTo(t.Context(), w, 0, size); !errors.Is(err, errGone) {
					t.Fatal(err)
				}
				_ = obj.Close()
				time.Sleep(tt.away)
				synctest.Wait()
				before := o.total()
				obj, joined := join(t, g, o, o.source("a", fault{}))
				b, err := copyAll(t.Context(), obj, 0, size)
				if err != nil || !bytes.Equal(b, o.content) {
					t.Fatalf("%d bytes, %v", len(b), err)
				}
				_ = obj.Close()
				g.Close()
				if o.count() != tt.fetches {
					t.Errorf("%d fetches, want %d", o.count(), tt.fetches)
				}
				switch {
				case tt.away > time.Hour:
					if joined {
						t.Error("joined a flight that should have expired")
					}
				case o.total() != size:
					t.Errorf("%d bytes fetched, want each of %d once (%d before)", o.total(), size, before)
				}
				st.check(t)
			})
		})
	}
}

// TestFetchEndsWithItsLastReader has the only reader leave while its fetch waits for a turn: the turn that comes next is not
// used, however late the flight's timer runs.
func TestFetchEndsWithItsLastReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{}
		g := flight.New(st.options())
		o := newOrigin(8, 1<<20)
		var fetch context.Context
		waits := flight.Source{Key: "a", Fetch: func(ctx context.Context, _ flight.Want) (flight.Body, error) {
			fetch = ctx
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}}
		obj, _ := join(t, g, o, waits)
		go func() { _, _ = obj.(*flight.Reader).CopyTo(t.Context(), io.Discard, 0, 1<<20) }()
		synctest.Wait()
		if fetch == nil || fetch.Err() != nil {
			t.Fatal("the fetch does not wait")
		}
		_ = obj.Close()
		if fetch.Err() == nil {
			t.Error("the fetch goes on without a reader")
		}
		g.Close()
		st.check(t)
	})
}
