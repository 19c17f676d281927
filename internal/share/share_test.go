package share_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/internal/share"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func named(name string) share.Client { return share.Client{Identity: name} }

// begin is Begin for a request that must get its turn.
func begin(t *testing.T, l *share.Limits, c share.Client) *share.Request {
	t.Helper()
	r, err := l.Begin(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pull sends n bytes as the server does, and returns the time that it took.
func pull(t *testing.T, l *share.Limits, c share.Client, n int64) time.Duration {
	t.Helper()
	began := time.Now()
	r := begin(t, l, c)
	defer r.End()
	for n > 0 {
		k, err := r.Next(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		n -= k
	}
	return time.Since(began)
}

// A client runs as many requests as it may; further ones wait in their order, are refused after ten seconds, and at once where too many
// wait already. Another client is not held up.
func TestRequestsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var waited, refused atomic.Int32
		l := share.New(share.Settings{Requests: 2}, func(e share.Event) {
			switch e {
			case share.Waited:
				waited.Add(1)
			case share.Refused:
				refused.Add(1)
			case share.Paced:
			}
		})
		a, b := begin(t, l, named("alice")), begin(t, l, named("alice"))
		var group sync.WaitGroup
		var order []int
		errs := make([]error, 8)
		for i := range 8 {
			group.Go(func() {
				r, err := l.Begin(t.Context(), named("alice"))
				if errs[i] = err; err == nil {
					order = append(order, i) // one at a time: see below
				}
				defer r.End()
				time.Sleep(time.Second)
			})
			synctest.Wait()
		}
		began := time.Now()
		var full *share.FullError
		if _, err := l.Begin(t.Context(), named("alice")); !errors.As(err, &full) || full.Waited != 0 || full.Most != 2 || time.Since(began) != 0 {
			t.Errorf("one more than may wait: %v after %s", err, time.Since(began))
		}
		begin(t, l, named("bob")).End()
		begin(t, l, share.Client{Address: "alice"}).End() // an address is not a name
		if time.Since(began) != 0 {
			t.Errorf("another client waited %s", time.Since(began))
		}
		time.Sleep(6*time.Second + 500*time.Millisecond)
		a.End() // the requests that wait run one after the other, a second each
		group.Wait()
		b.End()
		if fmt.Sprint(order) != "[0 1 2 3]" || waited.Load() != 4 {
			t.Errorf("in the order %v, %d have waited", order, waited.Load())
		}
		for _, err := range errs[4:] {
			if !errors.As(err, &full) || full.Waited != share.Patience {
				t.Errorf("after ten seconds: %v", err)
			}
		}
		if refused.Load() != 5 || l.Clients() != 0 {
			t.Errorf("%d refused, %d clients remain", refused.Load(), l.Clients())
		}
	})
}

// A client that leaves while it waits takes no turn.
func TestLeavesWhileItWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := share.New(share.Settings{Requests: 1, Total: 1 << 20}, nil)
		first := begin(t, l, named("alice"))
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := l.Begin(ctx, named("alice"))
			left <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		first.Sent(10 << 20) // ten seconds of the total
		ctx, cancel = context.WithCancel(t.Context())
		go func() {
			_, err := first.Next(ctx, 1)
			left <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		first.End()
		if took := pull(t, l, named("bob"), 1); took.Round(time.Second) != 10*time.Second {
			t.Errorf("the next client waited %s, want the ten seconds that were sent", took)
		}
	})
}

