package state

import (
	"bytes"
	"os"
	"slices"

	"go.etcd.io/bbolt"
)

// A file can be sound and have items in it that are not what was written: a disk that lies about the order of its writes
// brings an older page back, perhaps of another table; a bad one changes a few bytes. Open looks at each item. For what
// is rotten the last good copy stands in: else a pin would silently be none.

// rot is where items of a table are rotten: behind the key lo and before hi, which are sound, or nil at an end of the
// table. Whatever was there, rotten keys or lost ones, had a key in between.
type rot struct {
	table  string
	lo, hi []byte
	keys   [][]byte // that are there and are not what was written
}

// findRot looks at every item.
func findRot(tx *bbolt.Tx) (all []rot, err error) {
	err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if b == nil {
			return damaged("item %q is in no table", name) // a page of one has the place of the list of tables
		}
		t := &table{name: name}
		var last []byte
		var run *rot
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if v == nil {
				continue // a bucket: none of ours
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
				run = &rot{table: string(name), lo: bytes.Clone(last)}
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

// heal puts what the last good copy has in the place of items that are rotten. Its error is damage that none of it can
// mend, or the disk's.
func (db *DB) heal() error {
	if info, err := os.Stat(db.path); err != nil || info.Size() > checkMost {
		return err
	}
	var all []rot
	err := guard(func() error {
		return db.bolt.View(func(tx *bbolt.Tx) (err error) {
			all, err = findRot(tx)
			return err
		})
	})
	if err != nil || len(all) == 0 {
		return err
	}
	items, err := db.copied(all)
	if err != nil {
		db.log.Error("there is no good copy of items of the state that are damaged", "file", db.path, "err", err)
	}
	err = guard(func() error {
		return db.bolt.Update(func(tx *bbolt.Tx) error {
			for i, r := range all {
				if err := r.mend(tx.Bucket([]byte(r.table)), items[i]); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil { // the disk takes no write: what is rotten stays, and is taken for missing
		db.log.Error("damaged items of the state can't be replaced", "file", db.path, "err", err)
	}
	for i, r := range all {
		for _, k := range r.keys {
			back := slices.ContainsFunc(items[i], func(it Item) bool { return it.Key == string(k) })
			if back && err == nil {
				db.log.Error("an item of the state was damaged, that of the last good copy is in use; check the disk",
					"file", db.path, "table", r.table, "key", string(k))
				continue
			}
			(&table{db: db, name: []byte(r.table)}).rotten(string(k))
		}
	}
	return nil
}

// mend removes what is rotten and writes what the copy has and the table has not.
func (r *rot) mend(b *bbolt.Bucket, items []Item) error {
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

// copied returns for each place what the last good copy has there.
func (db *DB) copied(all []rot) (items [][]Item, err error) {
	items = make([][]Item, len(all))
	good := db.path + ".good"
	if err := check(good); err != nil {
		return items, err
	}
	err = guard(func() error {
		b, err := bbolt.Open(good, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 1})
		if err != nil {
			return err
		}
		defer b.Close()
		return b.View(func(tx *bbolt.Tx) error {
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
	})
	return items, err
}
