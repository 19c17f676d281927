package config

// Inside the package: tables that are not exported, and a watch whose events are made by hand.

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

func TestNoVariableSetsTwoPaths(t *testing.T) {
	t.Parallel()
	names := map[string]string{}
	for _, path := range Paths() {
		if strings.Contains(path, "*") {
			continue
		}
		plain := "MIRROR_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
		for _, name := range []string{schema.Variable(path), plain} {
			if other, taken := names[name]; taken && other != path {
				t.Errorf("%s sets both %s and %s", name, other, path)
			}
			names[name] = path
			if slices.Contains(commandVariables, name) && path != "admin" {
				t.Errorf("%s sets %s, and is the command line's", name, path)
			}
			if serviceLinks.MatchString(name) {
				t.Errorf("%s sets %s, and is what a kubelet sets for a Service", name, path)
			}
		}
	}
}

func TestWellKnownIsValid(t *testing.T) {
	t.Parallel()
	if found := Default().Check(); len(found) > 0 {
		t.Error(found)
	}
}

func watched(t *testing.T) (*watch, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, "one")
	return newWatch(path, nil), path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// after runs the clock of the bubble until the watch sends, at most two minutes, and returns how long that took.
func after(w *watch) (time.Duration, bool) {
	start := time.Now()
	select {
	case <-w.changed:
		return time.Since(start), true
	case <-time.After(2 * time.Minute):
		return 0, false
	}
}

func TestWatchLooksWithoutEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, path := watched(t) // in the bubble, for its channel's sake
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.run(ctx, nil, nil)
		if took, ok := after(w); ok {
			t.Fatalf("sent after %s, and nothing changed", took)
		}
		<-time.After(time.Second) // away from when it looks
		for _, text := range []string{"two", ""} {
			write(t, path, text)
			if took, ok := after(w); !ok || took > pollInterval+steadyTime {
				t.Errorf("%q: sent %v, after %s", text, ok, took)
			}
		}
		if took, ok := after(w); ok {
			t.Errorf("sent again after %s", took)
		}
	})
}

func TestWatchWaitsForQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, path := watched(t) // in the bubble, for its channel's sake
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		happened, lost := make(chan fsnotify.Event), make(chan error)
		go w.run(ctx, happened, lost)

		happened <- fsnotify.Event{} // of another file in the folder
		if took, ok := after(w); ok {
			t.Fatalf("sent after %s, and no content changed", took)
		}
		<-time.After(time.Second) // away from when it looks by itself
		for _, text := range []string{"", "half of i", "all of it"} {
			write(t, path, text)
			happened <- fsnotify.Event{}
			<-time.After(quietTime / 2)
		}
		if took, ok := after(w); !ok || took != quietTime/2+steadyTime {
			t.Errorf("sent %v, %s after the last step", ok, took+quietTime/2)
		}
		if took, ok := after(w); ok {
			t.Errorf("sent again after %s", took)
		}
		write(t, path, "while the queue overflowed")
		lost <- fsnotify.ErrEventOverflow
		if took, ok := after(w); !ok || took != quietTime+steadyTime {
			t.Errorf("an overflow: sent %v, after %s", ok, took)
		}
	})
}

// Opening a pipe would block until another process writes, and reading it would take away what is for the mirror.
func TestWatchLeavesPipesAlone(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "config.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		newWatch(pipe, nil).look()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for a writer")
	}
}
