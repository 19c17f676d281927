package docker

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long after an event the files are looked at: they are written in several steps.
const quiet = 100 * time.Millisecond

// Run looks at the files when they change, and every 10 s in any case, and keeps the helpers' logins fresh, until the context
// ends.
func (c *Config) Run(ctx context.Context) error {
	// First, so that no change falls between the look and the watch.
	var events <-chan fsnotify.Event // nil: no news
	var lost <-chan error
	w, err := c.subscribe()
	if err != nil {
		c.o.Log.WarnContext(ctx, "cannot watch a docker config; it is read every 10s instead", "credential", c.o.Name, "path", c.o.Path,
			"error", err)
	} else {
		events, lost = w.Events, w.Errors
		defer w.Close()
	}
	c.mu.Lock()
	c.ctx = ctx
	for _, h := range c.helpers {
		c.run(h)
	}
	c.look(true)
	c.warm()
	c.mu.Unlock()

	timer := time.NewTimer(pollEvery)
	defer timer.Stop()
	for soon := false; ; {
		select {
		case <-events:
			if !soon {
				soon = true
				timer.Reset(quiet)
			}
		case err := <-lost: // the look every 10 s makes up for it
			c.o.Log.DebugContext(ctx, "events of a docker config were lost", "credential", c.o.Name, "error", err)
		case <-timer.C:
			soon = false
			c.mu.Lock()
			c.look(true)
			c.warm()
			c.mu.Unlock()
			timer.Reset(pollEvery)
		case <-ctx.Done():
			c.mu.Lock()
			c.ctx = nil
			c.mu.Unlock()
			c.wg.Wait()
			return nil
		}
	}
}

// warm makes the helper that the content names, so that its first answer is there before the first pull. The lock is
// held.
func (c *files) warm() {
	if !c.changed.IsZero() {
		_, _ = c.find("") // its error is in the state
	}
}

// subscribe watches the folder: of a mounted secret the files themselves never change, a link beside them does.
func (c *files) subscribe() (*fsnotify.Watcher, error) {
	dir := c.o.Path
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := w.Add(dir); err != nil {
		_ = w.Close()
		return nil, err
	}
	return w, nil
}
