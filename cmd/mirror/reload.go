package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/point"
)

// reloader takes a new configuration while it runs.
type reloader interface {
	Reload(c *config.Config) error
	NotReloaded(err error)
}

// reload gives a the configuration again when the file or a file that it names has changed, on a signal in hup, and when a
// request comes in by requests, which is answered. c is the configuration in use. It ends with the context.
//
// A change is used once the files have been the same for half a second; on a signal or a request, at once. Half a file is
// never used (see config.Text).
//
// A file is watched before it is read, so that no change is missed: where the configuration names files that are not
// watched yet, the watch begins anew with them, and the configuration is read again. The files of a refused configuration
// are watched too, since one of them may be the one to correct.
func reload(
	ctx context.Context, a reloader, file string, c *config.Config, text config.Text, log *slog.Logger, hup <-chan os.Signal,
	requests <-chan chan<- reloaded,
) {
	names, first := c.Files(), c
	var reply chan<- reloaded // of the request that is being done; nil: there is none
	for again := false; ; again = true {
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
		case again || !same:
			names = next.Files()
			point.Hit("serve/reload")
			if how.err = a.Reload(next); how.err == nil {
				how.Changed, how.Removed = config.Changed(c, next), config.Removed(c, next)
				c, text = next, now
			} else {
				text = text.SeenAt(now)
			}
			point.Hit("serve/reloaded")
		}
		if reply != nil {
			how.Restart = config.Diff(first, c)
			how.Changed = slices.DeleteFunc(how.Changed, func(path string) bool {
				return needsRestart(path, how.Restart) || slices.Contains(how.Removed, path)
			})
			reply <- how // it has room
			reply = nil
		}
		select {
		case <-ctx.Done():
			stop()
			return
		case <-hup:
		case reply = <-requests:
		case <-changed:
		}
		stop()
	}
}

// reloaded is the result of a reload.
type reloaded struct {
	admin.Reloaded
	err error // why the old configuration stays
}

// needsRestart reports whether the change of a setting needs a restart: "tls" stands for its keys.
func needsRestart(path string, restart []string) bool {
	return slices.ContainsFunc(restart, func(r string) bool { return path == r || strings.HasPrefix(path, r+".") })
}

// requester returns a function with which the admin listener requests a reload, which reads from requests.
func requester(requests chan<- chan<- reloaded) func(context.Context) (admin.Reloaded, error) {
	return func(ctx context.Context) (admin.Reloaded, error) {
		reply := make(chan reloaded, 1)
		select {
		case requests <- reply:
		case <-ctx.Done():
			return admin.Reloaded{}, errors.New("the mirror is busy with another reload, or is stopping")
		}
		select {
		case how := <-reply:
			return how.Reloaded, refused(how.err)
		case <-ctx.Done():
			return admin.Reloaded{}, errors.New("it takes too long")
		}
	}
}

// refused is the error of a reload as the admin listener answers with it.
func refused(err error) error {
	invalid, ok := errors.AsType[*config.Invalid](err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return &admin.NotReloaded{Problems: []string{err.Error()}}
	}
	var problems []string
	for _, p := range invalid.Problems {
		problems = append(problems, p.String())
	}
	return &admin.NotReloaded{Problems: problems}
}

// watched returns the configuration, and a watch over the file and the files that it names, which began before they were
// read. names are the files to begin with; they stay watched, also where the configuration can't be read.
func watched(ctx context.Context, file string, names []string, log *slog.Logger) (
	next *config.Config, text config.Text, changed <-chan struct{}, stop context.CancelFunc, err error,
) {
	for {
		watch, stop := context.WithCancel(ctx)
		changed := config.Watch(watch, file, names, log)
		text, err := config.Read(file)
		if err == nil {
			next, err = text.Parse(file, os.Environ())
		}
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
