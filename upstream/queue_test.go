package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// paced serves blobs of 10 bytes, one a second, and everything else at once. It records which repositories begin.
type paced struct {
	mu      sync.Mutex
	begun   []string // repositories
	running int
	most    int
}

func (p *paced) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, "/blobs/") || r.Method == http.MethodHead {
		_, _ = w.Write(manifest)
		return
	}
	p.mu.Lock()
	p.begun = append(p.begun, strings.Split(r.URL.Path, "/")[2])
	p.running++
	p.most = max(p.most, p.running)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.running--
		p.mu.Unlock()
	}()
	from, to := 0, 9
	if rng := r.Header.Get("Range"); rng != "" {
		_, _ = fmt.Sscanf(rng, "bytes=%d-%d", &from, &to)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/10", from, to))
		w.Header().Set("Content-Length", fmt.Sprint(to+1-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", "10")
	}
	for i := from; i <= to; i++ {
		w.(http.Flusher).Flush()
		time.Sleep(time.Second)
		_, _ = io.WriteString(w, "x")
	}
}

func most(n int) func(*upstream.Options) { return func(o *upstream.Options) { o.MaxTransfers = n } }

// asks begins to fetch a blob of a repository, and reads it to its end.
func asks(ctx context.Context, r *upstream.Registry, repo string, w flight.Want) <-chan error {
	done := make(chan error, 1)
	go func() {
		body, err := r.Blob(ctx, repo, blobDigest(repo), w)
		if err == nil {
			_, err = io.Copy(io.Discard, body)
			body.Close()
		}
		done <- err
	}()
	return done
}

// succeed waits until downloads have ended, and reports those that failed.
func succeed(t *testing.T, what string, all []<-chan error) {
	t.Helper()
	for i, done := range all {
		if err := <-done; err != nil {
			t.Errorf("%s %d: %v", what, i, err)
		}
	}
}

// drain waits until downloads have ended, whether they failed or not.
func drain(all []<-chan error) {
	for _, done := range all {
		<-done //nolint:errcheck // the caller says why some may fail
	}
}

func blobDigest(repo string) oci.Digest { return digestOf([]byte(repo)) }

// whole is a blob of unknown size, which waits like a large one.
var whole = flight.Want{To: 10}

func TestTurnsAreFair(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		begin := time.Now()
		var all []<-chan error
		for _, repo := range []string{"a", "a", "a", "a", "b", "b", "c"} {
			all = append(all, asks(t.Context(), r, repo, whole))
			synctest.Wait() // in this order
		}
		if s := r.State()[0]; s.Running != 1 || s.Waiting != 6 {
			t.Errorf("%d run and %d wait, want 1 and 6", s.Running, s.Waiting)
		}
		// Three wait for longer than clients do.
		var late int
		for _, done := range all {
			if err := <-done; err != nil {
				late++
			}
		}
		if late != 4 {
			t.Errorf("%d of 7 had no turn, want 4 after 24 s at 10 s each", late)
		}
		if diff := cmp.Diff([]string{"a", "a", "b"}, p.begun); diff != "" {
			t.Errorf("order of turns (-want +got):\n%s", diff)
		}
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("took %s", took)
		}
	}, most(1))
	p = paced{}
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		var all []<-chan error
		for _, repo := range []string{"a", "a", "a", "a", "a", "a", "b", "c", "b"} {
			all = append(all, asks(t.Context(), r, repo, whole))
			synctest.Wait()
		}
		succeed(t, "blob", all)
		// Half of the turns of a go to b and c at once: the rest of its blobs comes later.
		slices.Sort(p.begun[6:9]) // at the same time
		if diff := cmp.Diff([]string{"a", "a", "a", "a", "b", "c", "a", "a", "b"}, p.begun); diff != "" {
			t.Errorf("order of turns (-want +got):\n%s", diff)
		}
	}, most(4))
}

// TestOnlyBlobsWait has the queue full, and makes requests that are not for the bytes of blobs.
func TestOnlyBlobsWait(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		first, second := asks(t.Context(), r, "a", whole), asks(t.Context(), r, "a", whole)
		synctest.Wait()
		begin := time.Now()
		for name, ask := range map[string]func() error{
			"manifest": func() error { _, err := r.Manifest(t.Context(), "a", "1"); return err },
			"resolve":  func() error { _, err := r.Resolve(t.Context(), "a", "1"); return err },
			"stat":     func() error { _, err := r.Stat(t.Context(), "a", blobDigest("a")); return err },
		} {
			if err := ask(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("they took %s behind blobs", took)
		}
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
	}, most(1))
}

