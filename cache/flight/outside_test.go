package flight_test

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache/flight"
)

// A read does not wait for bytes that the blob does not have.
func TestOutsideTheBlob(t *testing.T) {
	t.Parallel()
	const size = 1000
	for _, tt := range []struct {
		name   string
		off, n int64
		want   error
	}{
		{"over the end", 900, 101, flight.ErrRange},
		{"behind the end", 1001, 1, flight.ErrRange},
		{"before the start", -1, 10, flight.ErrRange},
		{"less than nothing", 10, -1, flight.ErrRange},
		{"beyond what can be counted", 10, 1<<63 - 1, flight.ErrRange},
		{"nothing", 10, 0, nil},
		{"nothing at the end", 1000, 0, nil},
		{"the last byte", 999, 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(60, size)
				st := &store{}
				g := flight.New(st.options())
				defer g.Close()
				cached, _ := join(t, g, o, o.source("a", fault{}))
				direct, err := g.Direct(t.Context(), o.digest(), size, o.source("a", fault{}))
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range []*flight.Reader{cached.(*flight.Reader), direct} {
					late := time.AfterFunc(time.Hour, func() { _ = r.Close() })
					if err := r.Ready(t.Context(), tt.off, tt.n); !errors.Is(err, tt.want) {
						t.Errorf("Ready: %v, want %v", err, tt.want)
					}
					n, err := r.CopyTo(t.Context(), io.Discard, tt.off, tt.n)
					if !errors.Is(err, tt.want) || err == nil && n != tt.n || err != nil && n != 0 {
						t.Errorf("CopyTo: %d bytes, %v, want %v", n, err, tt.want)
					}
					late.Stop()
					_ = r.Close()
				}
			})
		})
	}
}

// Content that is said to be empty and isn't is an error, however it is read.
func TestNotEmpty(t *testing.T) {
	t.Parallel()
	d := digest.FromString("not empty")
	o := newOrigin(61, 0)
	g := flight.New((&store{}).options())
	defer g.Close()
	reads := map[string]func(r *flight.Reader) error{
		"Ready":  func(r *flight.Reader) error { return r.Ready(t.Context(), 0, 0) },
		"CopyTo": func(r *flight.Reader) error { _, err := r.CopyTo(t.Context(), io.Discard, 0, 0); return err },
		"Read":   func(r *flight.Reader) error { _, err := io.ReadAll(r); return err },
		"ReadAt": func(r *flight.Reader) error { _, err := r.ReadAt(make([]byte, 1), 0); return err },
	}
	for name, read := range reads {
		for how, get := range map[string]func() (flight.Object, error){
			"Join": func() (flight.Object, error) {
				obj, _, err := g.Join(t.Context(), d, 0, o.source("a", fault{}))
				return obj, err
			},
			"Direct": func() (flight.Object, error) { return g.Direct(t.Context(), d, 0, o.source("a", fault{})) },
		} {
			obj, err := get() // which may know already
			if err == nil {
				err = read(obj.(*flight.Reader))
				_ = obj.Close()
			}
			if _, ok := errors.AsType[*flight.MismatchError](err); !ok {
				t.Errorf("%s, %s: %v, want a mismatch", how, name, err)
			}
		}
	}
}
