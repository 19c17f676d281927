package upstream_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

// of is a blob of unknown size for a client.
func of(client string) flight.Want { return flight.Want{To: 10, Client: client} }

// TestOneClientLeavesTurnsToOthers has one client start 300 large blobs of as many repositories, as slow as the upstream
// is, with a reader for each. Others get their turns at once, and all of them end.
func TestOneClientLeavesTurnsToOthers(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		ctx, leave := context.WithCancel(t.Context())
		var flood []<-chan error
		for i := range 300 {
			flood = append(flood, asks(ctx, r, fmt.Sprint("flood", i), of("10.0.0.66")))
		}
		synctest.Wait()
		if s := r.State()[0]; s.Running != 32 || s.Waiting != 268 {
			t.Errorf("%d run and %d wait, want 32 and 268: no other client wants a turn", s.Running, s.Waiting)
		}
		time.Sleep(1500 * time.Millisecond)
		begin := time.Now()
		var others []<-chan error
		for i := range 16 {
			others = append(others, asks(t.Context(), r, fmt.Sprint("other", i), of("10.0.0.7")))
			synctest.Wait()
		}
		if s := r.State()[0]; s.Running != 32 {
			t.Errorf("%d run, want 32", s.Running)
		}
		succeed(t, "other", others)
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("16 of another client took %s, want the 10 s of one", took)
		}
		failed := 0
		time.Sleep(20 * time.Second)
		leave()
		for _, done := range flood {
			if err := <-done; err != nil {
				failed++
			}
		}
		if failed == 300 || failed == 0 {
			t.Errorf("%d of the flood failed", failed)
		}
		if s := r.State()[0]; s.Running != 0 || s.Waiting != 0 || s.State != endpoint.StateUp {
			t.Errorf("in the end %+v", s)
		}
	})
}

// TestManyClientsShare has eight clients with 50 blobs each: each has as many turns, in whatever order they came.
func TestManyClientsShare(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		ctx, leave := context.WithCancel(t.Context())
		var running [8]atomic.Int32
		var wg sync.WaitGroup
		for c := range 8 {
			for i := range 50 {
				wg.Go(func() {
					w := of(fmt.Sprint("10.0.0.", c))
					repo := fmt.Sprintf("c%d/r%d", c, i)
					body, err := r.Blob(ctx, repo, blobDigest(repo), w)
					if err != nil {
						return
					}
					defer body.Close()
					for err == nil {
						var n int
						n, err = body.Read(make([]byte, 1))
						running[c].Add(int32(n))
					}
				})
			}
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Second)
		for c := range running {
			running[c].Store(0)
		}
		time.Sleep(10 * time.Second)
		for c := range running {
			if n := running[c].Load(); n < 30 || n > 60 {
				t.Errorf("client %d got %d bytes in 10 s, want about the 40 of four turns", c, n)
			}
		}
		leave()
		wg.Wait()
	})
}

// TestTransfersThatNoReaderWaitsForRest has slow readers: a transfer with unread bytes keeps no turn from another one, even of
// the same client; once they are read, it goes on.
func TestTransfersThatNoReaderWaitsForRest(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		var hungry atomic.Bool
		w := of("10.0.0.66")
		w.Needs = func() []string {
			if hungry.Load() {
				return []string{"10.0.0.66"}
			}
			return nil
		}
		slow := asks(t.Context(), r, "slow", w)
		time.Sleep(2 * time.Second)
		begin := time.Now()
		if err := <-asks(t.Context(), r, "next", of("10.0.0.66")); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 11*time.Second {
			t.Errorf("behind a transfer that no reader waits for it took %s", took)
		}
		// It goes on when no other transfer wants the turn.
		begin = time.Now()
		if err := <-slow; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 9*time.Second {
			t.Errorf("the rest took %s", took)
		}
		// And at once when a reader has come so far.
		slow = asks(t.Context(), r, "slow2", w)
		time.Sleep(2 * time.Second)
		third := asks(t.Context(), r, "third", of("10.0.0.8"))
		time.Sleep(3 * time.Second)
		hungry.Store(true)
		begin = time.Now()
		if err := <-slow; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took < 10*time.Second || took > 20*time.Second {
			t.Errorf("with a reader that waits the rest took %s", took)
		}
		if err := <-third; err != nil {
			t.Error(err)
		}
		if n := len(p.begun); n != 4 {
			t.Errorf("%d requests for 4 blobs", n)
		}
	}, most(1))
}

