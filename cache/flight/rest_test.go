package flight_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// keeper is a spool that can outlive its group.
type keeper struct {
	*spool
	rest *flight.Rest
	fail error
}

func (k *keeper) Keep(r flight.Rest) error {
	if k.fail == nil {
		k.rest = &r
	}
	return k.fail
}

// lives is a group that is closed and made again, with the downloads that its spools keep.
type lives struct {
	*flight.Group
	st   *store
	opts flight.Options
	made []*keeper
	fail error // of Keep
}

func newLives(park time.Duration) *lives {
	l := &lives{st: &store{}}
	l.opts = l.st.options()
	l.opts.Park, l.opts.GoOn = park, 1
	create := l.opts.Create
	l.opts.Create = func(d oci.Digest, size int64) (flight.Spool, error) {
		s, err := create(d, size)
		if err != nil {
			return nil, err
		}
		k := &keeper{spool: s.(*spool), fail: l.fail}
		l.made = append(l.made, k)
		return k, nil
	}
	l.begin()
	return l
}

func (l *lives) begin() {
	l.Group = flight.New(l.opts)
	l.Small()
}

// restart closes the group and makes another one from the downloads that were kept. It returns these, and how many of
// them were restored.
func (l *lives) restart(change func(*flight.Rest, *spool)) (kept []flight.Rest, taken int) {
	l.Close()
	old := l.made
	l.made = nil
	l.begin()
	for _, k := range old {
		if k.rest == nil {
			continue
		}
		kept = append(kept, *k.rest)
		next := &spool{b: slices.Clone(k.b), written: slices.Clone(k.written), done: k.done}
		l.st.spools = append(l.st.spools, next)
		if change != nil {
			change(k.rest, next)
		}
		n := &keeper{spool: next, fail: l.fail}
		if l.Restore(*k.rest, n) {
			taken++
			l.made = append(l.made, n)
		} else {
			_ = next.Discard()
		}
	}
	return kept, taken
}

