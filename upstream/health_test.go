package upstream_test

import (
	"bytes"
	"context"
	"errors"
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

// registryOf answers for both endpoints of hosts with one manifest and one blob, and counts by host and kind.
type registryOf struct {
	blob []byte
	mu   sync.Mutex
	got  map[string]int // "a.example manifests"
	do   func(w http.ResponseWriter, r *http.Request) bool
}

func (g *registryOf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := "ping"
	for _, k := range []string{"manifests", "blobs"} {
		if strings.Contains(r.URL.Path, "/"+k+"/") {
			kind = k
		}
	}
	g.mu.Lock()
	if g.got == nil {
		g.got = make(map[string]int)
	}
	g.got[r.Host+" "+kind]++
	do := g.do
	g.mu.Unlock()
	switch {
	case do != nil && do(w, r):
	case kind == "manifests":
		w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
		_, _ = w.Write(manifest)
	case kind == "blobs":
		http.ServeContent(w, r, "", zeroTime, bytes.NewReader(g.blob))
	}
}

// asked is how often a host was asked for a kind since the last call; key is "HOST KIND".
func (g *registryOf) asked(key string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.got[key]
	delete(g.got, key)
	return n
}

func (g *registryOf) behave(do func(w http.ResponseWriter, r *http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.do = do
}

// TestBlackHole has the first endpoint swallow everything: one pull waits for it, the next ones do not, and it is up again soon
// after it answers.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	g := &registryOf{blob: blobOf(1000)}
	var log bytes.Buffer
	var mu sync.Mutex
	hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, n *network) {
		pull := func() time.Duration {
			begin := time.Now()
			if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
				t.Fatal(err)
			}
			if b, _, err := fetch(t, r, digestOf(g.blob), flight.Want{To: 1000}); err != nil || len(b) != 1000 {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			return time.Since(begin)
		}
		state := func(want ...endpoint.State) {
			t.Helper()
			for i, s := range r.State() {
				if s.State != want[i] || s.URL != []string{"http://a.example", "http://b.example"}[i] {
					t.Errorf("endpoint %d is %+v, want %s", i, s, want[i])
				}
			}
		}
		state(endpoint.StateUnknown, endpoint.StateUnknown)
		n.cut("a.example", true)
		if took := pull(); took != 10*time.Second {
			t.Errorf("the first pull took %s, want the 10 s of a dial", took)
		}
		state(endpoint.StateOpen, endpoint.StateUp)
		if s := r.State()[0]; s.LastError == "" || s.Since.IsZero() {
			t.Errorf("%+v does not say why", s)
		}
		for range 300 {
			if took := pull(); took != 0 {
				t.Fatalf("a pull took %s while the first endpoint was down", took)
			}
			time.Sleep(time.Second)
		}
		n.mu.Lock()
		dials := n.asked["a.example:80"]
		n.mu.Unlock()
		// 1, 2, 4 ... 60 s, and 10 s for each ping.
		if dials < 6 || dials > 14 {
			t.Errorf("it was dialled %d times in 5 minutes", dials)
		}
		n.cut("a.example", false)
		time.Sleep(90 * time.Second)
		state(endpoint.StateUp, endpoint.StateUp)
		g.asked("a.example manifests")
		g.asked("b.example manifests")
		if took := pull(); took != 0 || g.asked("a.example manifests") != 1 || g.asked("b.example manifests") != 0 {
			t.Errorf("the pull took %s, and not from the first endpoint, which is back", took)
		}
		// A shorter time down is over sooner.
		time.Sleep(2 * time.Minute)
		n.cut("a.example", true)
		r.CloseIdle()
		_ = pull()
		state(endpoint.StateOpen, endpoint.StateUp)
		n.cut("a.example", false)
		time.Sleep(2 * time.Second)
		state(endpoint.StateUp, endpoint.StateUp)
	}, func(o *upstream.Options) { o.Log = textLog(locked{&mu, &log}) })
	mu.Lock()
	defer mu.Unlock()
	down, back := strings.Count(log.String(), "is down"), strings.Count(log.String(), "is up again")
	if down != 2 || back != 2 {
		t.Errorf("%d lines that it is down, %d that it is up again, want 2 and 2:\n%s", down, back, &log)
	}
}

