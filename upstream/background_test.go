package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// chore is the download of a blob for background work, as a flight tells of it.
type chore struct {
	mu     sync.Mutex
	client string // that has joined; empty: none
	joined chan struct{}
}

func newChore() *chore { return &chore{joined: make(chan struct{})} }

// want is the whole blob of 10 bytes.
func (c *chore) want() flight.Want {
	return flight.Want{
		To: 10, Client: "warm-up", Joined: c.joined,
		Live: func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.client != ""
		},
		Needs: func() []string {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.client == "" {
				return nil
			}
			return []string{c.client}
		},
	}
}

// join has a client join the download.
func (c *chore) join(client string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client = client
	close(c.joined)
}

// leave has it leave again.
func (c *chore) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client = ""
}

// chores begins n downloads of background work, of the repositories chore0 and so on.
func chores(ctx context.Context, r *upstream.Registry, n int) (all []<-chan error) {
	for i := range n {
		all = append(all, asks(ctx, r, fmt.Sprint("chore", i), newChore().want()))
		synctest.Wait()
	}
	return all
}

// order is which repositories have begun since the last call.
func (p *paced) order() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	begun := p.begun
	p.begun = nil
	return begun
}

// TestNoClientQueuesBehindBackgroundWork has clients pull at random moments while background work wants all turns. Each request of a
// client is answered at the moment at which it is made: for large and small blobs, and for parts beside the first one.
func TestNoClientQueuesBehindBackgroundWork(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			var p paced
			bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
				ctx, end := context.WithCancel(t.Context())
				all := chores(ctx, r, 60)
				var wg sync.WaitGroup
				var live, queued, made atomic.Int32
				for i := range 100 {
					time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
					w := of(fmt.Sprint("10.0.0.", random.IntN(3)))
					switch random.IntN(3) {
					case 0:
						w.Size = 10
					case 1:
						w.Part = true
					}
					if n := live.Load(); n >= 8 || w.Part && n >= 6 {
						continue // clients have all turns among themselves
					}
					live.Add(1)
					wg.Go(func() {
						defer live.Add(-1)
						begin := time.Now()
						repo := fmt.Sprint("app", i)
						body, err := r.Blob(t.Context(), repo, blobDigest(repo), w)
						made.Add(1)
						if err != nil || time.Since(begin) > 0 {
							queued.Add(1)
							t.Errorf("request %d, of %+v: after %s: %v", i, w, time.Since(begin), err)
							return
						}
						defer body.Close()
						if n, err := io.Copy(io.Discard, body); err != nil || n != 10 {
							t.Errorf("request %d: %d bytes, %v", i, n, err)
						}
						if took := time.Since(begin); took > 11*time.Second {
							t.Errorf("request %d took %s, want the 10 s that it takes alone", i, took)
						}
					})
					synctest.Wait()
					if s := r.State()[0]; s.Running > 8 {
						t.Errorf("%d transfers run", s.Running)
					}
				}
				wg.Wait()
				if made.Load() < 40 || queued.Load() > 0 {
					t.Errorf("%d of %d requests of clients were queued", queued.Load(), made.Load())
				}
				succeed(t, "chore", all)
				end()
				if s := r.State()[0]; s.Running != 0 || s.Waiting != 0 || s.State != endpoint.StateUp {
					t.Errorf("in the end %+v", s)
				}
			}, most(8))
		})
	}
}