// TestTurnDeadline has a transfer wait for longer than its client does.
func TestTurnDeadline(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		by   time.Duration
		want time.Duration
	}{
		{"as clients do", 0, 24 * time.Second},
		{"as its client does", 6 * time.Second, 5 * time.Second},
		{"its client has the beginning", -time.Minute, 24 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p paced
			bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
				var running []<-chan error
				for range 5 { // one after another
					running = append(running, asks(t.Context(), r, "a", whole))
					synctest.Wait()
				}
				w := whole
				if tt.by != 0 {
					w.By = time.Now().Add(tt.by)
				}
				begin := time.Now()
				e := upstreamError(t, <-asks(t.Context(), r, "a", w))
				q, ok := errors.AsType[*fault.QueueError](e)
				if !ok || q.Most != 1 || q.Endpoint != "http://reg.example" || q.Waited != tt.want {
					t.Fatalf("%v, %+v", e, q)
				}
				if took := time.Since(begin); took != tt.want {
					t.Errorf("gave up after %s, want %s", took, tt.want)
				}
				if s := e.Step(); s.Name != fault.StepQueue || s.Host != "reg.example" || s.Err == nil || e.Status != 0 {
					t.Errorf("%+v", e)
				}
				if s := r.State()[0]; s.State != endpoint.StateUp || s.LastError != "" {
					t.Errorf("our own queue is held against the endpoint: %+v", s)
				}
				drain(running) // some of them waited too long as well
			}, most(1))
		})
	}
}

func TestWhoLeavesLeavesTheQueue(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		first := asks(t.Context(), r, "a", whole)
		synctest.Wait()
		ctx, leave := context.WithCancelCause(t.Context())
		gone := asks(ctx, r, "b", whole)
		synctest.Wait()
		last := asks(t.Context(), r, "c", whole)
		synctest.Wait()
		why := errors.New("enough")
		leave(why)
		if err := <-gone; !errors.Is(err, why) {
			t.Errorf("%v, want its own reason", err)
		}
		if s := r.State()[0]; s.Running != 1 || s.Waiting != 1 {
			t.Errorf("%d run and %d wait", s.Running, s.Waiting)
		}
		if err := errors.Join(<-first, <-last); err != nil || len(p.begun) != 2 {
			t.Errorf("%v after %v", err, p.begun)
		}
		if s := r.State()[0]; s.Running != 0 || s.Waiting != 0 {
			t.Errorf("%d run and %d wait in the end", s.Running, s.Waiting)
		}
	}, most(1))
}

// TestExtraConnectionsStepBack has a blob fetched over further connections: they take spare turns, and never wait.
func TestExtraConnectionsStepBack(t *testing.T) {
	t.Parallel()
	extra := flight.Want{From: 5, To: 9, Part: true}
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		var all []<-chan error
		refused := func(want bool) {
			t.Helper()
			done := asks(t.Context(), r, "a", extra)
			synctest.Wait()
			select {
			case err := <-done:
				if _, ok := errors.AsType[*fault.QueueError](err); !ok || !want {
					t.Errorf("%v", err)
				}
			default:
				if want {
					t.Error("it was not refused at once")
				}
				all = append(all, done)
			}
		}
		first := func(repo string) {
			all = append(all, asks(t.Context(), r, repo, whole))
			synctest.Wait()
		}
		first("a")
		refused(false)
		refused(false)
		refused(true) // the last one of four is for the first connection of a blob
		first("b")
		first("c") // which takes the turn of an extra connection
		if s := r.State()[0]; s.Running != 4 || s.Waiting != 0 {
			t.Errorf("%d run and %d wait, want 4 and none", s.Running, s.Waiting)
		}
		refused(true)
		ended := 0
		for i, done := range all {
			err := <-done
			if err != nil && i != 1 && i != 2 { // the extra connections
				t.Errorf("%d: %v", i, err)
			} else if err != nil {
				ended++
			}
		}
		if ended != 1 {
			t.Errorf("%d extra connections ended early, want 1", ended)
		}
	}, most(4))
	p = paced{}
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		if _, ok := errors.AsType[*fault.QueueError](<-asks(t.Context(), r, "a", extra)); !ok {
			t.Error("the only turn went to an extra connection")
		}
	}, most(1))
}

