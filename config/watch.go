package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/internal/strictyaml"
)

const (
	quietTime    = 200 * time.Millisecond // after the last event: an editor, or a Secret, changes files in several steps
	steadyTime   = 500 * time.Millisecond // without a change of the content: a copy may pause
	pollInterval = 30 * time.Second
)

// Watch sends when the content of the file at path, or of one of the others, has changed. Changes that come together are
// one; they are sent once the content has been the same for half a second. It watches the folders of the files, since
// editors and mounted ConfigMaps put a new file, or a new link, in the place of the old one, and it compares the content
// every 30 s, for file systems that report no changes, links that lead elsewhere and folders that are missing. A file that
// does not exist yet is watched for; a file that is not regular is not watched. Either argument may be empty.
//
// The content is compared with that at the time of the call: call it before the files are read, so that no change falls
// between. It ends with the context. The channel is never closed.
func Watch(ctx context.Context, path string, others []string, log *slog.Logger) <-chan struct{} {
	w := newWatch(path, others)
	if len(w.files) == 0 {
		return w.changed
	}
	events, err := w.subscribe()
	if err != nil {
		log.WarnContext(ctx, "cannot watch the configuration for changes; it is compared at an interval instead",
			"interval", pollInterval, "error", err)
		go w.run(ctx, nil, nil)
		return w.changed
	}
	go func() {
		defer events.Close()
		w.run(ctx, events.Events, events.Errors)
	}()
	return w.changed
}

// watch compares the content of files with what it was before.
type watch struct {
	files   []string
	last    [sha256.Size]byte // the content when changed was last sent on, or at the start
	seen    [sha256.Size]byte // the content at the last look
	changed chan struct{}     // holds one: a second change before it is received needs no second notice
}

func newWatch(path string, others []string) *watch {
	files := slices.DeleteFunc(append([]string{path}, others...), func(f string) bool { return f == "" })
	w := &watch{files: files, changed: make(chan struct{}, 1)}
	w.last = w.sum()
	w.seen = w.last
	return w
}

// subscribe asks for the events of the folders.
func (w *watch) subscribe() (*fsnotify.Watcher, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	for _, f := range w.files {
		info, err := os.Stat(f)
		missing := errors.Is(err, fs.ErrNotExist) // not there yet, or just being replaced by an editor
		if !missing && (err != nil || !info.Mode().IsRegular()) {
			continue
		}
		err = events.Add(filepath.Dir(f)) // adding a folder twice is not an error
		if err != nil && (!missing || !errors.Is(err, fs.ErrNotExist)) {
			_ = events.Close()
			return nil, err
		}
	}
	return events, nil
}

// run looks quietTime after the last event, and every pollInterval. It ends with the context.
func (w *watch) run(ctx context.Context, happened <-chan fsnotify.Event, lost <-chan error) {
	quiet := time.NewTimer(quietTime)
	quiet.Stop()
	defer quiet.Stop()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-happened:
			quiet.Reset(quietTime)
		case <-lost: //nolint:errcheck // the queue overflowed, so there were events
			quiet.Reset(quietTime)
		case <-quiet.C:
			if !w.look() {
				quiet.Reset(steadyTime)
			}
		case <-poll.C:
			if !w.look() {
				quiet.Reset(steadyTime)
			}
		}
	}
}

// look sends if the content has changed and is the same as at the last look. It returns false where another look is needed.
func (w *watch) look() bool {
	sum := w.sum()
	if sum != w.seen {
		w.seen = sum
		return sum == w.last
	}
	if sum == w.last {
		return true
	}
	w.last = sum
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return true
}

// sum is a hash over all files: the name, whether it can be read, and the content.
func (w *watch) sum() (sum [sha256.Size]byte) {
	all := sha256.New()
	for _, f := range w.files {
		one := sha256.New()
		err := hashFile(one, f)
		_, _ = io.WriteString(all, f+"\x00")
		if err == nil {
			all.Write(one.Sum(nil))
		}
	}
	all.Sum(sum[:0])
	return sum
}

// hashFile adds the content of a file. It never opens a pipe or device, where reading takes data away.
func hashFile(to io.Writer, path string) error {
	f, err := regular.Open(path)
	if regular.Unfit(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, io.LimitReader(f, strictyaml.MaxSize+1))
	return err
}