// The next group continues with the bytes that a group has when it is closed: none of them is fetched again.
func TestRestOutlivesTheGroup(t *testing.T) {
	t.Parallel()
	const size, kib = 5000 << 10, 1 << 10
	type part struct{ off, n int64 }
	for _, tt := range []struct {
		name   string
		reads  []part        // by readers that leave, one after the other
		leaves int64         // bytes of the blob after which a reader of all of it leaves; 0: there is none
		stays  bool          // that reader is there until after the close
		away   time.Duration // before the close
		parked bool          // by then
		lives  int           // how many groups follow
		first  part          // read after the restart, before all of it
	}{
		{"running", nil, 900 * kib, false, 0, false, 1, part{}},
		{"running, with a reader", nil, 900 * kib, true, 0, false, 1, part{}},
		{"parked", nil, 900 * kib, false, time.Minute, true, 1, part{}},
		{"three times", nil, 900 * kib, false, time.Minute, true, 3, part{}},
		{"a range ahead alone", []part{{3000 * kib, 10}}, 0, false, time.Minute, true, 1, part{}},
		{"ranges and a start", []part{{3000 * kib, 10}, {4990 * kib, 5}}, 700 * kib, false, 0, false, 2, part{}},
		{"gone on with by a range of what is there", nil, 900 * kib, false, 0, false, 1, part{100 * kib, 1000}},
		{"gone on with by a range of what is not", nil, 900 * kib, false, 0, false, 1, part{4000 * kib, 1000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			blob := newOrigin(50, size)
			synctest.Test(t, func(t *testing.T) {
				o := &origin{content: blob.content, size: size, flip: -1, chunk: 10_000, given: make(map[string]int64)}
				l := newLives(0)
				for _, p := range tt.reads {
					obj, _ := join(t, l.Group, o, o.source("a", fault{}))
					if _, err := copyAll(t.Context(), obj, p.off, p.n); err != nil {
						t.Fatal(err)
					}
					_ = obj.Close()
				}
				var stayed flight.Object
				if tt.leaves > 0 {
					obj, _ := join(t, l.Group, o, o.source("a", fault{wait: 200 * time.Millisecond}))
					w := &leaver{left: tt.leaves}
					if _, err := obj.(*flight.Reader).CopyTo(t.Context(), w, 0, size); !errors.Is(err, errGone) {
						t.Fatal(err)
					}
					if tt.stays {
						stayed = obj
					} else {
						_ = obj.Close()
					}
				}
				time.Sleep(tt.away)
				synctest.Wait()
				if all := l.Flights(); len(all) != 1 || all[0].Parked != tt.parked {
					t.Fatalf("before the close: %+v", all)
				}
				for life := range tt.lives {
					had := o.total()
					kept, taken := l.restart(nil)
					if len(kept) != 1 || taken != 1 {
						t.Fatalf("life %d: kept %+v, taken %d", life, kept, taken)
					}
					var n int64
					for _, x := range kept[0].Have {
						n += x.To - x.From
					}
					if n != had {
						t.Errorf("life %d: %d bytes are kept, %d were fetched", life, n, had)
					}
					if x := kept[0]; x.Have[0].From == 0 && x.Hashed < x.Have[0].To {
						t.Errorf("life %d: hashed up to %d of %d", life, x.Hashed, x.Have[0].To)
					}
					if all := l.Flights(); len(all) != 1 || !all[0].Parked || all[0].Have != had {
						t.Errorf("life %d: after the restart: %+v", life, all)
					}
				}
				if stayed != nil {
					_ = stayed.Close()
				}
				if p := tt.first; p.n > 0 {
					obj, joined := join(t, l.Group, o, o.source("b", fault{}))
					b, err := copyAll(t.Context(), obj, p.off, p.n)
					if err != nil || !bytes.Equal(b, o.content[p.off:p.off+p.n]) || !joined {
						t.Errorf("a range: %d bytes, joined %t, %v", len(b), joined, err)
					}
					_ = obj.Close()
				}
				obj, joined := join(t, l.Group, o, o.source("b", fault{}))
				b, err := copyAll(t.Context(), obj, 0, size)
				if err != nil || !bytes.Equal(b, o.content) || !joined {
					t.Errorf("%d bytes, joined %t, %v", len(b), joined, err)
				}
				_ = obj.Close()
				l.Close()
				if o.total() != size {
					t.Errorf("%d bytes fetched, want each of %d once", o.total(), size)
				}
				if len(l.st.committed) != 1 {
					t.Error("not committed")
				}
				l.st.check(t)
			})
		})
	}
}

