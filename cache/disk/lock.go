package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/internal/point"
)

// LockedError says that another process has the folder.
type LockedError struct {
	Dir   string
	PID   int       // 0: it didn't say
	Host  string    // empty: it didn't say
	Since time.Time // when it took the folder; zero: it didn't say
}

func (e *LockedError) Error() string {
	who := "another mirror"
	if e.PID != 0 {
		who = fmt.Sprintf("another mirror: process %d on %s, since %s", e.PID, e.Host, e.Since.Format(time.RFC3339))
	}
	return fmt.Sprintf("cache folder %s is in use by %s; stop that one, or give this one a cache.dir of its own",
		e.Dir, who)
}

// holder is what the lock file says.
type holder struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
}

// lockPoll is how often a waiting process tries again.
const lockPoll = 50 * time.Millisecond

// takeLock makes the folder ours, waiting for who has it.
func (s *Store) takeLock() (err error) {
	if s.lock, err = s.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	deadline := time.After(max(0, s.o.Wait))
	for told := false; ; told = true {
		err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			point.Hit("disk/locked")
			return s.signLock()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock: %w", err)
		}
		locked := s.lockedBy()
		if s.o.Wait < 0 {
			return locked
		}
		if !told {
			s.o.Log.Warn("cache folder is in use by another mirror; waiting until that one stops", "dir", s.path,
				"pid", locked.PID, "host", locked.Host, "since", locked.Since, "wait", s.o.Wait)
		}
		select {
		case <-tick.C:
		case <-s.o.Stop:
			return locked
		case <-deadline:
			return locked
		}
	}
}

// signLock writes who we are, for the others to read.
func (s *Store) signLock() error {
	host, _ := os.Hostname() // only for people
	b, err := json.Marshal(holder{PID: os.Getpid(), Host: host, Since: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	// The holder's name is a courtesy: a full disk must not keep the mirror from serving.
	if err := s.lock.Truncate(0); err != nil {
		s.o.Log.Warn("lock file can't be written", "dir", s.path, "err", err)
		return nil
	}
	if _, err := s.lock.WriteAt(append(b, '\n'), 0); err != nil {
		s.o.Log.Warn("lock file can't be written", "dir", s.path, "err", err)
	}
	return nil
}

func (s *Store) lockedBy() *LockedError {
	e := &LockedError{Dir: s.path}
	b, err := io.ReadAll(io.NewSectionReader(s.lock, 0, 4096))
	var h holder
	if err == nil && json.Unmarshal(b, &h) == nil {
		e.PID, e.Host, e.Since = h.PID, h.Host, h.Since
	}
	return e
}
