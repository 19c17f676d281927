package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// No matter which write fails, every reader gets the right bytes.
func TestSpoolBreaks(t *testing.T) {
	t.Parallel()
	const size = 5<<20 + 123
	for k := range 25 {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			o := newOrigin(8, size)
			o.chunk = 256 << 10
			st := &store{failAt: k}
			if k == 0 {
				st = &store{noSpool: errDisk}
			}
			g := flight.New(st.options())
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					obj, _ := join(t, g, o, o.source(fmt.Sprint(i), fault{}))
					defer obj.Close()
					b, err := copyAll(t.Context(), obj, 0, size)
					if err != nil || !bytes.Equal(b, o.content) {
						t.Errorf("reader %d: %d bytes, %v", i, len(b), err)
					}
				})
			}
			wg.Wait()
			g.Close()
			st.check(t)
		})
	}
}

// No matter which call to the spool fails, once or from then on, each reader gets the right bytes from its own source, at
// any position and by any kind of read; and a read of the whole blob never ends cleanly with wrong content.
func TestSpoolFailsAtEveryCall(t *testing.T) {
	t.Parallel()
	const size = 300_000
	type read func(ctx context.Context, r *flight.Reader, w io.Writer, off, n int64) error
	copies := func(ctx context.Context, r *flight.Reader, w io.Writer, off, n int64) error {
		if err := r.Ready(ctx, off, n); err != nil {
			return err
		}
		_, err := r.CopyTo(ctx, w, off, n)
		return err
	}
	reads := func(_ context.Context, r *flight.Reader, w io.Writer, off, n int64) error {
		if _, err := r.Seek(off, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyBuffer(writerOnly{w}, io.LimitReader(r, n), make([]byte, 20_000))
		return err
	}
	readsAt := func(_ context.Context, r *flight.Reader, w io.Writer, off, n int64) error {
		_, err := io.CopyBuffer(writerOnly{w}, io.NewSectionReader(r, off, n), make([]byte, 15_000))
		return err
	}
	clients := []struct {
		name   string
		after  time.Duration
		read   read
		off, n int64
		pause  time.Duration // at each write
	}{
		{"first", 0, copies, 0, size, 0},
		{"slow", 0, copies, 0, size, 2 * time.Millisecond},
		{"late", 15 * time.Millisecond, copies, 0, size, 0},
		{"by Read", 0, reads, 0, size, 0},
		{"by Read, late", 20 * time.Millisecond, reads, 0, size, 0},
		{"by ReadAt", 0, readsAt, 0, size, 0},
		{"middle", 0, copies, 150_000, 20_000, 0},
		{"tail", 3 * time.Millisecond, copies, size - 2000, 2000, 0},
		{"tail, late", 25 * time.Millisecond, copies, size - 5000, 5000, 0},
		{"very late", time.Second, copies, 0, size, 0},
	}
	for _, op := range []op{opWrite, opRead, opOwn, opSeek, opShort, opOpen, opCommit} {
		for _, once := range []bool{true, false} {
			for _, wrong := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, once %t, wrong %t", op, once, wrong), func(t *testing.T) {
					t.Parallel()
					k, right := 0, newOrigin(80, size)
					for tripped := true; tripped; {
						k++
						synctest.Test(t, func(t *testing.T) {
							o := &origin{content: right.content, size: size, flip: -1, chunk: 15_000, given: make(map[string]int64)}
							bad := &origin{content: right.content, size: size, flip: size / 3, chunk: 15_000, given: make(map[string]int64)}
							st := &store{faults: &faults{op: op, k: k, once: once}, positions: op != opRead}
							g := flight.New(st.options())
							g.Small()
							var wg sync.WaitGroup
							for i, c := range clients {
								from := o
								if wrong && i%2 == 0 {
									from = bad
								}
								wg.Go(func() {
									time.Sleep(c.after)
									obj, _, err := g.Join(t.Context(), o.digest(), size,
										from.source(fmt.Sprint(i%4), fault{wait: time.Millisecond}))
									if err != nil {
										t.Errorf("call %d, %s: %v", k, c.name, err)
										return
									}
									defer obj.Close()
									r, ok := obj.(*flight.Reader)
									if !ok {
										return
									}
									got := &comparer{want: o.content[c.off : c.off+c.n]}
									err = c.read(t.Context(), r, &slow{w: got, pause: c.pause}, c.off, c.n)
									whole := c.n == size && c.name != "by ReadAt"
									switch {
									case !wrong && (err != nil || got.n != c.n || got.differs):
										t.Errorf("call %d, %s: %d bytes, differ %t, %v", k, c.name, got.n, got.differs, err)
									case whole && err == nil && (got.differs || got.n != c.n):
										t.Errorf("call %d, %s: ended cleanly with wrong bytes", k, c.name)
									case whole && from == bad && got.differs && got.n > size-4<<10:
										t.Errorf("call %d, %s: %d wrong bytes left", k, c.name, got.n)
									}
								})
							}
							wg.Wait()
							g.Close()
							st.check(t)
							if o.open != 0 || bad.open != 0 {
								t.Errorf("call %d: %d bodies left open", k, o.open+bad.open)
							}
							tripped = st.faults.tripped
						})
					}
					if k < 3 && !wrong && op != opCommit {
						t.Errorf("only %d calls: the test proves little", k)
					}
				})
			}
		}
	}
}

