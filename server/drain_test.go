package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

// shop is a server whose blobs come at once, by the clock of the test.
func shop() (s *server.Server, get func(client, path string) int) {
	content := []byte("layer")
	p := &puller{
		size: int64(len(content)), object: func() cache.Object { return memory{Reader: bytes.NewReader(content)} },
		manifest: &pull.Content{Digest: sum([]byte("{}")), Bytes: []byte("{}"), Size: 2, MediaType: "a/b"},
		status:   pull.Status{Outcome: cache.Hit},
	}
	s = server.New(options(p))
	return s, func(client, path string) int {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr = client + ":1234"
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code == http.StatusServiceUnavailable && !strings.Contains(w.Body.String(), "the mirror is stopping") {
			return -1
		}
		return w.Code
	}
}

// When the mirror stops, a client with a pull under way gets the next layers; other clients, and other images, are refused with
// the reason. The mirror ends when the pull has paused for long enough, and at once without a pull.
func TestPullsUnderWayAreServedToTheirEnd(t *testing.T) {
	t.Parallel()
	layer := "/v2/library/app/blobs/" + string(sum([]byte("layer")))
	synctest.Test(t, func(t *testing.T) {
		s, get := shop()
		if code := get("10.0.0.1", "/v2/library/app/manifests/1"); code != 200 {
			t.Fatal(code)
		}
		if code := get("10.0.0.9", "/v2/library/old/manifests/1"); code != 200 {
			t.Fatal(code)
		}
		time.Sleep(2 * time.Second)
		stopped := make(chan error, 1)
		began := time.Now()
		if code := get("10.0.0.1", layer); code != 200 {
			t.Error(code)
		}
		go func() { stopped <- s.Stop(t.Context(), 0) }()
		synctest.Wait()
		for i := range 3 {
			if code := get("10.0.0.1", layer); code != 200 {
				t.Errorf("layer %d of a pull under way: %d", i, code)
			}
			for client, path := range map[string]string{
				"10.0.0.2": "/v2/library/app/manifests/1", "10.0.0.1": "/v2/library/other/manifests/1",
			} {
				if code := get(client, path); code != 503 {
					t.Errorf("%s, %s: %d", client, path, code)
				}
			}
			if code := get("10.0.0.2", "/healthz"); code != 200 {
				t.Errorf("health: %d", code)
			}
			time.Sleep(2 * time.Second)
		}
		if code := get("10.0.0.9", "/v2/library/old/manifests/1"); code != 503 {
			t.Errorf("a pull that was over: %d", code)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("stopped after %s, want 3 s after the last layer, which was asked for after 4", took)
		}
	})
	t.Run("none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, get := shop()
			get("10.0.0.1", "/v2/library/app/manifests/1")
			time.Sleep(time.Minute)
			began := time.Now()
			if err := s.Stop(t.Context(), 0); err != nil || time.Since(began) != 0 {
				t.Errorf("stopped after %s, %v", time.Since(began), err)
			}
		})
	})
	t.Run("without end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, get := shop()
			get("10.0.0.1", layer)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			stopped := make(chan error, 1)
			go func() { stopped <- s.Stop(ctx, 0) }()
			for range 100 {
				get("10.0.0.1", layer)
				time.Sleep(time.Second)
			}
			if err := <-stopped; err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	})
}

// A flood of repositories and clients is not tracked beyond a bound; it is served all the same.
func TestPullsUnderWayAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, get := shop()
		for i := range 20_000 {
			if code := get("10.0.0.1", fmt.Sprintf("/v2/library/app%d/manifests/1", i)); code != 200 {
				t.Fatal(code)
			}
		}
		if n := s.UnderWay(); n > 16*512 {
			t.Errorf("%d pulls are tracked", n)
		}
		time.Sleep(time.Minute)
		for i := range 20_000 { // ended pulls make room
			get("10.0.0.1", fmt.Sprintf("/v2/library/other%d/manifests/1", i))
		}
		if n := s.UnderWay(); n > 16*512 {
			t.Errorf("%d pulls are tracked", n)
		}
	})
}
