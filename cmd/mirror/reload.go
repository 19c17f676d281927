package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"syscall"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/point"
)

// reloader is what takes a configuration while it runs.
type reloader interface {
	Reload(c *config.Config) error
	NotReloaded(err error)
}

// A change is taken up once the files have been the same for half a second, on SIGHUP at once; half a file is taken up
// in neither case (see config.Text).
//
// reload has a take the configuration again when the file changes, or one of those that it names, and on SIGHUP. c is
// the configuration in use. It ends with the context.
//
// Whatever is read is watched before, so that no change falls between: where the file names others than those that are
// watched, the watch begins anew with them, and the file is read again. One whose reload was refused is watched too,
// since it may be what is to be mended.
func reload(ctx context.Context, a reloader, file string, c *config.Config, text config.Text, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	names := c.Files()
	for asked := false; ; asked = true {
		next, now, changed, stop, err := watched(ctx, file, names, log)
		same := err == nil && reflect.DeepEqual(next, c)
		if err == nil && !same {
			err = now.Whole(file, text)
		}
		switch {
		case err != nil:
			a.NotReloaded(err)
		case asked || !same:
			names = next.Files()
			point.Hit("serve/reload")
			if a.Reload(next) == nil {
				c, text = next, now
			}
			point.Hit("serve/reloaded")
		}
		select {
		case <-ctx.Done():
			stop()
			return
		case <-hup:
		case <-changed:
		}
		stop()
	}
}

// watched returns the configuration, and a watch over the file and all that it names which began before they are read.
// names are those to begin with; they stay watched, the more so where the file can't be read.
func watched(ctx context.Context, file string, names []string, log *slog.Logger) (
	next *config.Config, text config.Text, changed <-chan struct{}, stop context.CancelFunc, err error,
) {
	for {
		watch, stop := context.WithCancel(ctx)
		changed := config.Watch(watch, file, names, log)
		text, err := config.Read(file)
		if err != nil {
			return nil, text, changed, stop, err
		}
		next, err := config.Parse(file, text.Data, os.Environ())
		if err != nil {
			return nil, text, changed, stop, err
		}
		more := slices.DeleteFunc(next.Files(), func(f string) bool { return slices.Contains(names, f) })
		if len(more) == 0 {
			return next, text, changed, stop, nil
		}
		stop()
		names = slices.Concat(names, more)
	}
}
