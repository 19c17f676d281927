package flight_test

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/registrymirror/mirror/cache/flight"
)

// Until the hasher has reached the end, none of the last bytes is sent, by any kind of read.
func TestHoldBack(t *testing.T) {
	t.Parallel()
	const size, held = 300_000, 4 << 10 // of small flights
	copies := func(off, n int64) func(t *testing.T, r *flight.Reader, w io.Writer) error {
		return func(t *testing.T, r *flight.Reader, w io.Writer) error {
			if err := r.Ready(t.Context(), off, n); err != nil {
				return err
			}
			_, err := r.CopyTo(t.Context(), w, off, n)
			return err
		}
	}
	reads := func(off int64) func(t *testing.T, r *flight.Reader, w io.Writer) error {
		return func(_ *testing.T, r *flight.Reader, w io.Writer) error {
			if _, err := r.Seek(off, io.SeekStart); err != nil {
				return err
			}
			_, err := io.Copy(writerOnly{w}, r)
			return err
		}
	}
	readers := []struct {
		name string
		from int64
		read func(t *testing.T, r *flight.Reader, w io.Writer) error
	}{
		{"whole", 0, copies(0, size)},
		{"all but the first byte", 1, copies(1, size-1)},
		{"all but the last byte", 0, copies(0, size-1)},
		{"tail", size - 100, copies(size-100, 100)},
		{"last byte", size - 1, copies(size-1, 1)},
		{"one held back", size - held, copies(size-held, 1)},
		{"by Read", 0, reads(0)},
		{"by Read, tail", size - 5000, reads(size - 5000)},
		{"by ReadAt, tail", size - held, func(_ *testing.T, r *flight.Reader, w io.Writer) error {
			_, err := io.Copy(w, io.NewSectionReader(r, size-held, held))
			return err
		}},
	}
	for _, positions := range []bool{false, true} {
		for _, flip := range []int64{-1, 5, size - 1} {
			for _, known := range []int64{size, -1} {
				t.Run(fmt.Sprintf("files %t, flip %d, size %d", positions, flip, known), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						o := newOrigin(90, size)
						o.flip, o.chunk = flip, 10_000
						hasher := make(chan struct{})
						st := &store{positions: positions, reading: func(off, end int64) {
							if end == size {
								<-hasher
							}
						}}
						g := flight.New(st.options())
						g.Small()
						defer g.Close()
						var wg sync.WaitGroup
						got := make([]counter, len(readers))
						for i, c := range readers {
							obj, _, err := g.Join(t.Context(), o.digest(), known, o.source("a", fault{}))
							if err != nil {
								t.Fatal(err)
							}
							if i == 0 { // it has all of the blob fetched before the others ask
								wg.Go(func() { got[i].err = c.read(t, obj.(*flight.Reader), &got[i]); _ = obj.Close() })
								synctest.Wait()
								continue
							}
							wg.Go(func() { got[i].err = c.read(t, obj.(*flight.Reader), &got[i]); _ = obj.Close() })
						}
						synctest.Wait()
						if n := g.Flights()[0].Have; n != size {
							t.Fatalf("%d bytes are there, want all: the test proves nothing", n)
						}
						for i, c := range readers {
							if end := c.from + got[i].n; got[i].n > 0 && end > size-held {
								t.Errorf("%s: got bytes up to %d", c.name, end)
							}
						}
						if n := got[1].n; n != size-held-1 {
							t.Errorf("%s: got %d bytes, want all that may leave", readers[1].name, n)
						}
						close(hasher)
						wg.Wait()
						for i, c := range readers {
							_, wrong := errors.AsType[*flight.MismatchError](got[i].err)
							end := c.from + got[i].n
							if flip < 0 && got[i].err != nil || flip >= 0 && (!wrong || got[i].n > 0 && end > size-held) {
								t.Errorf("%s: got bytes up to %d, %v", c.name, end, got[i].err)
							}
						}
						g.Close()
						st.check(t)
					})
				})
			}
		}
	}
}

type counter struct {
	n   int64
	err error
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}