// TestSlowReaderKeepsNoTurn has a reader open a blob and not read it.
func TestSlowReaderKeepsNoTurn(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		body, err := r.Blob(t.Context(), "a", blobDigest("a"), whole)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if _, err := io.ReadFull(body, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := <-asks(t.Context(), r, "b", whole); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took < 14*time.Second || took > 17*time.Second {
			t.Errorf("took %s, want 10 s and about 5 s of waiting", took)
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Error(err)
		}
	}, most(1))
}

// TestPartsFollow has a blob come in parts: a client that has its beginning is not sent to the end of the queue with each part.
func TestPartsFollow(t *testing.T) {
	t.Parallel()
	for _, follows := range []bool{true, false} {
		t.Run(fmt.Sprint(follows), func(t *testing.T) {
			t.Parallel()
			var p paced
			bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
				part := asks(t.Context(), r, "a", flight.Want{To: 5, From: 1})
				synctest.Wait()
				other := asks(t.Context(), r, "b", whole)
				if err := <-part; err != nil {
					t.Error(err)
				}
				begin := time.Now()
				if !follows {
					if err := <-other; err != nil {
						t.Error(err)
					}
					if took := time.Since(begin); took != 10100*time.Millisecond {
						t.Errorf("the other one took %s, want 10 s and a moment", took)
					}
					return
				}
				if err := <-asks(t.Context(), r, "a", flight.Want{From: 5, To: 10}); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took != 5*time.Second {
					t.Errorf("the next part took %s, want its 5 s", took)
				}
				if err := <-other; err != nil || cmp.Diff([]string{"a", "a", "b"}, p.begun) != "" {
					t.Errorf("%v, %v", err, p.begun)
				}
			}, most(1))
		})
	}
}

// TestFailoverDoesNotQueue has the first endpoint die in the middle of a blob while the second one is busy.
func TestFailoverDoesNotQueue(t *testing.T) {
	t.Parallel()
	var p paced
	hosts(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "a.example" && strings.Contains(r.URL.Path, "/blobs/") {
			if r.Header.Get("Range") == "" {
				w.Header().Set("Content-Length", "10")
				_, _ = io.WriteString(w, "xxx")
				w.(http.Flusher).Flush()
			}
			panic(http.ErrAbortHandler)
		}
		p.ServeHTTP(w, r)
	}, func(t *testing.T, r *upstream.Registry, n *network) {
		n.cut("a.example", true)
		_, err := r.Manifest(t.Context(), "x", "1") // so that the second one is asked first
		if err != nil {
			t.Fatal(err)
		}
		busy := asks(t.Context(), r, "busy", whole)
		synctest.Wait()
		n.cut("a.example", false)
		time.Sleep(5 * time.Second) // it is back
		begin := time.Now()
		body, err := r.Blob(t.Context(), "a", blobDigest("a"), whole)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if body.Host() != "a.example" {
			t.Fatalf("it comes from %s", body.Host())
		}
		if n, err := io.Copy(io.Discard, body); err != nil || n != 10 {
			t.Errorf("%d bytes, %v", n, err)
		}
		if took := time.Since(begin); took > 8*time.Second { // 7 of them for the bytes
			t.Errorf("took %s: it waited", took)
		}
		if err := <-busy; err != nil {
			t.Error(err)
		}
	}, most(1))
}

// TestManyTurns has many clients want blobs, and some leave: no more run at once than may, and in the end none is left.
func TestManyTurns(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		var wg sync.WaitGroup
		var served atomic.Int32
		for range 200 {
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if rnd.IntN(3) == 0 {
				ctx, cancel = context.WithTimeout(ctx, time.Duration(rnd.Int64N(int64(30*time.Second))))
			}
			repo := string(rune('a' + rnd.IntN(8)))
			wg.Go(func() {
				defer cancel()
				body, err := r.Blob(ctx, repo, blobDigest(repo), whole)
				if err != nil {
					return
				}
				if _, err := io.ReadFull(body, make([]byte, 9)); err == nil {
					served.Add(1)
				}
				_, _ = io.Copy(io.Discard, body)
				body.Close()
			})
			time.Sleep(time.Duration(rnd.Int64N(int64(time.Second))))
			if n := r.State()[0].Running; n > 7 {
				t.Errorf("%d run at once, of 7", n)
			}
		}
		wg.Wait()
		if s := r.State()[0]; served.Load() < 60 || s.Running != 0 || s.Waiting != 0 {
			t.Errorf("%d were served; %d run and %d wait in the end", served.Load(), s.Running, s.Waiting)
		}
	}, most(7))
}
