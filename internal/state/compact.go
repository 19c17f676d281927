package state

import (
	"io"
	"os"

	"github.com/registrymirror/mirror/internal/boltfile"
)

// compactAbove is the size in bytes above which a file of mostly free pages is written again, at the start: bbolt's file
// never shrinks. So is its copy.
const compactAbove = 16 << 20

// sparse reports whether the file is worth writing again.
func (db *DB) sparse() bool {
	info, err := os.Stat(db.path)
	return err == nil && info.Size() > compactAbove && db.used() < info.Size()/2
}

// compact puts a file without free pages in the place of the present one, whole or not at all. Without room for both
// the present one stays. Its error means that none is open.
func (db *DB) compact() error {
	if !db.sparse() {
		return nil
	}
	tmp := db.path + tmpMark + "compact"
	err := db.bolt.CompactTo(tmp)
	if err == nil {
		err = boltfile.Check(tmp)
	}
	if err != nil {
		_ = os.Remove(tmp)
		db.log.Warn("the state is mostly free space and can't be made smaller; it is used as it is", "path", db.path, "error", err)
		return nil
	}
	if err := db.bolt.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, db.path); err != nil {
		_ = os.Remove(tmp)
		db.log.Warn("the state can't be replaced by a smaller one; it is used as it is", "path", db.path, "error", err)
	} else if err := syncFolder(db.path); err != nil {
		return err
	}
	db.bolt, err = boltfile.Open(db.path)
	return err
}

// rewriteTo writes the file without its free pages.
func (db *DB) rewriteTo(w io.Writer) error {
	tmp := db.path + ".good" + tmpMark + "compact"
	defer os.Remove(tmp)
	if err := db.bolt.CompactTo(tmp); err != nil {
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