// slow is a client that reads slowly.
type slow struct {
	w     io.Writer
	pause time.Duration
}

func (s *slow) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		time.Sleep(s.pause)
		m, err := s.w.Write(p[n:min(len(p), n+10_000)])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// A reader that continues by itself fetches the bytes that it lacks, and not those that it has.
func TestGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	const size, chunk = 300_000, 10_000
	for _, tt := range []struct {
		name string
		*faults
		from, most int64 // of the second fetch; of all
	}{
		{"no room", &faults{op: opWrite, k: 21}, 20 * chunk, size + chunk},
		{"a file can't be read once", &faults{op: opOwn, k: 25, once: true}, chunk, 2 * size},
		{"a file can't be read any more", &faults{op: opOwn, k: 25}, chunk, 2 * size},
		{"nothing can be read any more", &faults{op: opRead, k: 40}, 0, 2*size + chunk},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(81, size)
				o.chunk = chunk
				st := &store{faults: tt.faults, positions: tt.op == opOwn}
				g := flight.New(st.options())
				g.Small()
				obj, _ := join(t, g, o, o.source("a", fault{wait: 10 * time.Millisecond}))
				if b, err := copyAll(t.Context(), obj, 0, size); err != nil || !bytes.Equal(b, o.content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				_ = obj.Close()
				g.Close()
				if !tt.tripped || len(o.fetches) != 2 {
					t.Fatalf("tripped %t, %d fetches", tt.tripped, len(o.fetches))
				}
				if from := o.fetches[1].From; from < tt.from || tt.from == 0 && from > 0 {
					t.Errorf("fetched again from %d, want %d or more", from, tt.from)
				}
				if n := o.total(); n > tt.most {
					t.Errorf("%d bytes fetched, want at most %d", n, tt.most)
				}
				st.check(t)
			})
		})
	}
}

// socket is a client's connection, whose ReadFrom breaks after so many bytes with an error of its own.
type socket struct {
	comparer
	after int64
	err   error
}

func (s *socket) ReadFrom(r io.Reader) (int64, error) {
	if s.err == nil {
		return io.Copy(&s.comparer, r)
	}
	n, err := io.Copy(&s.comparer, io.LimitReader(r, s.after-s.n))
	if err == nil && s.n == s.after {
		err, s.err = s.err, nil
	}
	return n, err
}

