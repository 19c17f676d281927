package boltindex

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/registrymirror/mirror/internal/point"
)

// errLocked says that another process has the file.
var errLocked = errors.New("another process has it open; stop that one, or give this one a cache.dir of its own")

// damage is an error that no other try will mend.
type damage struct{ err error }

func (e *damage) Error() string { return e.err.Error() }
func (e *damage) Unwrap() error { return e.err }

func damaged(err error) bool {
	_, ok := errors.AsType[*damage](err)
	return ok
}

// guard calls f, and turns its panics into damage: bbolt panics on pages that make no sense, and the kernel faults on
// pages of the map that the file does not have, or that the disk can't read.
func guard(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if r := recover(); r != nil {
			err = &damage{fmt.Errorf("%v", r)}
		}
	}()
	return f()
}

// open opens the file; a damaged one is set aside first. The lock is held, or nobody knows x yet.
func (x *Index) open() error {
	err := x.tryOpen()
	if damaged(err) {
		return x.restart(err)
	}
	return err
}

// restart sets the file aside, because of err, and starts a new one.
func (x *Index) restart(err error) error {
	x.abandon()
	aside, serr := x.setAside()
	if serr != nil {
		return fmt.Errorf("set the damaged index aside: %w", serr)
	}
	point.Hit("index/aside")
	x.log.Warn("index was damaged and is started anew; what the cache holds is not touched", "path", x.path,
		"aside", aside, "err", err)
	return x.tryOpen()
}

// tryOpen opens the file as it is.
func (x *Index) tryOpen() error {
	if err := guard(func() error { return checkFile(x.path) }); err != nil {
		return err
	}
	var file *os.File
	var db *bolt.DB
	err := guard(func() (err error) {
		db, err = bolt.Open(x.path, 0o600, &bolt.Options{
			Timeout:      time.Second,
			FreelistType: bolt.FreelistMapType,
			// To be closed here when bbolt panics with the file open.
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, mode)
				file = f
				return f, err
			},
		})
		if err != nil {
			return err
		}
		return db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists(bucket)
			return err
		})
	})
	if err == nil {
		x.db, x.file = db, file
		return nil
	}
	if db != nil && !damaged(err) {
		_ = guard(db.Close)
	}
	if file != nil {
		_ = file.Close() // again, mostly
	}
	if errors.Is(err, berrors.ErrTimeout) {
		return errLocked
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok || damaged(err) {
		return err // the disk's, and perhaps passing; or known to be damage
	}
	return &damage{err} // bbolt doesn't know its own file
}

// abandon leaves a database that has panicked. Its own Close could wait for ever on a lock that the panic left behind;
// the map stays until the process ends.
func (x *Index) abandon() {
	if x.file != nil {
		_ = x.file.Close()
	}
	x.db, x.file = nil, nil
}

// keepAside is how many damaged files are kept for whoever wants to look at them.
const keepAside = 3

// setAside renames the file.
func (x *Index) setAside() (string, error) {
	aside := x.path + ".bad-" + time.Now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(x.path, aside); err != nil {
		return "", err
	}
	if old, err := filepath.Glob(x.path + ".bad-*"); err == nil {
		slices.Sort(old)
		for _, name := range old[:max(0, len(old)-keepAside)] {
			_ = os.Remove(name)
		}
	}
	return aside, nil
}