// TestOneOfBackgroundWorkRunsBesideClients has a client download while background work does: one transfer of that goes on, and all
// of them do when the client has been gone for a second. No byte is lost or asked for again.
func TestOneOfBackgroundWorkRunsBesideClients(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		all := chores(t.Context(), r, 5)
		small := newChore().want()
		small.Size = 10 // for which clients have turns apart
		all = append(all, asks(t.Context(), r, "chore5", small))
		time.Sleep(1500 * time.Millisecond)
		if s := r.State()[0]; s.Running != 4 || s.Waiting != 2 {
			t.Errorf("without clients %d run and %d wait, want 4 and 2", s.Running, s.Waiting)
		}
		client := asks(t.Context(), r, "app", of("10.0.0.7"))
		synctest.Wait()
		if s := r.State()[0]; s.Running != 2 {
			t.Errorf("%d run, want the client's and one more", s.Running)
		}
		if err := <-client; err != nil {
			t.Error(err)
		}
		if s := r.State()[0]; s.Running > 1 {
			t.Errorf("at its end %d run, want one", s.Running)
		}
		time.Sleep(1500 * time.Millisecond)
		if s := r.State()[0]; s.Running != 4 {
			t.Errorf("a second after its end %d run, want 4", s.Running)
		}
		succeed(t, "chore", all)
		begun := p.order()
		slices.Sort(begun)
		if len(slices.Compact(begun)) != 7 || len(begun) != 7 {
			t.Errorf("blobs were asked for more than once: %v", begun)
		}
	}, most(4))
}

// TestBackgroundWorkWaitsAsLongAsItLives has clients use the only turn for minutes.
func TestBackgroundWorkWaitsAsLongAsItLives(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		first := asks(t.Context(), r, "app", of("10.0.0.7"))
		synctest.Wait()
		waits := asks(t.Context(), r, "chore", newChore().want())
		ctx, cancel := context.WithCancel(t.Context())
		given := asks(ctx, r, "given", newChore().want())
		for range 30 {
			second := asks(t.Context(), r, "app", of("10.0.0.7"))
			if err := <-first; err != nil {
				t.Error(err)
			}
			first = second
		}
		if s := r.State()[0]; s.Running != 1 || s.Waiting != 2 {
			t.Errorf("after five minutes %d run and %d wait, want 1 and 2", s.Running, s.Waiting)
		}
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("the end of its context: %v", err)
		}
		if s := r.State()[0]; s.Waiting != 1 {
			t.Errorf("%d wait after the end of a context, want 1", s.Waiting)
		}
		if err := errors.Join(<-first, <-waits); err != nil {
			t.Error(err)
		}
		if s := r.State()[0]; s.Running != 0 || s.Waiting != 0 {
			t.Errorf("in the end %+v", s)
		}
	}, most(1))
}

// TestBackgroundWorkIsMorePatientThanClients has clients that give up at once.
func TestBackgroundWorkIsMorePatientThanClients(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		first := asks(t.Context(), r, "app", of("10.0.0.7"))
		synctest.Wait()
		waits := asks(t.Context(), r, "chore", newChore().want())
		if err := <-asks(t.Context(), r, "app", of("10.0.0.7")); !fault.Is[*fault.QueueError](err) {
			t.Errorf("a client: %v", err)
		}
		if err := errors.Join(<-first, <-waits); err != nil {
			t.Error(err)
		}
	}, most(1), func(o *upstream.Options) { o.HeaderTimeout = time.Second })
}

