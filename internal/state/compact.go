package state

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// bbolt's file never shrinks. One that is mostly free pages is written anew at the start, and so is its copy.
const compactAbove = 16 << 20

// sparse reports whether a file is worth writing anew.
func (db *DB) sparse() bool {
	info, err := os.Stat(db.path)
	return err == nil && info.Size() > compactAbove && db.Used() < info.Size()/2
}

// compact puts a file without free pages in the place of the present one, whole or not at all. Without room for both
// the present one stays. Its error means that none is open.
func (db *DB) compact() error {
	if !db.sparse() {
		return nil
	}
	tmp := db.path + tmpMark + "compact"
	err := guard(func() error { return db.compactTo(tmp) })
	if err == nil {
		err = check(tmp)
	}
	if err != nil {
		_ = os.Remove(tmp)
		db.log.Warn("the state is mostly free space and can't be written anew; it is used as it is", "file", db.path, "err", err)
		return nil
	}
	if err := guard(db.bolt.Close); err != nil {
		return err
	}
	if err := os.Rename(tmp, db.path); err != nil {
		_ = os.Remove(tmp)
		db.log.Warn("the state can't be replaced by a smaller one; it is used as it is", "file", db.path, "err", err)
	} else if err := syncFolder(db.path); err != nil {
		return err
	}
	return db.openFile()
}

// compactTo writes the tables to a new file, and has it on disk.
func (db *DB) compactTo(path string) (err error) {
	dst, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: false, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("make %s: %w", filepath.Base(path), err)
	}
	defer func() {
		if e := dst.Close(); err == nil {
			err = e
		}
	}()
	if err := bbolt.Compact(dst, db.bolt, 4<<20); err != nil {
		return err
	}
	return dst.Sync()
}

// rewriteTo writes the file without its free pages.
func (db *DB) rewriteTo(w io.Writer) error {
	tmp := db.path + ".good" + tmpMark + "compact"
	defer os.Remove(tmp)
	if err := db.compactTo(tmp); err != nil {
		return err
	}
	in, err := os.Open(tmp)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(w, in)
	return err
}
