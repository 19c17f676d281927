package state

import (
	"bytes"
	"os"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/registrymirror/mirror/internal/boltfile"
)

// A file can be sound and have items in it that are not what was written: a disk that changes the order of its writes
// brings an older page back, perhaps of another table; a bad one changes a few bytes. Open looks at each item. In place of
// damaged ones it puts those of the last good copy: else a pin would silently be lost.

// damagedRange is where items of a table are damaged: behind the key lo and before hi, which are sound, or nil at an end of
// the table. Whatever was there, damaged keys or lost ones, had a key in between.
type damagedRange struct {
	table  string
	lo, hi []byte
	keys   [][]byte // that are there and are not what was written
}

// findDamaged looks at every item.
func findDamaged(tx *bbolt.Tx) (all []damagedRange, err error) {
	err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if b == nil {
			return boltfile.Damaged("item %q is in no table", name) // a page of one has the place of the list of tables
		}
		t := &table{name: name}
		var last []byte
		var run *damagedRange
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if v == nil {
				continue // a bucket: not one of ours
			}
			if t.sound(k, v) {
				if run != nil {
					run.hi = bytes.Clone(k)
					all, run = append(all, *run), nil
				}
				last = k
				continue
			}
			if run == nil {
				run = &damagedRange{table: string(name), lo: bytes.Clone(last)}
			}
			run.keys = append(run.keys, bytes.Clone(k))
		}
		if run != nil {
			all = append(all, *run)
		}
		return nil
	})
	return all, err
}

// repair puts the items of the last good copy in the place of damaged ones. Its error is damage that the copy can't
// repair, or the disk's.
func (db *DB) repair() error {
	if info, err := os.Stat(db.path); err != nil || info.Size() > boltfile.MaxChecked {
		return err
	}
	var all []damagedRange
	err := db.bolt.View(func(tx *bbolt.Tx) (err error) {
		all, err = findDamaged(tx)
		return err
	})
	if err != nil || len(all) == 0 {
		return err
	}
	items, err := db.copied(all)
	if err != nil {
		db.log.Error("there is no good copy of items of the state that are damaged", "path", db.path, "error", err)
	}
	err = db.bolt.Update(func(tx *bbolt.Tx) error {
		for i, r := range all {
			if err := r.restore(tx.Bucket([]byte(r.table)), items[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil { // the disk takes no write: damaged items stay, and are taken for missing
		db.log.Error("damaged items of the state can't be replaced", "path", db.path, "error", err)
	}
	for i, r := range all {
		for _, k := range r.keys {
			restored := slices.ContainsFunc(items[i], func(it Item) bool { return it.Key == string(k) })
			if restored && err == nil {
				db.log.Error("an item of the state was damaged; the one of the last good copy is in use: check the disk",
					"path", db.path, "table", r.table, "key", string(k))
				continue
			}
			(&table{db: db, name: []byte(r.table)}).logDamaged(string(k))
		}
	}
	return nil
}

// restore removes damaged items and writes what the copy has and the table has not.
func (r *damagedRange) restore(b *bbolt.Bucket, items []Item) error {
	for _, k := range r.keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	t := &table{name: []byte(r.table)}
	for _, it := range items {
		if err := b.Put([]byte(it.Key), t.encode(it.Key, it.Version, it.Value)); err != nil {
			return err
		}
	}
	return nil
}

// copied returns for each range what the last good copy has there.
func (db *DB) copied(all []damagedRange) (items [][]Item, err error) {
	items = make([][]Item, len(all))
	good, _, err := db.openGood()
	if err != nil {
		return items, err
	}
	defer good.Close()
	err = good.View(func(tx *bbolt.Tx) error {
		for i, r := range all {
			bucket := tx.Bucket([]byte(r.table))
			if bucket == nil {
				continue
			}
			t := &table{name: []byte(r.table)}
			c := bucket.Cursor()
			for k, v := c.Seek(r.lo); k != nil && (r.hi == nil || bytes.Compare(k, r.hi) < 0); k, v = c.Next() {
				if it, sound := t.decode(string(k), v); sound && !bytes.Equal(k, r.lo) {
					items[i] = append(items[i], it)
				}
			}
		}
		return nil
	})
	return items, err
}
