package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/point"
)

// reloader is what takes a configuration while it runs.
type reloader interface {
	Reload(c *config.Config) error
	NotReloaded(err error)
}

// A change is taken up once the files have been the same for half a second, on SIGHUP and when a reload is asked for at
// once; half a file is taken up in no case (see config.Text).
//
// reload has a take the configuration again when the file changes, or one of those that it names, and on SIGHUP. c is
// the configuration in use. It ends with the context.
//
// Whatever is read is watched before, so that no change falls between: where the file names others than those that are
// watched, the watch begins anew with them, and the file is read again. One whose reload was refused is watched too,
// since it may be what is to be mended. A caller that asks by way of asks is told how it went.
func reload(
	ctx context.Context, a reloader, file string, c *config.Config, text config.Text, log *slog.Logger, asks <-chan chan<- reloaded,
) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	names, first := c.Files(), c
	var reply chan<- reloaded // of a caller that asked; nil: none did
	for asked := false; ; asked = true {
		var how reloaded
		next, now, changed, stop, err := watched(ctx, file, names, log)
		same := err == nil && reflect.DeepEqual(next, c)
		if err == nil && !same {
			err = now.Whole(file, text)
		}
		switch {
		case err != nil:
			how.err = err
			text = text.SeenAt(now)
			a.NotReloaded(err)
		case asked || !same:
			names = next.Files()
			point.Hit("serve/reload")
			if how.err = a.Reload(next); how.err == nil {
				how.changed = config.Changed(c, next)
				c, text = next, now
			} else {
				text = text.SeenAt(now)
			}
			point.Hit("serve/reloaded")
		}
		if reply != nil {
			how.restart = config.Diff(first, c)
			how.changed = slices.DeleteFunc(how.changed, func(path string) bool { return waits(path, how.restart) })
			reply <- how // it has room
			reply = nil
		}
		select {
		case <-ctx.Done():
			stop()
			return
		case <-hup:
		case reply = <-asks:
		case <-changed:
		}
		stop()
	}
}

// reloaded is how a reload ended that was asked for.
type reloaded struct {
	changed, restart []string
	err              error // why the old configuration stays
}

// waits reports whether the change of a setting needs a restart: "tls" stands for its keys.
func waits(path string, restart []string) bool {
	return slices.ContainsFunc(restart, func(r string) bool { return path == r || strings.HasPrefix(path, r+".") })
}

// asker gives the admin listener a way to ask reload, which reads from asks.
func asker(asks chan<- chan<- reloaded) func(context.Context) (admin.Reloaded, error) {
	return func(ctx context.Context) (admin.Reloaded, error) {
		reply := make(chan reloaded, 1)
		select {
		case asks <- reply:
		case <-ctx.Done():
			return admin.Reloaded{}, errors.New("the mirror is busy with another reload, or it stops")
		}
		select {
		case how := <-reply:
			return how.told()
		case <-ctx.Done():
			return admin.Reloaded{}, errors.New("it takes too long")
		}
	}
}

func (r reloaded) told() (admin.Reloaded, error) {
	if r.err == nil {
		return admin.Reloaded{Changed: r.changed, Restart: r.restart}, nil
	}
	refused := &admin.NotReloaded{}
	if invalid, ok := errors.AsType[*config.Invalid](r.err); ok {
		for _, p := range invalid.Problems {
			refused.Problems = append(refused.Problems, p.String())
		}
	} else {
		refused.Problems = []string{r.err.Error()}
	}
	return admin.Reloaded{}, refused
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
		next, err := text.Parse(file, os.Environ())
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
