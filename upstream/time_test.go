package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// bubble runs a test in a bubble with a registry that speaks to h. wait lets it settle and ends it.
func bubble(t *testing.T, h http.HandlerFunc, f func(t *testing.T, r *upstream.Registry, p *pipes), change ...func(*upstream.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes(t, h)
		f(t, registry(t, "http://reg.example", append(change, func(o *upstream.Options) { o.Dial = p.Dial })...), p)
	})
}

// tokenServer gives out numbered tokens with a life, and takes the last two.
type tokenServer struct {
	life   string
	mu     sync.Mutex
	given  int
	at     []time.Time
	broken bool
	gate   chan struct{}
	gone   chan struct{} // a token request's client left
}

func (s *tokenServer) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		s.mu.Lock()
		s.at = append(s.at, time.Now())
		broken, gate := s.broken, s.gate
		s.mu.Unlock()
		if gate != nil {
			select {
			case <-gate:
			case <-r.Context().Done():
				close(s.gone)
				return
			}
		}
		if broken {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		s.mu.Lock()
		s.given++
		n := s.given
		s.mu.Unlock()
		_, _ = fmt.Fprintf(w, `{"token":"t%d","expires_in":%s}`, n, s.life)
		return
	}
	if r.Header.Get("Authorization") == "" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="reg"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
	w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
	_, _ = w.Write(manifest)
}

func (s *tokenServer) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

func TestTokenIsRenewedWhileInUse(t *testing.T) {
	t.Parallel()
	s := &tokenServer{life: "300"}
	bubble(t, s.serve, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		begin := time.Now()
		for range 20 { // every 30 s for 10 min
			if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
		}
		// At 0, and each time when four fifths of five minutes are over.
		for i, at := range s.at {
			if want := time.Duration(i) * 240 * time.Second; at.Sub(begin) != want {
				t.Errorf("token %d came after %s, want %s", i, at.Sub(begin), want)
			}
		}
		if n := s.requests(); n != 3 {
			t.Errorf("%d token requests in 10 min, want 3", n)
		}
		// Nobody uses it any more: it is not renewed for ever.
		time.Sleep(time.Hour)
		if n := s.requests(); n > 4 {
			t.Errorf("%d token requests, want at most one after the last use", n)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestTokenIsRenewedWithoutRun(t *testing.T) {
	t.Parallel()
	s := &tokenServer{life: "300"}
	bubble(t, s.serve, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		resolve := func() {
			t.Helper()
			if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		resolve()
		time.Sleep(239 * time.Second)
		resolve()
		if n := s.requests(); n != 1 {
			t.Errorf("%d token requests before four fifths of its life, want 1", n)
		}
		time.Sleep(2 * time.Second)
		resolve() // with the old one, while the new one comes
		if n := s.requests(); n != 2 {
			t.Errorf("%d token requests after four fifths of its life, want 2", n)
		}
	})
}

func TestTokenServiceDownWhileTokenIsGood(t *testing.T) {
	t.Parallel()
	s := &tokenServer{life: "300"}
	bubble(t, s.serve, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		resolve := func() error {
			_, err := r.Resolve(t.Context(), "app", "1")
			synctest.Wait()
			return err
		}
		if err := resolve(); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		s.broken = true
		s.mu.Unlock()
		for range 4 {
			time.Sleep(70 * time.Second)
			if err := resolve(); err != nil {
				t.Errorf("with a token that is still good: %v", err)
			}
		}
		time.Sleep(20 * time.Second)
		if err := resolve(); err == nil {
			t.Error("a token that has expired was used")
		} else if e := upstreamError(t, err); e.Status != 503 || e.Step().Name != upstream.StepToken {
			t.Errorf("%v", e)
		}
	})
}

func TestTokenWaitersLeaveAlone(t *testing.T) {
	t.Parallel()
	s := &tokenServer{life: "300"}
	bubble(t, s.serve, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		s.gate, s.gone = make(chan struct{}), make(chan struct{})
		ctx, leave := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { _, err := r.Resolve(ctx, "app", "1"); first <- err }()
		synctest.Wait()
		go func() { _, err := r.Resolve(t.Context(), "app", "1"); second <- err }()
		synctest.Wait() // both wait for one token
		leave()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		close(s.gate)
		if err := <-second; err != nil {
			t.Errorf("who stayed got %v", err)
		}
		if n := s.requests(); n != 1 {
			t.Errorf("%d token requests, want 1", n)
		}
	})
}

func TestTokenRequestEndsWithItsLastWaiter(t *testing.T) {
	t.Parallel()
	s := &tokenServer{life: "300"}
	bubble(t, s.serve, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		s.gate, s.gone = make(chan struct{}), make(chan struct{})
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { _, err := r.Resolve(ctx, "app", "1"); done <- err }()
		synctest.Wait()
		leave()
		<-done
		<-s.gone
	})
}