// A client has its bandwidth, however many requests it has, and other clients have theirs.
func TestBandwidthOfAClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 4 << 20
		var paced atomic.Int32
		l := share.New(share.Settings{Bandwidth: rate}, func(share.Event) { paced.Add(1) })
		var group sync.WaitGroup
		var ended [2]atomic.Int64 // the last request of each client
		for i := range 10 {
			group.Go(func() {
				took := pull(t, l, named(fmt.Sprint(i%2)), 4*rate)
				ended[i%2].Store(max(ended[i%2].Load(), int64(took)))
			})
		}
		group.Go(func() {
			if took := pull(t, l, share.Client{}, 100*rate); took != 0 {
				t.Errorf("a client without a name: %s", took)
			}
		})
		group.Wait()
		for i := range ended {
			if took := time.Duration(ended[i].Load()); took < 18900*time.Millisecond || took > 19*time.Second {
				t.Errorf("client %d had 80 MiB in %s, want 19 s after a burst of one", i, took)
			}
		}
		if paced.Load() != 10 {
			t.Errorf("%d requests were paced", paced.Load())
		}
	})
}

// Clients that want bandwidth have equal shares of the total, however many requests each has, and what one leaves the others have.
func TestTotalIsSharedFairly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 8 << 20
		l := share.New(share.Settings{Total: rate}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var sent [3]atomic.Int64
		var group sync.WaitGroup
		for who, requests := range []int{100, 1, 3} {
			for range requests {
				group.Go(func() {
					r, err := l.Begin(ctx, named(fmt.Sprint(who)))
					if err != nil {
						return
					}
					defer r.End()
					for {
						n, err := r.Next(ctx, 1<<20)
						if err != nil {
							return
						}
						sent[who].Add(n)
					}
				})
			}
		}
		time.Sleep(30 * time.Second)
		cancel()
		group.Wait()
		all := int64(0)
		for who := range sent {
			n := sent[who].Load()
			all += n
			if share := float64(n) / (30 * rate); share < 0.32 || share > 0.35 {
				t.Errorf("client %d had %.3f of the total, want a third", who, share)
			}
		}
		if all < 30*rate*99/100 || all > 30*rate*102/100 {
			t.Errorf("%d MiB in 30 s, want 240", all>>20)
		}
		time.Sleep(time.Minute)
		if took := pull(t, l, named("alone"), 10*rate); took < 9800*time.Millisecond || took > 10*time.Second {
			t.Errorf("alone: %s for ten seconds of the total", took)
		}
	})
}

// A client that ends and begins requests has no more bandwidth by it, and no state once its bandwidth has recovered; a flood of made-up
// clients fills a bound.
func TestClientsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		l := share.New(share.Settings{Bandwidth: rate, Requests: 8}, nil)
		began := time.Now()
		for range 100 {
			pull(t, l, named("alice"), rate/10)
		}
		if took := time.Since(began); took < 8800*time.Millisecond || took > 9200*time.Millisecond {
			t.Errorf("ten seconds of bandwidth in requests of a tenth: %s", took)
		}
		most := 0
		for i := range 50_000 {
			pull(t, l, share.Client{Address: fmt.Sprint(i)}, 1000)
			most = max(most, l.Clients())
		}
		if most > 16_384+1 || most < 16_384 {
			t.Errorf("%d clients are remembered", most)
		}
		time.Sleep(time.Minute)
		pull(t, l, named("bob"), 1)
		if n := l.Clients(); n != 1 {
			t.Errorf("%d clients a minute later", n)
		}
	})
}

// Without limits nothing is counted.
func TestOff(t *testing.T) {
	t.Parallel()
	l := share.New(share.Settings{}, nil)
	if l != nil {
		t.Fatal("limits without a limit")
	}
	r := begin(t, l, named("alice"))
	if n, err := r.Next(t.Context(), 1<<40); r != nil || n != 1<<40 || err != nil {
		t.Error(r, n, err)
	}
	r.Sent(1)
	r.End()
}

// BenchmarkTotal is the cost of a piece that waits for its turn, among many clients.
func BenchmarkTotal(b *testing.B) {
	l := share.New(share.Settings{Total: 1 << 60}, nil)
	b.RunParallel(func(p *testing.PB) {
		r, err := l.Begin(b.Context(), named(fmt.Sprint(new(int))))
		if err != nil {
			b.Error(err)
			return
		}
		defer r.End()
		for p.Next() {
			if _, err := r.Next(b.Context(), 1<<20); err != nil {
				b.Error(err)
			}
		}
	})
}
