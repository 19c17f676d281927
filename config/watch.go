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
)

const (
	settle   = 200 * time.Millisecond // from the last event: an editor, or a Secret, changes files in several steps
	steady   = 500 * time.Millisecond // in which the files have to stay as they are: a copy may pause
	pollTime = 30 * time.Second
)

// Watch sends when the content of the file at path, or of one of the others, is not what it was. It watches their
// folders, since editors and mounted ConfigMaps put a new file, or a new link, in the place of the old one; and it
// looks by itself every 30 s, where a file system tells nothing, a link leads elsewhere or a folder is missing. Changes
// that come together are one, and what has changed is told of once it has been the same for half a second. What is not
// there yet is watched for, what is not a regular file is not. Either argument
// may be empty.
//
// What was is what the files hold when Watch is called: call it before they are read, so that no change falls between.
// It ends with the context. The channel is never closed.
func Watch(ctx context.Context, path string, others []string, log *slog.Logger) <-chan struct{} {
	w := newWatch(path, others)
	if len(w.files) == 0 {
		return w.changed
	}
	events, err := w.subscribe()
	if err != nil {
		log.WarnContext(ctx, "changes of the configuration are not noticed at once, only by looking now and then",
			"every", pollTime, "err", err)
		go w.run(ctx, nil, nil)
		return w.changed
	}
	go func() {
		defer events.Close()
		w.run(ctx, events.Events, events.Errors)
	}()
	return w.changed
}

// watch compares the content of files with what it was.
type watch struct {
	files   []string
	last    [sha256.Size]byte // that was told of
	seen    [sha256.Size]byte // at the last look
	changed chan struct{}     // holds one: a second change before it is read needs no second notice
}

func newWatch(path string, others []string) *watch {
	w := &watch{changed: make(chan struct{}, 1)}
	for _, f := range append([]string{path}, others...) {
		if f != "" && !slices.Contains(w.files, f) {
			w.files = append(w.files, f)
		}
	}
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
		missing := errors.Is(err, fs.ErrNotExist) // not yet, or while an editor is about to put another in its place
		if !missing && (err != nil || !info.Mode().IsRegular()) {
			continue
		}
		err = events.Add(filepath.Dir(f)) // a folder that is there already is not an error
		if err != nil && (!missing || !errors.Is(err, fs.ErrNotExist)) {
			_ = events.Close()
			return nil, err
		}
	}
	return events, nil
}

// run looks when nothing has happened for a moment after something has, and every pollTime. It ends with the context.
func (w *watch) run(ctx context.Context, happened <-chan fsnotify.Event, lost <-chan error) {
	quiet := time.NewTimer(settle)
	quiet.Stop()
	defer quiet.Stop()
	poll := time.NewTicker(pollTime)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-happened:
			quiet.Reset(settle)
		case <-lost: //nolint:errcheck // the queue overflowed: something happened
			quiet.Reset(settle)
		case <-quiet.C:
			if !w.look() {
				quiet.Reset(steady)
			}
		case <-poll.C:
			if !w.look() {
				quiet.Reset(steady)
			}
		}
	}
}

// look tells of a change that was there at the last look, too; false: another look is needed.
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

// sum is a hash over all files: name, whether it can be read, content.
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

// hashFile adds what the file holds. It never opens a pipe or device, where reading takes something away.
func hashFile(to io.Writer, path string) error {
	if !isRegular(path) {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, io.LimitReader(f, maxFile+1))
	return err
}

func isRegular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
