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
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// bubble runs a test in a bubble with a registry that speaks to h.
func bubble(t *testing.T, h http.HandlerFunc, f func(t *testing.T, r *upstream.Registry, p *pipes),
	change ...func(*upstream.Options),
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes(t, h)
		f(t, registry(t, "http://reg.example", append(change, func(o *upstream.Options) { o.Dial = p.Dial })...), p)
	})
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
			if step := e.Step(); step.Name != fault.StepManifest || step.Took != 25*time.Second || step.Err == nil {
				t.Errorf("last step %+v", step)
			}
			var timeout interface{ Timeout() bool }
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%v is not a timeout", err)
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
		if got, ok := errors.AsType[*fault.ContentError](err); !ok || got.Kind != fault.ContentStalled {
			t.Errorf("%v, want stalled", err)
		}
		if step := e.Step(); step.Name != fault.StepBody || step.Err == nil {
			t.Errorf("last step %+v", step)
		}
		bodies := 0
		for _, s := range e.Steps {
			if s.Name == fault.StepBody {
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
	var asked atomic.Int32
	bubble(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
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
		if asked.Load() != 1 {
			t.Errorf("%d requests, want 1", asked.Load())
		}
	})
}

func TestContextEndsABody(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	bubble(t, stalling(&asked, func(int32) int { return 10 }), func(t *testing.T, r *upstream.Registry, _ *pipes) {
		why := errors.New("no reader is left")
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
	if _, err := upstream.New(upstream.Options{
		Name: "x", Endpoints: []upstream.Endpoint{{URL: u}},
		Log: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"ftp://reg.example", "http://", "http://u:p@reg.example", "http://reg.example/path",
		"http://reg.example?x=1",
	} {
		if _, err := upstream.New(upstream.Options{Name: "x", Endpoints: []upstream.Endpoint{{URL: parse(t,
			bad)}}}); err == nil {
			t.Errorf("endpoint %s was accepted", bad)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("password in %v", err)
		}
	}
	if _, err := upstream.New(upstream.Options{Name: "x"}); err == nil {
		t.Error("no endpoint was accepted")
	}
}

// A connection that brings a byte now and then never stalls, and never finishes: a second answer gets a minute too, then the
// transfer is given up.
func TestCrawlIsGivenUp(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for _, tt := range []struct {
		name string
		send func(w http.ResponseWriter, r *http.Request)
		most int32
	}{
		{"drips", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 100)); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(5 * time.Second)
			}
		}, 2},
		{"cuts after a few bytes", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 5))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, 1500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			bubble(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				from := 0
				if s := r.Header.Get("Range"); s != "" {
					_, _ = fmt.Sscanf(s, "bytes=%d-", &from)
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
					w.Header().Set("Content-Length", fmt.Sprint(size-from))
					w.WriteHeader(http.StatusPartialContent)
				} else {
					w.Header().Set("Content-Length", fmt.Sprint(size))
				}
				tt.send(w, r)
			}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
				begin := time.Now()
				body, err := r.Blob(t.Context(), "app", digestOf([]byte("x")), flight.Want{To: size, Size: size})
				if err != nil {
					t.Fatal(err)
				}
				defer body.Close()
				_, err = io.Copy(io.Discard, body)
				content, ok := errors.AsType[*fault.ContentError](upstreamError(t, err))
				if !ok || content.Kind != fault.ContentSlow {
					t.Errorf("error %v, want that it was too slow", err)
				}
				if took := time.Since(begin); took < 2*time.Minute || took > 3*time.Minute {
					t.Errorf("given up after %s, want two minutes", took)
				}
				if n := asked.Load(); n > tt.most {
					t.Errorf("%d requests, want at most %d", n, tt.most)
				}
			})
		})
	}
}