func TestRefusedPasswordIsNotSentWithEveryPull(t *testing.T) {
	t.Parallel()
	var logins atomic.Int32
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" && r.Header.Get("Authorization") != "" {
			logins.Add(1)
			http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
			return
		}
		(&tokenServer{life: "300"}).serve(w, r)
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		for range 50 { // 5 s
			if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := logins.Load(); n != 1 {
			t.Errorf("%d logins in 5 s, want 1", n)
		}
		time.Sleep(time.Second)
		if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
			t.Fatal(err)
		}
		if n := logins.Load(); n != 2 {
			t.Errorf("%d logins after that, want 2: somebody may have repaired it", n)
		}
	}, as(login("bot", "bad")))
}

func TestHeaderTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		func(t *testing.T, r *upstream.Registry, _ *pipes) {
			begin := time.Now()
			_, err := r.Manifest(t.Context(), "app", "1")
			if took := time.Since(begin); took != 25*time.Second {
				t.Errorf("gave up after %s, want 25 s", took)
			}
			e := upstreamError(t, err)
			if step := e.Step(); step.Name != upstream.StepManifest || step.Took != 25*time.Second || step.Err == nil {
				t.Errorf("last step %+v", step)
			}
			var timeout interface{ Timeout() bool }
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%v is no timeout", err)
			}
		})
}

