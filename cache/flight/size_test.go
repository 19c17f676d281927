package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

func TestUnknownSize(t *testing.T) {
	t.Parallel()
	o := newOrigin(10, 300<<10)
	o.size = -1
	st := &store{}
	g := flight.New(st.options())
	obj, _, err := g.Join(t.Context(), o.digest(), -1, o.source("a", fault{}))
	if err != nil {
		t.Fatal(err)
	}
	if obj.Size() != 300<<10 {
		t.Errorf("size %d", obj.Size())
	}
	if b, err := copyAll(t.Context(), obj, 0, obj.Size()); err != nil || !bytes.Equal(b, o.content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	_ = obj.Close()
	g.Close()
	st.check(t)
}

// A download of unknown size that has stopped continues when another reader waits for its size.
func TestUnknownSizeGoesOn(t *testing.T) {
	t.Parallel()
	const size, kib = 300 << 10, 1 << 10
	for _, tt := range []struct {
		name string
		came int64 // bytes that are there when the first source breaks
		says int64 // by the second source
	}{
		{"nothing came", 0, size},
		{"a little came", 10 * kib, size},
		{"more than is held back came", 200 * kib, size},
		{"and no source says it", 200 * kib, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(20, size)
				o.size, o.chunk = -1, 10*kib
				st := &store{}
				g := flight.New(st.options())
				defer g.Close()
				alice := fault{cutAt: tt.came, wait: time.Second}
				if tt.came == 0 {
					alice = fault{deny: errCut, wait: time.Second}
				}
				go func() {
					if _, _, err := g.Join(t.Context(), o.digest(), -1, o.source("alice", alice)); !errors.Is(err, errCut) {
						t.Errorf("alice: %v", err)
					}
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				obj, _, err := g.Join(ctx, o.digest(), -1, o.source("bob", fault{says: tt.says}))
				if err != nil {
					t.Fatalf("bob: %v", err)
				}
				if obj.Size() != size {
					t.Errorf("size %d", obj.Size())
				}
				if b, err := copyAll(ctx, obj, 0, obj.Size()); err != nil || !bytes.Equal(b, o.content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				_ = obj.Close()
				g.Close()
				if n := o.total(); n != size {
					t.Errorf("%d bytes fetched, want each of %d once", n, size)
				}
				st.check(t)
			})
		})
	}
	t.Run("parked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := newOrigin(21, size)
			o.size, o.chunk = -1, 10*kib
			st := &store{}
			g := flight.New(st.options())
			defer g.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			_, _, err := g.Join(ctx, o.digest(), -1, o.source("a", fault{wait: time.Second}))
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			obj, joined, err := g.Join(ctx, o.digest(), -1, o.source("a", fault{}))
			if err != nil || !joined {
				t.Fatalf("joined %t, %v", joined, err)
			}
			if b, err := copyAll(ctx, obj, 0, obj.Size()); err != nil || !bytes.Equal(b, o.content) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			_ = obj.Close()
			g.Close()
			if n := o.total(); n != size {
				t.Errorf("%d bytes fetched, want each of %d once", n, size)
			}
			st.check(t)
		})
	})
}

// The size is known last: the bytes that are there turn out to be the whole blob.
func TestSizeComesLast(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 200 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(22, size)
				o.size = -1
				st := &store{}
				g := flight.New(st.options())
				defer g.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if size > 0 {
					// The body breaks at the blob's end: it has brought everything without knowing.
					alice := o.source("alice", fault{cutAt: int64(size)})
					if _, _, err := g.Join(ctx, o.digest(), -1, alice); !errors.Is(err, errCut) {
						t.Fatalf("alice: %v", err)
					}
				}
				o.size = int64(size)
				obj, joined, err := g.Join(ctx, o.digest(), -1, o.source("bob", fault{late: time.Second}))
				if err != nil || joined != (size > 0) {
					t.Fatalf("bob: joined %t, %v", joined, err)
				}
				if b, err := copyAll(ctx, obj, 0, obj.Size()); err != nil || !bytes.Equal(b, o.content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				_ = obj.Close()
				synctest.Wait()
				if g.Flying(o.digest()) {
					t.Error("still flying, though all is there")
				}
				g.Close()
				if _, ok := st.committed[o.digest()]; !ok {
					t.Error("not committed")
				}
				st.check(t)
			})
		})
	}
}

func TestSourceThatSaysAnotherSize(t *testing.T) {
	t.Parallel()
	o := newOrigin(11, 100<<10)
	o.size++
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{}))
	var wrong *flight.MismatchError
	if err := obj.(*flight.Reader).Ready(t.Context(), 0, 1); !errors.As(err, &wrong) || wrong.GotSize != 100<<10+1 {
		t.Errorf("Ready: %v, want a mismatch of sizes", err)
	}
	_ = obj.Close()
	g.Close()
	st.check(t)
}

// A source that says another size than the known one fails its reader before the headers, also without a spool.
func TestAnotherSizeUncached(t *testing.T) {
	t.Parallel()
	const size = 100 << 10
	o := newOrigin(25, size)
	g := flight.New((&store{noSpool: errDisk}).options())
	defer g.Close()
	r, err := g.Direct(t.Context(), o.digest(), size, o.source("a", fault{says: size + 1}))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var wrong *flight.MismatchError
	if err := r.Ready(t.Context(), 5, 1); !errors.As(err, &wrong) || wrong.GotSize != size+1 {
		t.Errorf("Ready: %v, want a mismatch of sizes", err)
	}
	if b, err := copyAll(t.Context(), r, 0, size); !errors.As(err, &wrong) || len(b) > 0 {
		t.Errorf("%d bytes, %v, want a mismatch of sizes", len(b), err)
	}
}