// TestClientPromotesBackgroundWork has a client join a download that waits: behind others of background work, behind clients, and
// paused in the middle.
func TestClientPromotesBackgroundWork(t *testing.T) {
	t.Parallel()
	t.Run("behind background work", func(t *testing.T) {
		t.Parallel()
		var p paced
		bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
			all := chores(t.Context(), r, 10)
			c := newChore()
			done := asks(t.Context(), r, "joined", c.want())
			time.Sleep(500 * time.Millisecond)
			if begun := p.order(); slices.Contains(begun, "joined") {
				t.Fatalf("begun: %v", begun)
			}
			begin := time.Now()
			c.join("10.0.0.7")
			synctest.Wait()
			if begun := p.order(); !slices.Equal(begun, []string{"joined"}) || time.Since(begin) > 0 {
				t.Errorf("begun %s after the client joined: %v", time.Since(begin), begun)
			}
			if err := <-done; err != nil || time.Since(begin) != 10*time.Second {
				t.Errorf("after %s: %v", time.Since(begin), err)
			}
			succeed(t, "blob", all)
		}, most(2))
	})
	t.Run("behind clients", func(t *testing.T) {
		t.Parallel()
		var p paced
		bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
			var clients []<-chan error
			for i := range 4 {
				clients = append(clients, asks(t.Context(), r, fmt.Sprint("app", i), of("10.0.0.66")))
				synctest.Wait()
			}
			all := chores(t.Context(), r, 2)
			c := newChore()
			done := asks(t.Context(), r, "joined", c.want())
			time.Sleep(1500 * time.Millisecond)
			p.order()
			begin := time.Now()
			c.join("10.0.0.7")
			synctest.Wait()
			// The other client has two turns more.
			if begun := p.order(); !slices.Equal(begun, []string{"joined"}) {
				t.Errorf("begun after the client joined: %v", begun)
			}
			if err := <-done; err != nil || time.Since(begin) > 11*time.Second {
				t.Errorf("after %s: %v", time.Since(begin), err)
			}
			succeed(t, "blob", append(clients, all...))
		}, most(2))
	})
	t.Run("in the middle", func(t *testing.T) {
		t.Parallel()
		var p paced
		bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
			c := newChore()
			done := asks(t.Context(), r, "joined", c.want())
			time.Sleep(3500 * time.Millisecond)
			other := asks(t.Context(), r, "app", of("10.0.0.66"))
			time.Sleep(2 * time.Second)
			begin := time.Now()
			c.join("10.0.0.7")
			// The only turn alternates between the two clients.
			if err := errors.Join(<-done, <-other); err != nil || time.Since(begin) > 20*time.Second {
				t.Errorf("after %s: %v", time.Since(begin), err)
			}
			if begun := p.order(); len(begun) != 2 {
				t.Errorf("requests: %v", begun)
			}
		}, most(1))
	})
	t.Run("and leaves", func(t *testing.T) {
		t.Parallel()
		var p paced
		bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
			first := asks(t.Context(), r, "app", of("10.0.0.7"))
			synctest.Wait()
			c := newChore()
			done := asks(t.Context(), r, "joined", c.want())
			synctest.Wait()
			c.join("10.0.0.7")
			time.Sleep(time.Second)
			c.leave()
			for range 6 { // for longer than a client waits
				second := asks(t.Context(), r, "app", of("10.0.0.7"))
				if err := <-first; err != nil {
					t.Error(err)
				}
				first = second
			}
			if err := errors.Join(<-first, <-done); err != nil {
				t.Error(err)
			}
			if begun := p.order(); begun[len(begun)-1] != "joined" {
				t.Errorf("it has not waited for clients: %v", begun)
			}
		}, most(1))
	})
}

// TestClientThatJoinsIsAnsweredInTime has a client join a download that gets no turn: its time counts from then on.
func TestClientThatJoinsIsAnsweredInTime(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		ctx, leave := context.WithCancel(t.Context())
		var clients []<-chan error
		next := func() {
			clients = append(clients, asks(ctx, r, "app", of("10.0.0.7")))
			synctest.Wait()
		}
		next()
		c := newChore()
		done := asks(t.Context(), r, "app", c.want())
		for range 12 {
			next()
			time.Sleep(5 * time.Second)
		}
		for range 4 {
			next() // before the client that joins
		}
		begin := time.Now()
		c.join("10.0.0.7")
		err := <-done
		if _, queued := errors.AsType[*fault.QueueError](err); !queued || time.Since(begin).Round(time.Second) != 24*time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		leave()
		for _, done := range clients {
			if err := <-done; err != nil {
				t.Log(err) // some had no turn, others were cancelled
			}
		}
	}, most(1))
}

// TestEndOfBackgroundWork ends its context while it runs, waits and is paused.
func TestEndOfBackgroundWork(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		ctx, cancel := context.WithCancel(t.Context())
		all := chores(ctx, r, 8)
		time.Sleep(1500 * time.Millisecond)
		client := asks(t.Context(), r, "app", of("10.0.0.7"))
		time.Sleep(1500 * time.Millisecond)
		cancel()
		for _, done := range all {
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if s := r.State()[0]; s.Running != 1 || s.Waiting != 0 || s.State != endpoint.StateUp {
			t.Errorf("%+v", s)
		}
		if err := <-client; err != nil {
			t.Error(err)
		}
	}, most(4))
}
