package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

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
		// It is no longer used: it is not renewed forever.
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
		} else if e := upstreamError(t, err); e.Status != 503 || e.Step().Name != fault.StepToken {
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
			t.Errorf("the caller that left got %v", err)
		} else if step := upstreamError(t, err).Step(); step.Name != fault.StepToken || step.Host != "reg.example" ||
			step.Err == nil {
			t.Errorf("the caller that left was at %+v, want the token service", step)
		}
		close(s.gate)
		if err := <-second; err != nil {
			t.Errorf("the caller that stayed got %v", err)
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
		begin := time.Now()
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that the caller left", err)
		}
		<-s.gone
		if took := time.Since(begin); took > 0 {
			t.Errorf("the token request went on for %s", took)
		}
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
			t.Errorf("%d logins after that, want 2: the password may be corrected", n)
		}
	}, as(login("bot", "bad")))
}

func TestDeniedPullsSpareTheTokenService(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, why          string
		first, soon, later int // token requests of a pull, of another at once, and of one 11 s later
	}{
		{"no right", `,error="insufficient_scope"`, 1, 0, 1},
		{"no reason", "", 1, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var tokens atomic.Int32
			bubble(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/token" {
					_, _ = fmt.Fprintf(w, `{"token":"t%d","expires_in":300}`, tokens.Add(1))
					return
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="reg"`+tt.why)
				w.WriteHeader(http.StatusUnauthorized)
			}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
				try := func() int {
					before := tokens.Load()
					_, err := r.Manifest(t.Context(), "app", "1")
					if e := upstreamError(t, err); e.Status != 401 {
						t.Errorf("%v", e)
					}
					return int(tokens.Load() - before)
				}
				first, soon := try(), try()
				time.Sleep(11 * time.Second)
				if later := try(); first != tt.first || soon != tt.soon || later != tt.later {
					t.Errorf("%d, %d, %d token requests, want %d, %d, %d", first, soon, later, tt.first, tt.soon, tt.later)
				}
			})
		})
	}
}
