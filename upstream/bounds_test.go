package upstream_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// strange is a registry whose token service refuses names that begin with "no", and gives a token for each other one.
func strange(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/token" && strings.Contains(r.URL.Query().Get("scope"), ":no"):
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
	case r.URL.Path == "/token":
		_, _ = io.WriteString(w, `{"token":"`+strings.Repeat("t", 100)+`","expires_in":300}`)
	case r.Header.Get("Authorization") == "":
		w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="reg"`)
		w.WriteHeader(http.StatusUnauthorized)
	default:
		http.NotFound(w, r)
	}
}

// grown is by how many bytes of the heap each call of f costs that lives on.
func grown(n int, f func(i int)) int64 {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range n {
		f(i)
	}
	return (heap() - before) / int64(n)
}

// TestRefusedNamesLeaveNothing asks for names that a client makes up: once what is bounded is full, none costs memory for
// good. Not in parallel: it measures the heap.
func TestRefusedNamesLeaveNothing(t *testing.T) { //nolint:paralleltest // see above
	for _, kind := range []string{"no", "yes"} {
		bubble(t, strange, func(t *testing.T, r *upstream.Registry, _ *pipes) {
			ask := func(i int) {
				if _, err := r.Resolve(t.Context(), fmt.Sprint(kind, i), "1"); err == nil {
					t.Fatal("it is there")
				}
			}
			before := 3000
			if kind == "yes" { // until as many tokens are kept as ever
				before = 16_000
			}
			for i := range before {
				ask(-1 - i)
			}
			time.Sleep(time.Minute)
			// As many as a full cache of tokens loses at once: so it is as full as before.
			if each := grown(2500, ask); each > 200 {
				t.Errorf("a name with %q costs %d bytes for good", kind, each)
			}
			runtime.KeepAlive(r)
		})
	}
}

// TestMadeUpNamesFillNothing asks for 20,000 names in every manner: no memory of the registry has more than it may.
func TestMadeUpNamesFillNothing(t *testing.T) {
	t.Parallel()
	const names = 20_000
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		switch name := strings.Split(r.URL.Path, "/")[min(2, strings.Count(r.URL.Path, "/"))]; {
		case r.URL.Path == "/token" || r.Header.Get("Authorization") == "":
			if strings.HasPrefix(name, "odd") { // a token service for each, with a name as long as it may be
				w.Header().Set("WWW-Authenticate", `Bearer realm="/token?`+strings.Repeat("x", 500)+name+`",service="reg"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			strange(w, r)
		case strings.Contains(r.URL.Path, "/blobs/"):
			w.Header().Set("Content-Length", "10")
		case strings.HasPrefix(name, "ok"):
			w.Header().Set("Ratelimit-Limit", "100;w=21600")
			w.Header().Set("Ratelimit-Remaining", "99;w=21600")
			w.Header().Set("Docker-Ratelimit-Source", "192.0.2.1")
			_, _ = w.Write(manifest)
		case strings.HasPrefix(name, "denied"):
			w.WriteHeader(http.StatusForbidden)
		default:
			http.NotFound(w, r)
		}
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		kinds := []string{"no", "odd", "ok", "denied", "yes"}
		for i := range names {
			name := fmt.Sprint(kinds[i%len(kinds)], i)
			switch i / len(kinds) % 3 {
			case 0:
				_, _ = r.Manifest(t.Context(), name, "1")
			case 1:
				_, _ = r.Resolve(t.Context(), name, "1")
			case 2:
				_, _ = r.Stat(t.Context(), name, digestOf([]byte(name)))
			}
		}
		synctest.Wait()
		for what, n := range upstream.Held(r) {
			if n[0] > n[1] {
				t.Errorf("%s: %d, at most %d", what, n[0], n[1])
			}
			t.Logf("%s: %d of %d", what, n[0], n[1])
		}
	}, as(login("bot", "pw")))
}

// TestLongRealmIsRefused has a challenge that would cost much to remember.
func TestLongRealmIsRefused(t *testing.T) {
	t.Parallel()
	for n, refused := range map[int]bool{1000: false, 100_000: true} {
		bubble(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="/token?`+strings.Repeat("x", n)+`",service="reg"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
			_, err := r.Manifest(t.Context(), "app", "1")
			if _, ok := errors.AsType[*fault.RealmError](err); ok != refused {
				t.Errorf("%d bytes: %.300v", n, err)
			}
		})
	}
}
