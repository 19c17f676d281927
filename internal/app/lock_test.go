package app_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/testlog"
)

// ownAddress is an address of loopback for this test alone. Its ports below those that the kernel hands out stay free.
func ownAddress() string {
	id := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+id>>16&63, id>>8&255, id&255)
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
	ports := []string{ownAddress() + ":5000", ownAddress() + ":5001", ownAddress() + ":5002"}
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
