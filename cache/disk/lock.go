package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/internal/point"
)

// LockedError says that another process has the folder. But for Dir it is the content of the lock file.
type LockedError struct {
	Dir   string    `json:"-"`
	PID   int       `json:"pid"`   // of that process; 0: unknown
	Host  string    `json:"host"`  // it runs on; empty: unknown
	Since time.Time `json:"since"` // when it took the folder; zero: unknown
}

func (e *LockedError) Error() string {
	return e.InUse() + "; stop that one, or give this one a cache.dir of its own"
}

// InUse says which process has which folder, without what to do.
func (e *LockedError) InUse() string {
	by := "another mirror"
	if e.PID != 0 {
		by = fmt.Sprintf("another mirror: process %d on %s, since %s", e.PID, e.Host, e.Since.Format(time.RFC3339))
	}
	return fmt.Sprintf("cache folder %s is in use by %s", e.Dir, by)
}

// lockPoll is how often a waiting process tries again.
const lockPoll = 50 * time.Millisecond

// lock locks the folder for this process, after waiting for another one that has it. The lock ends when the file is closed.
func (f *folder) lock(wait time.Duration, stop <-chan struct{}) (*os.File, error) {
	file, err := f.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.waitForLock(file, wait, stop); err != nil {
		_ = file.Close()
		return nil, err
	}
	point.Hit("disk/locked")
	if err := signLock(file); err != nil {
		// The holder's name is only for people: a full disk must not keep the mirror from serving.
		f.report(slog.LevelWarn, "lock file can't be written", "error", err)
	}
	return file, nil
}

func (f *folder) waitForLock(file *os.File, wait time.Duration, stop <-chan struct{}) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	deadline := time.After(max(0, wait))
	for reported := false; ; reported = true {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock: %w", err)
		}
		locked := lockedBy(f.path, file)
		if wait < 0 {
			return locked
		}
		if !reported {
			f.report(slog.LevelWarn, "cache folder is in use by another mirror; waiting until that one stops",
				"pid", locked.PID, "host", locked.Host, "wait", wait)
		}
		select {
		case <-tick.C:
		case <-stop:
			return locked
		case <-deadline:
			return locked
		}
	}
}

// signLock writes into the lock file which process has it, for others to read.
func signLock(file *os.File) error {
	host, _ := os.Hostname() // only for people
	b, err := json.Marshal(LockedError{PID: os.Getpid(), Host: host, Since: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err = file.WriteAt(append(b, '\n'), 0)
	return err
}

// lockedBy names the process that has the folder, as far as it is known.
func lockedBy(dir string, file *os.File) *LockedError {
	var e LockedError
	b, err := io.ReadAll(io.NewSectionReader(file, 0, 4096))
	if err != nil || json.Unmarshal(b, &e) != nil {
		e = LockedError{}
	}
	e.Dir = dir
	return &e
}