// Where the kernel copies, the errors of the file and of the connection look alike. An error of the connection has no
// effect on other readers.
func TestErrorOfFileOrConnection(t *testing.T) {
	t.Parallel()
	const size = 300_000
	errno := func(call string, err syscall.Errno) error {
		return &net.OpError{Op: "readfrom", Net: "tcp", Err: os.NewSyscallError(call, err)}
	}
	for _, tt := range []struct {
		name    string
		err     error
		own     bool // it continues by itself
		offline bool // and all other sources, too
	}{
		{"client gone", errno("sendfile", syscall.EPIPE), false, false},
		{"client gone, by write", errno("write", syscall.ECONNRESET), false, false},
		{"client gone, and the file can't be read", errno("write", syscall.EPIPE), false, true},
		{"client stuck", &net.OpError{Op: "readfrom", Net: "tcp", Err: os.ErrDeadlineExceeded}, false, false},
		{"client's file", &fs.PathError{Op: "write", Path: "out", Err: syscall.ENOSPC}, false, false},
		{"file unreadable, once", errno("sendfile", syscall.EIO), true, false},
		{"file unreadable, once, by read", &fs.PathError{Op: "read", Path: "spool", Err: syscall.ESTALE}, true, false},
		{"file unreadable", errno("sendfile", syscall.ESTALE), true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(82, size)
				o.chunk = 10_000
				st := &store{positions: true}
				if tt.offline {
					st.faults = &faults{op: opOwn, k: 7} // the error has come by then
				}
				g := flight.New(st.options())
				g.Small()
				other, _ := join(t, g, o, o.source("other", fault{wait: 10 * time.Millisecond}))
				obj, _ := join(t, g, o, o.source("own", fault{wait: 10 * time.Millisecond}))
				done := make(chan struct{})
				go func() {
					defer close(done)
					time.Sleep(100 * time.Millisecond)
					if b, err := copyAll(t.Context(), other, 0, size); err != nil || !bytes.Equal(b, o.content) {
						t.Errorf("the other one: %d bytes, %v", len(b), err)
					}
				}()
				w := &socket{comparer: comparer{want: o.content}, after: 55_000, err: tt.err}
				_, err := obj.(*flight.Reader).CopyTo(t.Context(), w, 0, size)
				switch {
				case !tt.own && !errors.Is(err, tt.err):
					t.Errorf("%v, want the connection's error", err)
				case tt.own && (err != nil || w.differs || w.n != size):
					t.Errorf("%d bytes, differ %t, %v", w.n, w.differs, err)
				}
				_ = obj.Close()
				<-done
				_ = other.Close()
				g.Close()
				want := 1
				if tt.own {
					want++
				}
				if tt.offline {
					want++
				}
				if n := o.count(); n != want {
					t.Errorf("%d fetches, want %d", n, want)
				}
				if _, kept := st.committed[o.digest()]; kept == tt.offline {
					t.Errorf("kept: %t", kept)
				}
				st.check(t)
			})
		})
	}
}

// A source that does not say the size of the blob serves it also where there is no disk.
func TestUnknownSizeUncached(t *testing.T) {
	t.Parallel()
	const size = 300_000
	for _, flip := range []int64{-1, 5} {
		synctest.Test(t, func(t *testing.T) {
			o := newOrigin(83, size)
			o.size, o.flip = -1, flip
			g := flight.New((&store{noSpool: errDisk}).options())
			defer g.Close()
			obj, _, err := g.Join(t.Context(), o.digest(), -1, o.source("a", fault{}))
			if flip >= 0 {
				if _, ok := errors.AsType[*flight.MismatchError](err); !ok {
					t.Errorf("wrong content: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b, err := copyAll(t.Context(), obj, 0, obj.Size()); err != nil || !bytes.Equal(b, o.content) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			_ = obj.Close()
			if o.open != 0 {
				t.Errorf("%d bodies left open", o.open)
			}
		})
	}
}
