package upstream_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/registrymirror/mirror/upstream"
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
			for i := range 3000 {
				ask(-1 - i)
			}
			if kind == "yes" {
				upstream.FillTokens(r) // the most that are kept are kept; what lived on before is over
			}
			time.Sleep(time.Minute)
			if each := grown(3000, ask); each > 200 {
				t.Errorf("a name with %q costs %d bytes for good", kind, each)
			}
			runtime.KeepAlive(r)
		})
	}
}

// TestMadeUpNamesKeepTokensInUse fills the cache of tokens with those of names that a client makes up: the token of a
// repository in use stays.
func TestMadeUpNamesKeepTokensInUse(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" && strings.Contains(r.URL.Query().Get("scope"), ":app:") {
			asked.Add(1)
		}
		strange(w, r)
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		ask := func(repo string) { _, _ = r.Resolve(t.Context(), repo, "1") }
		ask("app")
		upstream.FillTokens(r)
		for i := range 3000 { // more than go at once
			time.Sleep(10 * time.Millisecond)
			ask(fmt.Sprint("yes", i))
			if i%100 == 0 {
				ask("app")
			}
			if n := upstream.TokensHeld(r); n > upstream.MaxTokens {
				t.Fatalf("%d tokens are kept", n)
			}
		}
		ask("app")
		if n := asked.Load(); n != 1 {
			t.Errorf("its token was asked for %d times, want once", n)
		}
	})
}
