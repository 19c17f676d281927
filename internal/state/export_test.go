package state

import "go.etcd.io/bbolt"

// PageWrites is how many writes of pages the file has seen: a few for each transaction.
func (db *DB) PageWrites() int64 {
	s := db.bolt.Stats().TxStats
	return s.GetWrite()
}

// Transactions is how many have been written in all of the file's life.
func (db *DB) Transactions() (n int) {
	_ = db.bolt.View(func(tx *bbolt.Tx) error {
		n = tx.ID()
		return nil
	})
	return n
}

// Checked reports whether all of the file was checked.
func Checked(db *DB) bool { return db.checked.Load() }
