package node

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// tended is a node with an agent, and a mirror that answers or does not.
type tended struct {
	*Agent
	dir    string
	up     atomic.Bool
	asked  atomic.Int64
	states []State
	stop   func() error
}

func tend(t *testing.T, dir string, change func(*AgentOptions)) *tended {
	t.Helper()
	out, err := Containerd(options(), dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &tended{dir: dir}
	o := AgentOptions{
		Dir: dir, Files: out.Files,
		Ready: func(context.Context) error {
			n.asked.Add(1)
			if !n.up.Load() {
				return errors.New("connection refused")
			}
			return nil
		},
		Changed: func(_ context.Context, s State, _ string) { n.states = append(n.states, s) },
	}
	if change != nil {
		change(&o)
	}
	n.Agent = NewAgent(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = func() error {
		cancel()
		return <-done
	}
	return n
}

func (n *tended) configured() bool {
	_, err := os.Stat(filepath.Join(n.dir, "ghcr.io", "hosts.toml"))
	return err == nil
}

// The configuration is there while the mirror answers, and at no other time.
func TestAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, "ghcr.io/hosts.toml", "# by hand\n")
	isOurs := func() bool { return strings.HasPrefix(tree(t, dir)["ghcr.io/hosts.toml"], Mark) }
	synctest.Test(t, func(t *testing.T) {
		n := tend(t, dir, nil)
		time.Sleep(10 * time.Minute)
		if isOurs() {
			t.Error("it was written before the mirror has answered")
		}
		n.up.Store(true)
		time.Sleep(time.Minute)
		if !isOurs() || n.State() != Configured {
			t.Errorf("the mirror answers: %s", n.State())
		}
		asked := n.asked.Load()
		time.Sleep(10 * time.Minute)
		if got := n.asked.Load() - asked; got < 18 || got > 22 {
			t.Errorf("asked %d times in 10 minutes, not each 30 s", got)
		}

		n.up.Store(false)
		time.Sleep(50 * time.Second) // 30 s and two times 5 s, a tenth more at most
		if isOurs() || n.State() != Withdrawn {
			t.Errorf("the mirror does not answer: %s", n.State())
		}
		n.up.Store(true)
		time.Sleep(40 * time.Second)
		if !isOurs() {
			t.Error("it answers again, and was not put back")
		}
		n.up.Store(false) // one question without an answer is not enough
		asked = n.asked.Load()
		for n.asked.Load() == asked {
			time.Sleep(time.Second)
		}
		n.up.Store(true)
		time.Sleep(time.Minute)
		if !isOurs() {
			t.Error("withdrawn after one failure")
		}
		if err := n.stop(); err != nil {
			t.Error(err)
		}
		if got := tree(t, dir)["ghcr.io/hosts.toml"]; got != "# by hand\n" {
			t.Errorf("after the stop: %q", got)
		}
		if want := []State{Withdrawn, Configured, Withdrawn, Configured}; !slices.Equal(n.states, want) {
			t.Errorf("states %v, not %v", n.states, want)
		}
	})
}

func TestAgentOfANodeWithNowhereElseToGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := tend(t, dir, func(o *AgentOptions) { o.Fixed, o.Keep = true, true })
		time.Sleep(time.Minute)
		if n.configured() {
			t.Error("it was written before the mirror has answered")
		}
		n.up.Store(true)
		time.Sleep(time.Minute)
		n.up.Store(false)
		time.Sleep(time.Hour)
		if !n.configured() {
			t.Error("it was withdrawn")
		}
		if err := n.stop(); err != nil || !n.configured() {
			t.Errorf("after the stop: %v", err)
		}
	})
}

// What is missing is written again; what another program has written since stays.
func TestAgentRepairs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := tend(t, dir, nil)
		n.up.Store(true)
		time.Sleep(time.Minute)
		if err := os.RemoveAll(filepath.Join(dir, "ghcr.io")); err != nil {
			t.Fatal(err)
		}
		put(t, dir, "docker.io/hosts.toml", "# another tool\n")
		time.Sleep(time.Minute)
		if got := tree(t, dir); !n.configured() || got["docker.io/hosts.toml"] != "# another tool\n" {
			t.Errorf("%q", got)
		}
		if err := n.stop(); err != nil {
			t.Error(err)
		}
		if got := tree(t, dir); got["docker.io/hosts.toml"] != "# another tool\n" || n.configured() {
			t.Errorf("after the stop: %q", got)
		}
	})
}

func TestAsk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		says   string
	}{
		{"ready", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ready")) }, ""},
		{"stopping", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte("stopping"))
		}, "the mirror is stopping"},
		{"a web page", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>ready")) }, "another program"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, "another program"},
		{"a hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "ask the mirror"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(tt.answer)
			defer s.Close()
			err := Question{Mirror: s.URL}.Ready(t.Context())
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Error(err)
			}
		})
	}
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ready")) }))
	defer secure.Close()
	if err := (Question{Mirror: secure.URL}).Ready(t.Context()); err == nil {
		t.Error("an unknown certificate is trusted")
	}
	if err := (Question{Mirror: "http://127.0.0.1:1"}).Ready(t.Context()); err == nil {
		t.Error("nothing listens there")
	}
}
