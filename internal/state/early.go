package state

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/registrymirror/mirror/internal/boltfile"
)

// A file of hundreds of megabytes takes a second to be checked, and the mirror must not be away for that long. So Open checks
// only the tables that are not expendable, with each of their items: their owners read them whole, at the start. The rest
// is checked by Run, or by the first write, whichever comes first:
//
//	Open ──> unchecked: reads check each page that they need; writes wait ──> checked: bbolt
//
// bbolt sees no page before that. Since nothing is written meanwhile, damage that is found then is handled as at the start: the
// last good copy takes the place of the file.

// errClosed is the error of a write after Close.
var errClosed = errors.New("the state is closed")

// openUnchecked opens a large file for reading, if what it can't do without is sound.
func (db *DB) openUnchecked() bool {
	info, err := os.Stat(db.path)
	if err != nil || info.Size() <= db.o.AtOnce || info.Size() > boltfile.MaxChecked || len(db.o.Expendable) == 0 {
		return false
	}
	r, err := boltfile.Read(db.path)
	if err != nil {
		return false // which is found again, and handled, by the whole check
	}
	tables := r.Tables()
	if db.lacksTable(func(name string) bool { _, ok := tables[name]; return ok }) {
		r.Close()
		return false
	}
	for name := range tables {
		if _, ok := db.o.Expendable[name]; ok {
			continue
		}
		t, sound := &table{name: []byte(name)}, true
		err := r.Each(name, nil, func(k, v []byte) bool {
			sound = t.sound(k, v)
			return sound
		})
		if err != nil || !sound {
			r.Close()
			return false
		}
	}
	db.unchecked = r
	return true
}

// early returns the reader to use as long as the file is not checked, and how to end its use; else nil.
func (db *DB) early() (r *boltfile.Reader, done func()) {
	if db.checked.Load() {
		return nil, nil
	}
	db.reading.RLock()
	if db.unchecked == nil {
		db.reading.RUnlock()
		return nil, nil
	}
	return db.unchecked, db.reading.RUnlock
}

// check waits until the file is checked, or checks it. The error says why it can't be written.
func (db *DB) check() error {
	db.checking.Do(func() {
		if db.checkErr = db.checkAll(); db.checkErr == nil {
			db.checked.Store(true)
			return
		}
		db.checkErr = fmt.Errorf("open state %s: %w", db.path, db.checkErr)
		if db.unchecked != nil { // else Open returns it
			db.log.Error("the state can't be opened for writing; restart the mirror when its disk works", "path", db.path,
				"error", db.checkErr)
		}
	})
	return db.checkErr
}

// checkAll checks and opens the file, or what takes its place.
func (db *DB) checkAll() (err error) {
	if db.unchecked == nil {
		err = db.open()
	} else if db.bolt, err = db.unchecked.Open(); err == nil {
		err = db.opened()
	}
	if boltfile.IsDamage(err) {
		if err = db.recover(err); err == nil && db.unchecked != nil {
			db.carry(db.unchecked)
		}
	}
	if err == nil {
		err = db.compact()
	}
	if err != nil {
		db.bolt = nil
		return err
	}
	if db.unchecked != nil {
		db.measure()
		db.reading.Lock()
		defer db.reading.Unlock()
		db.unchecked.Close()
		db.unchecked = nil
	}
	return nil
}

// carry gives the last good copy, which has taken the place of the file, those tables of the file that are not expendable: they
// are sound, and in use.
func (db *DB) carry(r *boltfile.Reader) {
	err := db.bolt.Update(func(tx *bbolt.Tx) error {
		for name, sequence := range r.Tables() {
			if _, ok := db.o.Expendable[name]; ok {
				continue
			}
			if err := carryTable(tx, r, name, sequence); err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		db.log.Error("the damaged state can't be used in part; all of it is that of the last good copy", "path", db.path, "error", err)
	}
}

func carryTable(tx *bbolt.Tx, r *boltfile.Reader, name string, sequence uint64) error {
	if err := tx.DeleteBucket([]byte(name)); err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
		return err
	}
	b, err := tx.CreateBucket([]byte(name))
	if err != nil {
		return err
	}
	if err := b.SetSequence(sequence); err != nil {
		return err
	}
	read := r.Each(name, nil, func(k, v []byte) bool {
		err = b.Put(k, v)
		return err == nil
	})
	return errors.Join(read, err)
}