// Two readers wait for a spool that can't be made, and their sources say different sizes: one of the readers fails, and
// the size of the other one does not change.
func TestTwoSizesUncached(t *testing.T) {
	t.Parallel()
	const size = 100 << 10
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(26, size)
		gate := make(chan struct{})
		g := flight.New(flight.Options{Create: func(oci.Digest, int64) (flight.Spool, error) {
			<-gate
			return nil, errDisk
		}})
		defer g.Close()
		wrong := make(chan int64, 2)
		for i, says := range []int64{size, size + 1} {
			go func() {
				late := fault{says: says, late: time.Duration(i+1) * time.Second}
				obj, _, err := g.Join(t.Context(), o.digest(), -1, o.source(fmt.Sprint(i), late))
				if err == nil {
					time.Sleep(time.Minute)
					if n := obj.Size(); n != says {
						t.Errorf("size %d, its source said %d", n, says)
					}
					wrong <- 0
					_ = obj.Close()
					return
				}
				if _, ok := errors.AsType[*flight.MismatchError](err); !ok {
					t.Error(err)
				}
				wrong <- says
			}()
			synctest.Wait()
		}
		close(gate)
		if n := <-wrong + <-wrong; n != size+1 {
			t.Errorf("%d was refused, want the size that came second", n)
		}
	})
}

// A flight whose sources disagree about its size is not kept for the next reader, which may know the right one.
func TestDisputedSizeIsNotKept(t *testing.T) {
	t.Parallel()
	const size, kib = 300 << 10, 1 << 10
	for _, tt := range []struct {
		name  string
		alice int64 // the size that the first reader expects
		came  int64 // bytes that her source gives before it breaks
		says  int64 // what the second one's source says
	}{
		{"the first reader expects less", 100 * kib, 10 * kib, size},
		{"the first reader expects more", 400 * kib, 10 * kib, size},
		{"more is there than the second source says", -1, 200 * kib, 150 * kib},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(23, size)
				o.size, o.chunk = -1, 10*kib
				st := &store{}
				g := flight.New(st.options())
				defer g.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				alice := fault{deny: errCut}
				if tt.came > 0 {
					alice = fault{cutAt: tt.came}
				}
				pull := func(size int64, s flight.Source) error {
					obj, _, err := g.Join(ctx, o.digest(), size, s)
					if err != nil {
						return err
					}
					defer obj.Close()
					_, err = copyAll(ctx, obj, 0, obj.Size())
					return err
				}
				if err := pull(tt.alice, o.source("alice", alice)); !errors.Is(err, errCut) {
					t.Fatalf("alice: %v", err)
				}
				var wrong *flight.MismatchError
				if err := pull(-1, o.source("bob", fault{says: tt.says})); !errors.As(err, &wrong) || wrong.GotSize != tt.says {
					t.Fatalf("bob: %v, want a mismatch of sizes", err)
				}
				// At once: carol must not join the flight that is about to end.
				if err := pull(-1, o.source("carol", fault{says: size})); err != nil {
					t.Errorf("carol: %v", err)
				}
				g.Close()
				st.check(t)
			})
		})
	}
}

func TestEmptyBlob(t *testing.T) {
	t.Parallel()
	o := newOrigin(12, 0)
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{}))
	if err := obj.(*flight.Reader).Ready(t.Context(), 0, 0); err != nil {
		t.Error(err)
	}
	_ = obj.Close()
	lie, _, err := g.Join(t.Context(), digest.FromString("not empty"), 0, o.source("a", fault{}))
	if err == nil { // else it was known already
		err = lie.(*flight.Reader).Ready(t.Context(), 0, 0)
		_ = lie.Close()
	}
	if _, ok := errors.AsType[*flight.MismatchError](err); !ok {
		t.Errorf("a blob that is said to be empty and isn't: %v", err)
	}
	g.Close()
	st.check(t)
}

// A reader that expects another size than the flight has does not fail with it: otherwise a manifest with a wrong size of
// a layer would fail the pulls of clients with a right one.
func TestOtherSizeOtherWay(t *testing.T) {
	t.Parallel()
	const size = 300 << 10
	for _, lie := range []int64{0, 100 << 10, 400 << 10} {
		t.Run(fmt.Sprint(lie), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(24, size)
				st := &store{}
				g := flight.New(st.options())
				defer g.Close()
				liar, _, err := g.Join(t.Context(), o.digest(), lie, o.source("liar", fault{late: time.Second}))
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() {
					_, err := copyAll(t.Context(), liar, 0, lie)
					done <- err
				}()
				if lie > 0 { // else it has ended by itself
					synctest.Wait()
				}
				obj, _, err := g.Join(t.Context(), o.digest(), size, o.source("honest", fault{late: time.Minute}))
				if err != nil {
					t.Fatal(err)
				}
				if obj.Size() != size {
					t.Errorf("size %d, want %d", obj.Size(), size)
				}
				if b, err := copyAll(t.Context(), obj, 0, size); err != nil || !bytes.Equal(b, o.content) {
					t.Errorf("the honest one: %d bytes, %v", len(b), err)
				}
				_ = obj.Close()
				var wrong *flight.MismatchError
				if err := <-done; !errors.As(err, &wrong) {
					t.Errorf("the liar: %v, want a mismatch", err)
				}
				_ = liar.Close()
				g.Close()
				st.check(t)
			})
		})
	}
}
