package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/testlog"
)

// The agent takes over a file of --authorization-file that is replaced, for its questions and for the node's files. Where it is gone, the
// last value stays, which is said once.
func TestNodeRunReadsItsLoginAgain(t *testing.T) {
	t.Parallel()
	shown := make(chan string) // the login of each question, whose answer waits for the test
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			_, _ = w.Write([]byte("ready"))
			return
		}
		select {
		case shown <- r.Header.Get("Authorization"):
		case <-r.Context().Done():
		}
		_, _ = w.Write([]byte(`{"identity":"ci"}`))
	}))
	t.Cleanup(mirror.Close)
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "authorization")
	replace := func(value string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replace("Bearer first\n")
	ctx, cancel := context.WithCancel(t.Context())
	log, done := new(testlog.Log), make(chan int, 1)
	go func() {
		done <- run(ctx, log, log, "node", "run", "--mirror", mirror.URL, "--registry", "ghcr.io", "--dir", dir, "--every", "1s", "--listen", "",
			"--authorization-file", file, "--log-format", "text")
	}()
	// A file that is replaced after the login was read is in the next question, and in the files at the one after that.
	next := func(want string) {
		t.Helper()
		for range 2 {
			<-shown
		}
		if got := <-shown; got != want {
			t.Errorf("the mirror was shown %q, want %q", got, want)
		}
		b, err := os.ReadFile(filepath.Join(dir, "ghcr.io", "hosts.toml"))
		if err != nil || !strings.Contains(string(b), `Authorization = "`+want+`"`) {
			t.Errorf("want %s: %v\n%s", want, err, b)
		}
	}
	next("Bearer first")
	replace("Bearer second\n")
	next("Bearer second")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	next("Bearer second")
	if got := strings.Count(log.String(), "cannot read the login of this node"); got != 1 {
		t.Errorf("it is logged %d times:\n%s", got, log)
	}
	replace("Bearer third\n")
	next("Bearer third")
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d:\n%s", code, log)
	}
}
