package app_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/testlog"
)

// freePort is a port of loopback that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// While another mirror has the folder, nothing listens: a node whose connection is taken and never answered hangs, one
// that is refused goes on. The log names the process that has it at once. A port that is taken is told at once, too.
func TestPortsAreClosedWhileAnotherMirrorHasTheFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	holder, err := disk.Open(filepath.Join(dir, "data"), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ports := []string{freePort(t), freePort(t), freePort(t)}
	parsed := func(main string) *config.Config {
		c := parse(t, dir, "  ghcr.io: {}\n")
		c.Listen, c.Admin.Listen, c.Metrics.Listen = main, ports[1], ports[2]
		return c
	}
	log := &testlog.Log{}
	logger := slog.New(slog.NewTextHandler(log, nil))

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = app.New(t.Context(), app.Options{Config: parsed(taken.Addr().String()), Log: logger})
	if !errors.Is(err, syscall.EADDRINUSE) || strings.Contains(log.String(), "another mirror; waiting") {
		t.Errorf("a port that is taken: %v\n%s", err, log)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type started struct {
		app *app.App
		err error
	}
	done := make(chan started, 1)
	go func() {
		a, err := app.New(ctx, app.Options{Config: parsed(ports[0]), Log: logger})
		done <- started{a, err}
	}()
	logged(t, log, "in use by another mirror; waiting until that one stops")
	if text := log.String(); !strings.Contains(text, "pid=") || strings.Contains(text, "pid=0") {
		t.Errorf("the holder is not named:\n%s", text)
	}
	for _, p := range ports {
		if conn, err := net.Dial("tcp", p); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", p, err)
			if err == nil {
				_ = conn.Close()
			}
		}
	}
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	conn, err := net.Dial("tcp", ports[0])
	if err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
	ended, end := context.WithCancel(context.Background())
	end()
	if err := got.app.Run(ended); err != nil {
		t.Error(err)
	}
}
