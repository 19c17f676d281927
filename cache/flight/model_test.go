package flight_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

var seeds = flag.Int("seeds", 60, "how many random crowds TestModel drives")

// TestModel drives a flight with a random crowd: readers of the whole and of ranges, in any order, who leave early,
// pause, come back, whose sources are of two kinds, of which one may be denied, cut or slow. The reference is small:
// the bytes are the blob's; a reader whose source is sound gets all of them; nobody gets wrong ones; no byte is
// written twice; and where no source failed, none is fetched twice but what was in transit at a cut.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(*seeds) {
		synctest.Test(t, func(t *testing.T) { model(t, seed) })
	}
}

// comparer holds what is written to it against what it should be.
type comparer struct {
	want    []byte
	n       int64
	differs bool
}

func (c *comparer) Write(p []byte) (int, error) {
	if n := int(c.n) + len(p); n > len(c.want) || !bytes.Equal(p, c.want[c.n:n]) {
		c.differs = true
	}
	c.n += int64(len(p))
	return len(p), nil
}

func model(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	sizes := []int{1, 1000, 64 << 10, 300 << 10, 4 << 20, 4<<20 + 1, 13<<20 + 77}
	size := sizes[r.IntN(len(sizes))]
	o := newOrigin(seed, size)
	o.chunk = []int{0, 10 << 10, 64 << 10, 333_333}[r.IntN(4)]
	if size > 1<<20 && o.chunk == 10<<10 {
		o.chunk = 100 << 10
	}
	st := &store{}
	if r.IntN(6) == 0 {
		st.failAt = 1 + r.IntN(20)
	}
	wrong := r.IntN(8) == 0
	if wrong {
		o.flip = r.Int64N(int64(size))
	}
	bad := fault{wait: time.Duration(r.IntN(3)) * time.Millisecond}
	switch r.IntN(4) {
	case 0:
		bad.deny = errors.New("denied")
	case 1:
		bad.cutAt = 1 + r.Int64N(int64(size))
	}
	sources := []flight.Source{
		o.source("good", fault{wait: time.Duration(r.IntN(4)) * time.Millisecond}),
		o.source("bad", bad),
	}
	g := flight.New(st.options())

	type client struct {
		start  time.Duration
		src    int
		off, n int64
		leave  int64 // hangs up after so many bytes; 0: stays
	}
	crowd := make([]client, 1+r.IntN(12))
	ranges := false
	for i := range crowd {
		c := client{start: time.Duration(r.IntN(60)) * time.Millisecond, src: r.IntN(2), n: int64(size)}
		if r.IntN(3) == 0 {
			ranges = true
			c.off = r.Int64N(int64(size))
			c.n = 1 + r.Int64N(int64(size)-c.off)
		}
		if r.IntN(4) == 0 {
			c.leave = 1 + r.Int64N(c.n)
		}
		if r.IntN(10) == 0 {
			c.start += time.Duration(r.IntN(3)) * time.Hour
		}
		crowd[i] = c
	}
	results := make(chan string, len(crowd))
	for i, c := range crowd {
		go func() {
			results <- func() string {
				time.Sleep(c.start)
				obj, _, err := g.Join(t.Context(), o.digest(), int64(size), sources[c.src])
				if err != nil {
					return fmt.Sprintf("client %d: join: %v", i, err)
				}
				defer obj.Close()
				got := &comparer{want: o.content[c.off : c.off+c.n]}
				w := io.Writer(got)
				if c.leave > 0 {
					w = io.MultiWriter(got, &leaver{left: c.leave})
				}
				if rd, ok := obj.(*flight.Reader); ok {
					if err = rd.Ready(t.Context(), c.off, c.n); err == nil {
						_, err = rd.CopyTo(t.Context(), w, c.off, c.n)
					}
				} else {
					_, err = io.Copy(w, io.NewSectionReader(obj, c.off, c.n))
				}
				switch {
				case !wrong && got.differs:
					return fmt.Sprintf("client %d: wrong bytes", i)
				case err == nil && wrong && got.n == int64(size):
					return fmt.Sprintf("client %d: the whole of a wrong blob ended cleanly", i)
				case err == nil && got.n != c.n:
					return fmt.Sprintf("client %d: clean end after %d of %d", i, got.n, c.n)
				case err != nil && !wrong && c.src == 0 && c.leave == 0:
					return fmt.Sprintf("client %d: sound source, and yet: %v", i, err)
				}
				return ""
			}()
		}()
	}
	for range crowd {
		if msg := <-results; msg != "" {
			t.Errorf("seed %d (size %d, chunk %d, %+v): %s", seed, size, o.chunk, bad, msg)
		}
	}
	g.Close()
	st.check(t)
	if o.open != 0 {
		t.Errorf("seed %d: %d bodies left open", seed, o.open)
	}
	late := false
	for _, c := range crowd {
		late = late || c.start >= time.Hour
	}
	calm := bad.deny == nil && bad.cutAt == 0 && st.failAt == 0 && !wrong && !late
	if calm && !ranges && o.total() > int64(size) {
		t.Errorf("seed %d: %d bytes fetched of a blob of %d", seed, o.total(), size)
	}
	if calm && ranges {
		// Each cut may lose what one read had brought.
		if most := int64(size) + int64(len(crowd))*max(int64(o.chunk), 256<<10); o.total() > most {
			t.Errorf("seed %d: %d bytes fetched of a blob of %d", seed, o.total(), size)
		}
	}
}