// A kept download whose bytes have changed on the disk ends cleanly for no reader that had some of it, and is fetched anew.
func TestRestIsDamaged(t *testing.T) {
	t.Parallel()
	const size, kib = 5000 << 10, 1 << 10
	for _, tt := range []struct {
		name string
		at   int64 // of the byte that changed
		cut  int64 // or the file has only so many bytes
	}{
		{"at the start", 5, 0},
		{"before the hash's end", 800 * kib, 0},
		{"in a range ahead", 3000*kib + 5, 0},
		{"cut in the prefix", 0, 300 * kib},
		{"cut behind it", 0, 2000 * kib},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			blob := newOrigin(51, size)
			synctest.Test(t, func(t *testing.T) {
				o := &origin{content: blob.content, size: size, flip: -1, chunk: 10_000, given: make(map[string]int64)}
				l := newLives(0)
				obj, _ := join(t, l.Group, o, o.source("a", fault{}))
				if _, err := copyAll(t.Context(), obj, 3000*kib, 10); err != nil {
					t.Fatal(err)
				}
				_ = obj.Close()
				obj, _ = join(t, l.Group, o, o.source("a", fault{wait: 200 * time.Millisecond}))
				w := &leaver{left: 900 * kib}
				if _, err := obj.(*flight.Reader).CopyTo(t.Context(), w, 0, size); !errors.Is(err, errGone) {
					t.Fatal(err)
				}
				_ = obj.Close()
				_, taken := l.restart(func(_ *flight.Rest, s *spool) {
					if tt.cut > 0 {
						s.b = s.b[:tt.cut]
						return
					}
					s.b[tt.at] ^= 1
				})
				if taken != 1 {
					t.Fatal("it was not restored")
				}
				had := o.total()
				var err error
				for try := range 2 {
					obj, _ := join(t, l.Group, o, o.source("b", fault{wait: time.Millisecond}))
					got := &comparer{want: o.content}
					_, err = obj.(*flight.Reader).CopyTo(t.Context(), got, 0, size)
					_ = obj.Close()
					if err == nil && (got.n != size || got.differs) {
						t.Errorf("try %d: %d bytes ended cleanly, they differ: %t", try, got.n, got.differs)
					}
					if wrong, ok := errors.AsType[*flight.MismatchError](err); ok {
						t.Errorf("try %d: %v is said to have sent it: %v", try, wrong.Host, err)
					}
				}
				if err != nil {
					t.Errorf("the second try: %v", err)
				}
				if got := o.total() - had; got > size && tt.at < 900*kib && tt.cut == 0 {
					t.Errorf("%d bytes were fetched of a blob of %d whose start is known to be damaged", got, size)
				}
				l.Close()
				l.st.check(t)
			})
		})
	}
}

// A rest that is invalid, has expired, or comes twice is not restored.
func TestRestIsRefused(t *testing.T) {
	t.Parallel()
	blob := newOrigin(52, 1000)
	good := func() flight.Rest {
		return flight.Rest{
			Digest: blob.digest(), Size: 1000, Have: []flight.Extent{{From: 0, To: 100}, {From: 200, To: 300}},
			Until: time.Now().Add(time.Minute), Hashed: 50, Sum: []byte("sum"),
		}
	}
	for name, change := range map[string]func(*flight.Rest){
		"nothing there":             func(r *flight.Rest) { r.Have = nil },
		"expired":                   func(r *flight.Rest) { r.Until = time.Now() },
		"no digest":                 func(r *flight.Rest) { r.Digest = "x" },
		"no size":                   func(r *flight.Rest) { r.Size = -2 },
		"more than the size":        func(r *flight.Rest) { r.Have[1].To = 1001 },
		"out of order":              func(r *flight.Rest) { slices.Reverse(r.Have) },
		"touching":                  func(r *flight.Rest) { r.Have[1].From = 100 },
		"overlapping":               func(r *flight.Rest) { r.Have[1].From = 99 },
		"empty extent":              func(r *flight.Rest) { r.Have[1].To = 200 },
		"before the start":          func(r *flight.Rest) { r.Have[0].From = -1 },
		"hashed more than is there": func(r *flight.Rest) { r.Hashed = 101 },
		"hashed without a start":    func(r *flight.Rest) { r.Have[0].From = 1 },
		"negative hash":             func(r *flight.Rest) { r.Hashed = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := flight.New(flight.Options{})
			defer g.Close()
			r := good()
			change(&r)
			if g.Restore(r, &spool{}) || len(g.Flights()) > 0 {
				t.Error("it was restored")
			}
		})
	}
	t.Run("twice, closed", func(t *testing.T) {
		t.Parallel()
		g := flight.New(flight.Options{})
		if s := (&spool{}); !g.Restore(good(), s) || g.Restore(good(), s) {
			t.Error("it was not restored once")
		}
		g.Close()
		if g.Restore(good(), &spool{}) {
			t.Error("it was restored by a closed group")
		}
	})
}

