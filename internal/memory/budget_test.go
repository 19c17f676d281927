package memory_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/internal/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	size = 128 << 20
	big  = 12 << 20 // of the 48 MiB for large ones
	tiny = 64 << 10
)

// client is a context of a client's request.
func client(ctx context.Context, name string) context.Context { return memory.By(ctx, name) }

// Whatever the clients ask for: never more than the budget is in use, every request gets room in the end, and nothing stays
// in use.
func TestNeverMoreThanTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{Size: size, Wait: time.Hour})
		var wg sync.WaitGroup
		var worst atomic.Int64
		for i := range 500 {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			class, n := memory.Work, int64(rng.IntN(16<<20))
			switch i % 5 {
			case 0:
				n = int64(rng.IntN(tiny))
			case 1:
				class, n = memory.Answer, int64(rng.IntN(80<<20)) // more than there can be
			}
			wg.Go(func() {
				ctx, hold := b.Enter(client(t.Context(), fmt.Sprint(i%7)), class)
				defer hold.Release()
				for range 3 {
					if err := memory.Need(ctx, n); err != nil {
						t.Error(err)
						return
					}
					if used := b.Used(); used > worst.Load() {
						worst.Store(used)
					}
					time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
					memory.Shrink(ctx, n/2)
					n += n / 4
				}
			})
		}
		wg.Wait()
		if worst.Load() > size || worst.Load() < size/2 {
			t.Errorf("%d bytes were in use of %d", worst.Load(), size)
		}
		if n := b.Used(); n != 0 {
			t.Errorf("%d bytes are in use afterwards", n)
		}
	})
}

// A flood of large documents delays no small one, and another client's large one only until one of them is done.
func TestClientsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{Size: size, Wait: time.Hour})
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				_, hold := b.Enter(client(t.Context(), "flood"), memory.Work)
				defer hold.Release()
				if err := hold.Need(t.Context(), big); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
			})
		}
		synctest.Wait()
		for _, tt := range []struct {
			n     int64
			class memory.Class
			most  time.Duration
		}{{tiny, memory.Work, 0}, {4 << 20, memory.Answer, 0}, {big, memory.Work, time.Second}} {
			began := time.Now()
			_, hold := b.Enter(client(t.Context(), "victim"), tt.class)
			if err := hold.Need(t.Context(), tt.n); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > tt.most {
				t.Errorf("%d bytes of class %d took %s, want at most %s", tt.n, tt.class, took, tt.most)
			}
			hold.Release()
		}
		wg.Wait()
	})
}

// A waiter that needs more than is free does not keep another client's that needs little from what is free; nor do many of
// those keep it from its turn.
func TestLittleIsNotBlockedByMuch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const small = size / 128 * 12
		b := memory.New(memory.Options{Size: size, Wait: time.Hour})
		var held []*memory.Hold
		for range small / memory.Small {
			_, h := b.Enter(client(t.Context(), "flood"), memory.Work)
			if err := h.Need(t.Context(), memory.Small); err != nil {
				t.Fatal(err)
			}
			held = append(held, h)
		}
		held[0].Shrink(memory.Small / 2) // 256 KiB are free
		served := make(chan struct{})
		go func() {
			defer close(served)
			_, h := b.Enter(client(t.Context(), "flood"), memory.Work)
			defer h.Release()
			if err := h.Need(t.Context(), memory.Small); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		const need = 20 << 10
		passed := 0
		for i := range 1000 {
			ctx, cancel := context.WithTimeout(client(t.Context(), fmt.Sprint("victim-", i%7)), time.Second)
			_, h := b.Enter(ctx, memory.Work)
			if h.Need(ctx, need) == nil {
				passed++
			}
			h.Release()
			cancel()
		}
		if want := small / 8 / need; passed != want {
			t.Errorf("%d passed a large one, want %d", passed, want)
		}
		held[1].Release()
		synctest.Wait()
		select {
		case <-served:
		default:
			t.Error("the large one has not had its turn")
		}
		for _, h := range held {
			h.Release()
		}
		<-served
		if n := b.Used(); n != 0 {
			t.Errorf("%d bytes are in use", n)
		}
	})
}

// A request that waits ends with an error after a time, when its client leaves, and at once where too many wait: then those
// of the longest line go first.
func TestWaitsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{Size: size, Wait: 10 * time.Second})
		_, all := b.Enter(t.Context(), memory.Work)
		if err := all.Need(t.Context(), size); err != nil { // all of its pool
			t.Fatal(err)
		}
		full := func(err error, want time.Duration, what string) {
			t.Helper()
			e, ok := errors.AsType[*memory.FullError](err)
			if !ok || e.Waited != want || e.Need != big || e.Size >= size {
				t.Errorf("%s: %v", what, err)
			}
		}
		need := func(ctx context.Context, who string) error {
			_, hold := b.Enter(client(ctx, who), memory.Work)
			defer hold.Release()
			return hold.Need(ctx, big)
		}
		full(need(t.Context(), "a"), 10*time.Second, "patience")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := need(ctx, "a")
		cancel()
		if full(err, time.Second, "left"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it does not say that the client's time was over: %v", err)
		}

		var sent, waited atomic.Int64
		var wg sync.WaitGroup
		for range 1200 { // 200 more than may wait
			wg.Go(func() {
				e, _ := errors.AsType[*memory.FullError](need(t.Context(), "flood"))
				if e.Waited == 0 {
					sent.Add(1)
				} else {
					waited.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := sent.Load(); n != 200 {
			t.Errorf("%d were sent away at once, want 200", n)
		}
		wg.Go(func() { full(need(t.Context(), "victim"), 10*time.Second, "victim") })
		synctest.Wait()
		if n := sent.Load(); n != 201 {
			t.Errorf("%d of the flood were sent away, want one more for the victim", n)
		}
		wg.Wait()
		if n := waited.Load(); n != 999 {
			t.Errorf("%d waited to the end, want 999", n)
		}
		all.Release()
		if n := b.Used(); n != 0 {
			t.Errorf("%d bytes are in use", n)
		}
	})
}

// cache is a store of pieces of a size.
type cache struct {
	b     *memory.Budget
	piece int64
	n     atomic.Int64
}

func (c *cache) Shrink(n int64) {
	for ; n > 0 && c.n.Load() > 0; n -= c.piece {
		c.n.Add(-1)
		c.b.Drop(c.piece)
	}
}

// What is kept for later makes room for work, and takes no more than work leaves.
func TestStoresMakeRoom(t *testing.T) {
	t.Parallel()
	b := memory.New(memory.Options{Size: size})
	c := &cache{b: b, piece: 1 << 20}
	b.Register(c)
	for b.Keep(c.piece) {
		c.n.Add(1)
	}
	if c.n.Load() != size/c.piece {
		t.Errorf("%d pieces are kept", c.n.Load())
	}
	_, hold := b.Enter(t.Context(), memory.Answer)
	if err := hold.Need(t.Context(), 64<<20); err != nil {
		t.Fatal(err)
	}
	if used := b.Used(); used > size || used < size-c.piece {
		t.Errorf("%d bytes are in use of %d", used, size)
	}
	if b.Keep(c.piece + 1) {
		t.Error("a store got room that there is not")
	}
	hold.Release()
	if !b.Keep(c.piece) {
		t.Error("a store got no room, and there is some")
	}
}

// Nothing is counted, and nothing waits, without a hold.
func TestWithoutAHold(t *testing.T) {
	t.Parallel()
	if err := memory.Need(t.Context(), 1<<40); err != nil {
		t.Error(err)
	}
	memory.Shrink(t.Context(), 0)
}