// TestSharedTransfersStay has a reader of another client on a transfer of a client that has too many: it counts for both.
func TestSharedTransfersStay(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		both := of("10.0.0.66")
		both.Needs = func() []string { return []string{"10.0.0.66", "10.0.0.7"} }
		shared := asks(t.Context(), r, "shared", both) // the one that would be taken: it has run longest
		time.Sleep(500 * time.Millisecond)
		var flood []<-chan error
		for i := range 20 {
			flood = append(flood, asks(ctx, r, fmt.Sprint("flood", i), of("10.0.0.66")))
		}
		synctest.Wait()
		begin := time.Now()
		other := asks(t.Context(), r, "other", of("10.0.0.8"))
		if err := <-shared; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 9500*time.Millisecond {
			t.Errorf("the one that two clients wait for took %s more, want 9.5 s", took)
		}
		if err := <-other; err != nil {
			t.Error(err)
		}
		leave()
		drain(flood) // they were left
	}, most(4))
}

// TestTransfersOfOneClientAlternate has more of them in the middle than a client has turns: each goes on.
func TestTransfersOfOneClientAlternate(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		first, second := asks(t.Context(), r, "a", of("10.0.0.66")), asks(t.Context(), r, "b", of("10.0.0.66"))
		time.Sleep(500 * time.Millisecond)
		var long []<-chan error
		for i := range 3 { // one after another
			long = append(long, asks(t.Context(), r, fmt.Sprint("other", i), of("10.0.0.7")))
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := <-second; err != nil {
			t.Error(err)
		}
		drain(long) // one may have waited too long
		if n := len(p.begun); n > 5 {
			t.Errorf("%d requests for 5 blobs: %v", n, p.begun)
		}
	}, most(2))
}

// TestClientsAlternate has more clients than turns: none waits for the end of another one's blob.
func TestClientsAlternate(t *testing.T) {
	t.Parallel()
	var p pausing
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		begin := time.Now()
		var all []<-chan error
		for i := range 6 {
			all = append(all, asks(t.Context(), r, fmt.Sprint("r", i), flight.Want{To: 30, Client: fmt.Sprint("10.0.0.", i)}))
			synctest.Wait()
		}
		succeed(t, "blob", all)
		if took := time.Since(begin); took < 60*time.Second || took > 110*time.Second {
			t.Errorf("6 blobs of 30 s in 2 turns took %s, want at most 90 s and a little", took)
		}
		if n := p.sent.Load(); n > 180 {
			t.Errorf("%d bytes were read for 180", n)
		}
	}, most(2))
}

// TestSmallBlobsDoNotWait has all turns taken by large blobs of the same client.
func TestSmallBlobsDoNotWait(t *testing.T) {
	t.Parallel()
	var p paced
	small := func(client string) flight.Want { return flight.Want{To: 10, Size: 10, Client: client} }
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		var flood []<-chan error
		for i := range 300 {
			flood = append(flood, asks(ctx, r, fmt.Sprint("large", i), of("10.0.0.66")))
		}
		synctest.Wait()
		begin := time.Now()
		if err := <-asks(t.Context(), r, "small", small("10.0.0.66")); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("a small one took %s, want its 10 s", took)
		}
		// A flood of small ones gets no more either.
		for i := range 300 {
			flood = append(flood, asks(ctx, r, fmt.Sprint("many", i), small("10.0.0.66")))
		}
		synctest.Wait()
		if s := r.State()[0]; s.Running != 40 {
			t.Errorf("%d run, want 32 and 8", s.Running)
		}
		begin = time.Now()
		if err := <-asks(t.Context(), r, "another", small("10.0.0.7")); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("another client's small one took %s, want its 10 s", took)
		}
		leave()
		drain(flood) // they were left
	})
}