// The time of a rest continues over restarts; a clock that was set back makes it no longer than Park.
func TestRestExpires(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		shift time.Duration // of Until, as of a clock that was set
		alive time.Duration // since it was parked
	}{
		{"an hour", 0, 59 * time.Minute},
		{"the clock went back", 10 * time.Hour, 30*time.Minute + 59*time.Minute},
		{"the clock went on", -20 * time.Minute, 39 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			blob := newOrigin(53, 5000<<10)
			synctest.Test(t, func(t *testing.T) {
				o := &origin{content: blob.content, size: blob.size, flip: -1, given: make(map[string]int64)}
				l := newLives(time.Hour)
				obj, _ := join(t, l.Group, o, o.source("a", fault{}))
				if _, err := copyAll(t.Context(), obj, 3000<<10, 10); err != nil {
					t.Fatal(err)
				}
				_ = obj.Close()
				time.Sleep(10 * time.Second)
				synctest.Wait()
				start := time.Now() // parked
				time.Sleep(30 * time.Minute)
				if _, taken := l.restart(func(r *flight.Rest, _ *spool) { r.Until = r.Until.Add(tt.shift) }); taken != 1 {
					t.Fatal("it was not restored")
				}
				time.Sleep(tt.alive - time.Since(start))
				if len(l.Flights()) != 1 {
					t.Error("expired early")
				}
				time.Sleep(2 * time.Minute)
				if len(l.Flights()) != 0 {
					t.Error("never expired")
				}
				synctest.Wait()
				l.Close()
				l.st.check(t)
			})
		})
	}
}

// A download that is of no use to the next process is not kept.
func TestRestIsNotKept(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for _, tt := range []struct {
		name   string
		change func(*lives, *origin, *fault)
	}{
		{"whole", func(*lives, *origin, *fault) {}},
		{"wrong", func(_ *lives, o *origin, _ *fault) { o.flip = 5 }},
		{"a disk that failed", func(l *lives, _ *origin, _ *fault) { l.st.failAt = 20 }},
		{"nothing came", func(_ *lives, _ *origin, f *fault) { f.gate = make(chan struct{}) }},
		{"two sizes", func(_ *lives, _ *origin, f *fault) { f.says = size + 1 }},
		{"a spool that can't", func(l *lives, _ *origin, f *fault) {
			l.fail = errDisk
			f.cutAt = size / 2
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			blob := newOrigin(54, size)
			synctest.Test(t, func(t *testing.T) {
				o := &origin{content: blob.content, size: size, flip: -1, chunk: 10_000, given: make(map[string]int64)}
				l := newLives(0)
				var f fault
				tt.change(l, o, &f)
				obj, _ := join(t, l.Group, o, o.source("a", f))
				done := make(chan error, 1)
				go func() {
					_, err := copyAll(t.Context(), obj, 0, size)
					done <- err
				}()
				time.Sleep(time.Second)
				synctest.Wait()
				l.Close()
				if err := <-done; tt.name == "whole" && err != nil {
					t.Error(err)
				}
				_ = obj.Close()
				for _, k := range l.made {
					if k.rest != nil {
						t.Errorf("kept: %+v", k.rest)
					}
				}
				l.st.check(t)
			})
		})
	}
}

// DropParked also drops the downloads of a former process.
func TestDropParkedDropsRests(t *testing.T) {
	t.Parallel()
	blob := newOrigin(55, 1000)
	g := flight.New(flight.Options{})
	defer g.Close()
	s := &spool{b: make([]byte, 10)}
	if !g.Restore(flight.Rest{
		Digest: blob.digest(), Size: 1000, Have: []flight.Extent{{From: 0, To: 10}}, Until: time.Now().Add(time.Hour),
	}, s) {
		t.Fatal("it was not restored")
	}
	g.DropParked()
	if diff := cmp.Diff([]flight.Info(nil), g.Flights()); diff != "" || !s.discarded {
		t.Errorf("discarded %t, flights:\n%s", s.discarded, diff)
	}
}
