package state

import (
	"os"

	"github.com/registrymirror/mirror/internal/boltfile"
)

// compactAbove is the size in bytes above which a file of mostly free pages is written again, at the start: bbolt's file
// never shrinks.
const compactAbove = 16 << 20

// sparse reports whether the file is worth writing again.
func (db *DB) sparse() bool {
	info, err := os.Stat(db.path)
	return err == nil && info.Size() > compactAbove && db.used() < info.Size()/2
}

// compact puts a file without free pages in the place of the present one, whole or not at all. Without room for both
// the present one stays. Its error means that none is open.
func (db *DB) compact() (err error) {
	if !db.sparse() {
		return nil
	}
	if err := rewrite(db.bolt, db.path); err != nil {
		db.log.Warn("the state is mostly free space and can't be made smaller; it is used as it is", "path", db.path, "error", err)
	}
	if err := db.bolt.Close(); err != nil {
		return err
	}
	if err := syncFolder(db.path); err != nil { // or what is written to the new file is lost with its name
		return err
	}
	db.bolt, err = boltfile.Open(db.path)
	return err
}
