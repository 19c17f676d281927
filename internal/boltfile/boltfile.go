package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// How long Open and Check wait for another process to unlock the file, and how often they try.
const (
	lockWait = time.Second
	lockTry  = 50 * time.Millisecond
)

// DamageError says that the file is there and is not sound.
type DamageError struct{ Err error }

func (e *DamageError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *DamageError) Unwrap() error { return e.Err }

// Damaged makes a *DamageError.
func Damaged(format string, args ...any) error {
	return &DamageError{fmt.Errorf(format, args...)}
}

// IsDamage reports whether an error is about the file, and not about the disk.
func IsDamage(err error) bool {
	_, ok := errors.AsType[*DamageError](err)
	return ok
}

// DB is an open file. Its View, Update and Close return damage as a *DamageError; after one of Update the file can't be
// written any more, and Abandon takes the place of Close.
type DB struct {
	*bbolt.DB
	Created bool // Open made the file
	OneRoot bool // one of the two roots was damaged: the last change may be lost

	file *os.File
}

// Open checks and opens a file, or makes it. The error is a *DamageError, or the disk's, or says that another process has
// the file.
func Open(path string) (*DB, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, Damaged("not a regular file")
	}
	created := false
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		created = true
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		_ = f.Close()
		return nil, classify(err)
	}
	return openLocked(f, created)
}

// openLocked checks and opens a file that is locked. It takes the file over, also where it fails.
func openLocked(f *os.File, created bool) (*DB, error) {
	db := &DB{file: f, Created: created}
	var err error
	if db.OneRoot, err = check(f); err == nil {
		err = guard(db.open)
	}
	if err != nil {
		db.Abandon() // bbolt leaves it open where it panics
		return nil, classify(err)
	}
	return db, nil
}

// open hands the file to bbolt, which takes the lock that it already has.
func (db *DB) open() (err error) {
	handed := false
	db.DB, err = bbolt.Open(db.file.Name(), 0o600, &bbolt.Options{
		Timeout: lockWait, FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode fs.FileMode) (*os.File, error) {
			if handed { // for a copy
				return os.OpenFile(name, flag, mode)
			}
			handed = true
			return db.file, nil
		},
	})
	return err
}

// View is bbolt's, with damage as an error.
func (db *DB) View(f func(*bbolt.Tx) error) error {
	return guard(func() error { return db.DB.View(f) })
}

// Update is bbolt's, with damage as an error.
func (db *DB) Update(f func(*bbolt.Tx) error) error {
	return guard(func() error { return db.DB.Update(f) })
}

// Close is bbolt's, with damage as an error.
func (db *DB) Close() error { return guard(db.DB.Close) }

// Abandon closes the file of a database that has met damage: its Close could wait for ever for a lock that the panic left.
// The memory map stays until the process ends, and would keep the file's lock, so that is given up first.
func (db *DB) Abandon() {
	_ = unix.Flock(int(db.file.Fd()), unix.LOCK_UN)
	_ = db.file.Close()
}

// CompactTo writes the content to a new file without free pages, and has it on disk.
func (db *DB) CompactTo(path string) error {
	return guard(func() (err error) {
		dst, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, dst.Close()) }()
		if err := bbolt.Compact(dst, db.DB, 4<<20); err != nil {
			return err
		}
		return dst.Sync()
	})
}

// guard turns a panic into a *DamageError. bbolt panics on some kinds of damage, and touching a page that the disk can't
// read, or that is behind the end of the file, is a fault.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &DamageError{fmt.Errorf("%v", p)}
		}
	}()
	return f()
}

// classify tells what is wrong with the file from what is wrong with the disk.
func classify(err error) error {
	_, path := errors.AsType[*fs.PathError](err)
	_, errno := errors.AsType[syscall.Errno](err)
	if path || errno || IsDamage(err) {
		return err
	}
	return &DamageError{err}
}

// lock takes bbolt's lock until the file is closed. A process that has just been killed may hold it for a moment.
func lock(f *os.File) error {
	for tries := lockWait / lockTry; ; tries-- {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		held := errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR)
		if held && tries > 0 {
			time.Sleep(lockTry)
			continue
		}
		if held {
			err = fmt.Errorf("it is in use by another process: %w", err)
		}
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
}
