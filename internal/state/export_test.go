package state

import (
	"errors"

	"go.etcd.io/bbolt"
)

// PageWrites is how many writes of pages the file has seen: a few for each transaction.
func (db *DB) PageWrites() int64 {
	s := db.bolt.Stats().TxStats
	return s.GetWrite()
}

// Check is what Open asks before it believes a file.
var Check = check

// IsDamage reports whether an error speaks of the file and not of the disk.
func IsDamage(err error) bool {
	_, ok := errors.AsType[*damageError](err)
	return ok
}

// Transactions is how many have been written in all of the file's life.
func (db *DB) Transactions() (n int) {
	_ = db.bolt.View(func(tx *bbolt.Tx) error {
		n = tx.ID()
		return nil
	})
	return n
}
