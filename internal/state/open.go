package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/registrymirror/mirror/internal/boltfile"
	"github.com/registrymirror/mirror/internal/point"
)

// Open opens the file at path, or makes it. A damaged one is set aside as path.bad-TIME, and the last good copy,
// path.good, takes its place, as it does where the file is gone; without one the state starts empty. In a sound file,
// items that are not what was written are replaced by those of the copy, and are missing where it has none. All of it is
// logged as an error, since tags, rights or pins may be those of yesterday. The error of Open itself is the disk's, and then
// nothing was set aside.
//
// That goes on after Open for a large file, see Options.AtOnce: until it is over, writes wait, items are read with a check of each
// page, and an expendable item that is damaged is missing.
func Open(path string, o Options) (*DB, error) {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Every = cmp.Or(o.Every, 24*time.Hour)
	o.AtOnce = cmp.Or(o.AtOnce, 16<<20)
	db := &DB{path: path, log: o.Log, o: o, rooms: make(map[string]*room)}
	for name := range o.Expendable {
		db.rooms[name] = new(room)
	}
	dir, name := filepath.Split(path)
	left, _ := os.ReadDir(filepath.Dir(path))
	for _, f := range left { // of copies that a crash cut short
		if strings.HasPrefix(f.Name(), name) && strings.Contains(f.Name(), tmpMark) {
			_ = os.Remove(dir + f.Name())
		}
	}
	if db.openUnchecked() {
		return db, nil
	}
	if err := db.check(); err != nil {
		return nil, err
	}
	return db, nil
}

// open checks and opens the file, or makes it.
func (db *DB) open() (err error) {
	if err := db.checkPresent(); err != nil {
		return err
	}
	if db.bolt, err = boltfile.Open(db.path); err != nil {
		return err
	}
	return db.opened()
}

// opened completes what is open.
func (db *DB) opened() error {
	if db.bolt.Created { // a new file is only there for good with its folder
		if err := syncFolder(db.path); err != nil {
			_ = db.bolt.Close()
			return err
		}
	}
	err := db.checkTables()
	if err == nil {
		err = db.repair()
	}
	if err != nil {
		_ = db.bolt.Close()
		return err
	}
	if db.bolt.OneRoot {
		db.log.Error("one of the two roots of the state was damaged: its last change may be lost, and is learned again; "+
			"check the disk", "path", db.path)
	}
	return nil
}

// checkTables is damage where a table of the last good copy is not in the file.
func (db *DB) checkTables() error {
	return db.bolt.View(func(tx *bbolt.Tx) error {
		if db.lacksTable(func(name string) bool { return tx.Bucket([]byte(name)) != nil }) {
			return boltfile.Damaged("a table is gone")
		}
		return nil
	})
}

// lacksTable reports whether a table that is not expendable has an item in the last good copy, and is not in the file. No table is ever
// removed: its name is damaged. An item is looked for because its checksum covers the name, which the copy may have damaged.
func (db *DB) lacksTable(has func(name string) bool) bool {
	good, err := boltfile.Read(db.path + ".good")
	if err != nil {
		return false // there is none, or it is of no use
	}
	defer good.Close()
	for name := range good.Tables() {
		if _, expendable := db.o.Expendable[name]; expendable || has(name) {
			continue
		}
		t, sound := &table{name: []byte(name)}, false
		err := good.Each(name, nil, func(k, v []byte) bool {
			sound = t.sound(k, v)
			return !sound
		})
		if err == nil && sound {
			return true
		}
	}
	return false
}

// checkPresent is damage where there is no file, or an empty one, and yet there is a copy of one: it was there before.
func (db *DB) checkPresent() error {
	info, err := os.Stat(db.path)
	if err == nil && info.Size() > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(db.path + ".good"); err != nil {
		return nil
	}
	if boltfile.Check(db.path+".good") != nil {
		return nil // it is of no use
	}
	return boltfile.Damaged("the file is gone, or empty")
}

// recover puts the last good copy, or nothing, in the place of a damaged file.
func (db *DB) recover(damage error) error {
	bad := db.path + ".bad-" + time.Now().UTC().Format("20060102T150405.000")
	good, info, err := db.openGood()
	if err != nil {
		if err := os.Rename(db.path, bad); err != nil {
			return fmt.Errorf("set the damaged file aside: %w", err)
		}
		db.log.Error("state was damaged and there is no good copy: tags and references are learned again from the upstreams",
			"path", db.path, "file", bad, "error", errors.Join(damage, err))
		return db.open()
	}
	// The damaged file keeps its name as well until the copy takes it. Without a file of that name, after a crash, the next
	// process would take its start for the first one, and not use the copy. A file system may have no links.
	if os.Link(db.path, bad) != nil {
		if err := os.Rename(db.path, bad); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the damaged file aside: %w", err)
		}
	}
	point.Hit("state/aside")
	if err := errors.Join(rewrite(good, db.path), good.Close()); err != nil { // no space for both
		if err := os.Rename(db.path+".good", db.path); err != nil {
			return fmt.Errorf("put the last good copy in place: %w", err)
		}
	}
	db.log.Error("state was damaged; the last good copy is in use: tags and references since then are learned again",
		"path", db.path, "file", bad, "age", time.Since(info.ModTime()).Round(time.Second), "error", damage)
	return db.open()
}

// openGood opens the last good copy.
func (db *DB) openGood() (good *boltfile.DB, info fs.FileInfo, err error) {
	path := db.path + ".good"
	if info, err = os.Stat(path); err == nil {
		good, err = boltfile.Open(path)
	}
	return good, info, err
}

// tmpMark is in the names of files that are not yet in their place.
const tmpMark = ".tmp-"

// rewrite writes a database without its free pages beside its place, checks it, and renames it there.
func rewrite(db *boltfile.DB, path string) error {
	tmp := path + tmpMark + "compact"
	defer os.Remove(tmp) // harmless once it is renamed
	if err := db.CompactTo(tmp); err != nil {
		return err
	}
	point.Hit("state/copied")
	if err := boltfile.Check(tmp); err != nil {
		return err
	}
	point.Hit("state/copy-checked")
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	point.Hit("state/copy-renamed")
	return syncFolder(path)
}

// syncFolder makes the name of a file as lasting as its bytes.
func syncFolder(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