// locked makes a writer safe for many goroutines.
type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// TestSilentEndpoint has the first endpoint take the connection and say nothing: the others share the time that a
// client has.
func TestSilentEndpoint(t *testing.T) {
	t.Parallel()
	g := &registryOf{blob: blobOf(1000)}
	g.behave(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Host == "a.example" {
			<-r.Context().Done()
		}
		return r.Host == "a.example"
	})
	for name, ask := range map[string]func(t *testing.T, r *upstream.Registry) error{
		"manifest": func(t *testing.T, r *upstream.Registry) error {
			_, err := r.Manifest(t.Context(), repo, "1")
			return err
		},
		"blob": func(t *testing.T, r *upstream.Registry) error {
			_, _, err := fetch(t, r, digestOf(g.blob), flight.Want{To: 1000})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *network) {
				begin := time.Now()
				if err := ask(t, r); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took != 12500*time.Millisecond {
					t.Errorf("took %s, want half of 25 s", took)
				}
				if s := r.State()[0]; s.State != endpoint.StateOpen || !strings.Contains(s.LastError, "12.5s") {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestFailuresInARow has the first endpoint answer with errors now and then: only three in a row are too many.
func TestFailuresInARow(t *testing.T) {
	t.Parallel()
	g := new(registryOf)
	var bad atomic.Bool
	g.behave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Host != "a.example" || !bad.Load() || r.URL.Path == "/v2/" {
			return false
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *network) {
		ask := func() {
			if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 20 {
			bad.Store(i%3 != 0)
			ask()
		}
		if n := g.asked("a.example manifests"); n != 20 {
			t.Errorf("asked %d times of 20, though never three in a row went wrong", n)
		}
		if s := r.State()[0].State; s != endpoint.StateDegraded && s != endpoint.StateUp {
			t.Errorf("it is %s", s)
		}
		bad.Store(true)
		for range 20 {
			ask()
		}
		if n := g.asked("a.example manifests"); n > 3 {
			t.Errorf("asked %d times while it was down", n)
		}
		synctest.Wait()
		if s := r.State()[0].State; s != endpoint.StateOpen {
			t.Errorf("it is %s", s)
		}
	})
}

// TestLimitedEndpoint has an endpoint limit manifests: it is not asked for them until the time that it names, but for blobs.
func TestLimitedEndpoint(t *testing.T) {
	t.Parallel()
	g := &registryOf{blob: blobOf(1000)}
	g.behave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Host != "a.example" || !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *network) {
		for i := range 700 {
			if _, err := r.Resolve(t.Context(), repo, "1"); err != nil {
				t.Fatal(err)
			}
			if _, _, err := fetch(t, r, digestOf(g.blob), flight.Want{To: 1000}); err != nil {
				t.Fatal(err)
			}
			if i == 0 && r.State()[0].State != endpoint.StateDegraded {
				t.Errorf("it is %+v", r.State()[0])
			}
			time.Sleep(time.Second)
		}
		if n, m := g.asked("a.example manifests"), g.asked("a.example blobs"); n != 2 || m != 700 {
			t.Errorf("asked %d times for a manifest and %d times for a blob in 700 s, want 2 and 700", n, m)
		}
	})
}

// TestStalledEndpointIsLeft has the first endpoint stop, or crawl, in the middle of blobs. The second one goes on; the
// first is asked for manifests as before, and for a blob now and then.
func TestStalledEndpointIsLeft(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		after func(w http.ResponseWriter, r *http.Request)
		takes time.Duration
	}{
		{"stalls", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 30 * time.Second},
		{"crawls", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(5 * time.Second)
			}
		}, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := &registryOf{blob: bytes.Repeat([]byte("x"), 1<<18)}
			g.behave(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Host != "a.example" || !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(g.blob)))
				_, _ = w.Write(g.blob[:1000])
				w.(http.Flusher).Flush()
				tt.after(w, r)
				return true
			})
			hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *network) {
				pull := func() time.Duration {
					begin := time.Now()
					b, _, err := fetch(t, r, digestOf(g.blob), flight.Want{To: 1 << 18, Size: 1 << 18})
					if err != nil || !bytes.Equal(b, g.blob) {
						t.Fatalf("%d bytes, %v", len(b), err)
					}
					if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
						t.Fatal(err)
					}
					return time.Since(begin)
				}
				if took := pull(); took < tt.takes || took > tt.takes+5*time.Second {
					t.Errorf("the first blob took %s, want %s", took, tt.takes)
				}
				if s := r.State()[0]; s.State != endpoint.StateDegraded || s.LastError == "" {
					t.Errorf("it is %+v", s)
				}
				slow := 0
				for range 30 {
					if pull() > 0 {
						slow++
					}
				}
				if slow > 1 {
					t.Errorf("%d of 30 blobs at once waited for the first endpoint", slow)
				}
				if n := g.asked("a.example manifests"); n != 31 {
					t.Errorf("it was asked for %d manifests of 31", n)
				}
			})
		})
	}
}

// TestEverythingDown starts without a reachable endpoint, and no breaker is in the way of requests once one is up.
func TestEverythingDown(t *testing.T) {
	t.Parallel()
	g := new(registryOf)
	hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, n *network) {
		n.cut("a.example", true)
		n.cut("b.example", true)
		for range 5 {
			_, err := r.Manifest(t.Context(), repo, "1")
			e := upstreamError(t, err)
			if e.Step().Host != "b.example" || len(e.Steps) != 2 {
				t.Errorf("%+v, want both, and the registry itself last", e.Steps)
			}
		}
		n.cut("b.example", false)
		if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
			t.Errorf("the breaker is in the way: %v", err)
		}
		for _, s := range r.State() {
			if want := map[bool]endpoint.State{true: "open", false: "up"}[s.URL == "http://a.example"]; s.State != want {
				t.Errorf("%+v, want %s", s, want)
			}
		}
	})
	bubble(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, p *pipes) {
		p.mu.Lock()
		p.dial = func() error { return errors.New("no way") }
		p.mu.Unlock()
		if _, err := r.Manifest(t.Context(), repo, "1"); err == nil {
			t.Error("no error")
		}
		time.Sleep(time.Hour)
		g.asked("reg.example ping")
		p.mu.Lock()
		p.dial = nil
		p.mu.Unlock()
		if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
			t.Error(err)
		}
		if g.asked("reg.example ping") > 0 || r.State()[0].State != endpoint.StateUp {
			t.Error("the only endpoint was pinged")
		}
	})
}

// TestLeavingCallerIsNoFailure has callers leave: that is not a failure of the endpoint.
func TestLeavingCallerIsNoFailure(t *testing.T) {
	t.Parallel()
	g := new(registryOf)
	g.behave(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *network) {
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := r.Manifest(ctx, repo, "1"); err == nil {
				t.Error("no error")
			}
			if _, err := r.Blob(ctx, repo, digestOf(nil), flight.Want{To: 10}); err == nil {
				t.Error("no error")
			}
			cancel()
		}
		if s := r.State()[0]; s.State != endpoint.StateUnknown || g.asked("b.example manifests") > 0 {
			t.Errorf("it is %+v", s)
		}
	})
}