// stalling serves a blob of 100 bytes, stops after the first ten of each answer, and counts the answers.
func stalling(asked *atomic.Int32, rest func(n int32) int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		var from int
		if s := r.Header.Get("Range"); s != "" {
			_, _ = fmt.Sscanf(s, "bytes=%d-99", &from)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-99/100", from))
			w.Header().Set("Content-Length", fmt.Sprint(100-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", "100")
		}
		_, _ = io.WriteString(w, strings.Repeat("x", min(rest(n), 100-from)))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func TestStallIsABreak(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	bubble(t, stalling(&asked, func(int32) int { return 30 }), func(t *testing.T, r *upstream.Registry, _ *pipes) {
		begin := time.Now()
		body, err := r.Blob(t.Context(), "app", digestOf([]byte("x")), flight.Want{To: 100})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		b, err := io.ReadAll(body)
		if err != nil || string(b) != strings.Repeat("x", 100) {
			t.Errorf("%q, %v", b, err)
		}
		// Three stalls of 30 s, and a short pause after each.
		if took := time.Since(begin); took < 90*time.Second || took > 92*time.Second || asked.Load() != 4 {
			t.Errorf("%d requests in %s, want 4 in a little over 90 s", asked.Load(), took)
		}
	})
}

func TestStallForGood(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	rest := func(n int32) int { return map[int32]int{1: 10}[n] }
	bubble(t, stalling(&asked, rest), func(t *testing.T, r *upstream.Registry, _ *pipes) {
		body, err := r.Blob(t.Context(), "app", digestOf([]byte("x")), flight.Want{To: 100})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		b, err := io.ReadAll(body)
		if len(b) != 10 {
			t.Errorf("%d bytes, want 10", len(b))
		}
		e := upstreamError(t, err)
		if got, ok := errors.AsType[*upstream.ContentError](err); !ok || got.Kind != upstream.ContentStalled {
			t.Errorf("%v, want stalled", err)
		}
		if step := e.Step(); step.Name != upstream.StepBody || step.Err == nil {
			t.Errorf("last step %+v", step)
		}
		bodies := 0
		for _, s := range e.Steps {
			if s.Name == upstream.StepBody {
				bodies++
			}
		}
		if asked.Load() != 9 || bodies != 9 { // the first, and 8 attempts without a byte
			t.Errorf("%d requests, %d of them in the error, want 9", asked.Load(), bodies)
		}
		if _, again := body.Read(make([]byte, 1)); !errors.Is(again, err) {
			t.Errorf("second read: %v, want the same error", again)
		}
	}, func(o *upstream.Options) { o.StallTimeout = time.Second })
}

func TestSlowIsNotStalled(t *testing.T) {
	t.Parallel()
	bubble(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		for range 10 {
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(29 * time.Second)
		}
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		body, err := r.Blob(t.Context(), "app", digestOf([]byte("x")), flight.Want{To: 10})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		one := make([]byte, 1)
		for i := range 10 {
			time.Sleep(time.Hour) // a slow reader is not the upstream's fault
			if _, err := io.ReadFull(body, one); err != nil {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	})
}

func TestContextEndsABody(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	bubble(t, stalling(&asked, func(int32) int { return 10 }), func(t *testing.T, r *upstream.Registry, _ *pipes) {
		why := errors.New("nobody wants it")
		ctx, cancel := context.WithCancelCause(t.Context())
		body, err := r.Blob(ctx, "app", digestOf([]byte("x")), flight.Want{To: 100})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		done := make(chan error, 1)
		go func() { _, err := io.ReadAll(body); done <- err }()
		synctest.Wait()
		cancel(why)
		if err := <-done; !errors.Is(err, why) {
			t.Errorf("%v, want the cause", err)
		}
		if asked.Load() != 1 {
			t.Errorf("%d requests, want 1", asked.Load())
		}
	})
}

func TestPausesBetweenAttempts(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var at []time.Time
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		at = append(at, time.Now())
		first := len(at) == 1
		mu.Unlock()
		if first {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		body, err := r.Blob(t.Context(), "app", digestOf([]byte("x")), flight.Want{To: 100})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		_, err = io.ReadAll(body)
		if e := upstreamError(t, err); e.Status != 503 {
			t.Errorf("%v, want the last answer", err)
		}
		if len(at) != 9 {
			t.Fatalf("%d requests, want 9", len(at))
		}
		for i := range 8 {
			pause, most := at[i+1].Sub(at[i]), min(200*time.Millisecond<<i, 10*time.Second)*3/2
			if pause < most/3 || pause > most {
				t.Errorf("pause %d is %s, want %s to %s", i, pause, most/3, most)
			}
		}
	})
}

func TestRetryAfterInTheMiddle(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) {
		case 1:
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "01234")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case 2:
			w.Header().Set("Retry-After", "20")
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
		}
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		begin := time.Now()
		body, err := r.Blob(t.Context(), "app", digestOf([]byte("x")), flight.Want{To: 10})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		b, err := io.ReadAll(body)
		if err != nil || string(b) != "0123456789" {
			t.Errorf("%q, %v", b, err)
		}
		if took := time.Since(begin); took < 20*time.Second || took > 21*time.Second {
			t.Errorf("took %s, want the 20 s that were asked for", took)
		}
	})
}

func TestNew(t *testing.T) {
	t.Parallel()
	u := &url.URL{Scheme: "http", Host: "reg.example"}
	if _, err := upstream.New(upstream.Options{Name: "x", Endpoints: []upstream.Endpoint{{URL: u}}, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"ftp://reg.example", "http://", "http://u:p@reg.example", "http://reg.example/path", "http://reg.example?x=1"} {
		if _, err := upstream.New(upstream.Options{Name: "x", Endpoints: []upstream.Endpoint{{URL: parse(t, bad)}}}); err == nil {
			t.Errorf("endpoint %s was accepted", bad)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("password in %v", err)
		}
	}
	if _, err := upstream.New(upstream.Options{Name: "x"}); err == nil {
		t.Error("no endpoint was accepted")
	}
}
