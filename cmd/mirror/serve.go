package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/logging"
	"github.com/registrymirror/mirror/internal/point"
)

func newServeCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:        "serve",
		SuggestFor: []string{"run", "start", "up", "proxy", "daemon"},
		Short:      "Run the mirror",
		Long: `Run the mirror until SIGINT or SIGTERM. After the signal, running pulls are served to
their end, for at most the time of the setting drain; new ones are refused. A second
signal stops the mirror at once.

Without --config the mirror serves the well-known registries anonymously on
127.0.0.1:5000, has its admin listener on 127.0.0.1:5001 and its data in ./mirror-data.
With --config the file is read again when it changes, on SIGHUP and by mirror reload.

Every setting of the file except upstreams, rules and clients can also be set by an
environment variable: MIRROR_LISTEN sets listen, MIRROR_CACHE_DIR sets cache.dir.
mirror config print shows the result.

Exit codes: 0 stopped by a signal; 1 could not start (an invalid configuration or a port
in use, for example); 2 wrong usage; 3 another mirror uses the data folder.`,
		Example: `  mirror serve
  mirror serve --config /etc/mirror/config.yaml
  MIRROR_LISTEN=0.0.0.0:5000 mirror serve`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), cmd.ErrOrStderr(), file) },
	}
	addConfig(cmd, &file, "(YAML)")
	return cmd
}

func serve(ctx context.Context, stderr io.Writer, file string) error {
	check := "mirror config check"
	if file != "" {
		check += " --config " + file
	}
	c, text, err := loadConfig(stderr, file, "start again ("+check+" checks without starting)")
	if err != nil {
		return err
	}
	// Report several wrong files at once: New would stop at the first. The mirror starts without a password.
	needed := slices.DeleteFunc(c.Named(), func(n config.Named) bool { return !n.Watched })
	if wrong, _ := checkFiles(needed); len(wrong) > 1 {
		return printFiles(stderr, file, text, wrong, "start again")
	}
	log, level := logging.New(stderr, c.Log.Format, c.Log.Level)
	limitMemory(ctx, "/", log)
	// Counted from here on: a second signal may follow the first at once.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	// New may wait a minute for the folder: without a handler, SIGHUP ends the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	requests := make(chan chan<- reloaded)
	shown := file
	if abs, err := filepath.Abs(file); err == nil && file != "" {
		shown = abs
	}
	a, err := app.New(ctx, app.Options{
		Config: c, Version: versionText(), Log: log, Level: level, File: shown, Reload: requester(requests),
	})
	var locked *disk.LockedError
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return &exitError{exitOK, nil} // stopped while it waited for the folder
	case errors.As(err, &locked):
		return &exitError{exitLocked, err}
	default:
		return &exitError{exitFailed, err}
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		reload(ctx, a, file, c, text, log, hup, requests)
	}()
	stopped := make(chan struct{})
	go stopNow(signals, stopped, a)
	err = a.Run(ctx)
	close(stopped)
	point.Hit("serve/stopped")
	stop()
	if !ended(done) {
		log.Warn("a reload does not end; the mirror stops without it: a file that the configuration names may be on a mount that does not answer",
			"took", reloadEnd)
	}
	if err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// reloadEnd is how long a stop waits for a reload. The kernel does not give up a read of a mount whose server is gone.
const reloadEnd = 2 * time.Second

// ended reports whether a reload ends in time.
func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(reloadEnd):
		return false
	}
}

// stopNow stops the mirror without waiting for pulls at the second of the signals. The first ended the context.
func stopNow(signals <-chan os.Signal, stopped <-chan struct{}, a *app.App) {
	for range 2 {
		select {
		case <-signals:
		case <-stopped:
			return
		}
	}
	a.StopNow()
}