// pausing serves blobs of 30 bytes, one a second, and counts the bytes sent and the answers under way.
type pausing struct {
	sent, open atomic.Int64
	cut        sync.Map // repositories that are hung up on
}

func (p *pausing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.open.Add(1)
	defer p.open.Add(-1)
	from := 0
	if rng := r.Header.Get("Range"); rng != "" {
		_, _ = fmt.Sscanf(rng, "bytes=%d-", &from)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-29/30", from))
		w.Header().Set("Content-Length", fmt.Sprint(30-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", "30")
	}
	for range 30 - from {
		time.Sleep(time.Second)
		if _, cut := p.cut.Load(strings.Split(r.URL.Path, "/")[2]); cut {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "x")
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		p.sent.Add(1) // it was read
	}
}

// rest begins n transfers that no reader waits for until hungry.
func rest(t *testing.T, r *upstream.Registry, n int, hungry *atomic.Bool) (all []<-chan error) {
	for i := range n {
		w := flight.Want{To: 30, Client: "10.0.0.66", Needs: func() []string {
			if hungry.Load() {
				return []string{"10.0.0.66"}
			}
			return nil
		}}
		all = append(all, asks(t.Context(), r, fmt.Sprint("slow", i), w))
		time.Sleep(3 * time.Second)
	}
	return all
}

// TestPauseIsNoFault has an upstream hang up on a transfer that is paused: it goes on where it was, no byte comes twice,
// and nothing is held against the endpoint.
func TestPauseIsNoFault(t *testing.T) {
	t.Parallel()
	var p pausing
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		var hungry atomic.Bool
		slow := rest(t, r, 2, &hungry)
		p.cut.Store("slow0", true)
		time.Sleep(10 * time.Second)
		p.cut.Delete("slow0")
		hungry.Store(true)
		succeed(t, "blob", slow)
		if n := p.sent.Load(); n > 60 {
			t.Errorf("%d bytes were read for 60", n)
		}
		if s := r.State()[0]; s.State != endpoint.StateUp || s.LastError != "" {
			t.Errorf("%+v", s)
		}
	}, most(1))
}

// TestPausedKeepFewConnections has more transfers paused than may keep a connection. All of them end well.
func TestPausedKeepFewConnections(t *testing.T) {
	t.Parallel()
	var p pausing
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		var hungry atomic.Bool
		slow := rest(t, r, 20, &hungry)
		if s := r.State()[0]; s.Running != 1 || s.Waiting != 0 {
			t.Errorf("%d run and %d wait, want one", s.Running, s.Waiting)
		}
		time.Sleep(5 * time.Second)
		if n := p.open.Load(); n > 9 {
			t.Errorf("%d connections are open for 1 turn, want 8 beside it", n)
		}
		hungry.Store(true)
		succeed(t, "blob", slow)
		if s := r.State()[0]; s.State != endpoint.StateUp || s.LastError != "" || s.Running != 0 {
			t.Errorf("%+v", s)
		}
	}, most(1))
}

// TestQueueHoldsNothing has many clients come and go: the queue remembers nothing of them.
func TestQueueHoldsNothing(t *testing.T) {
	t.Parallel()
	var p paced
	bubble(t, p.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		ctx, leave := context.WithCancel(t.Context())
		var all []<-chan error
		for i := range 2000 {
			all = append(all, asks(ctx, r, fmt.Sprint("r", i), of(fmt.Sprint("client", i))))
		}
		synctest.Wait()
		if n := upstream.QueueHolds(r); n < 2000 {
			t.Errorf("%d are held while 2000 wait and run", n)
		}
		leave()
		drain(all) // they were left
		if n := upstream.QueueHolds(r); n != 0 {
			t.Errorf("%d are held when all have left", n)
		}
		if s := r.State()[0]; s.Running != 0 || s.Waiting != 0 {
			t.Errorf("%d run and %d wait", s.Running, s.Waiting)
		}
	})
}
