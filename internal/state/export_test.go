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

// Update runs f in a transaction that other writes may share, as a write of so many items and bytes. f gets the number of
// the transaction.
func (db *DB) Update(items, bytes int, f func(transaction int)) error {
	return db.update(items, bytes, func(tx *bbolt.Tx) error {
		f(tx.ID())
		return nil
	})
}

// Queued is how many small and large writes wait.
func (db *DB) Queued() (small, large int) {
	db.mu.Lock()
	defer db.mu.Unlock()
	return len(db.queue.small), len(db.queue.large)
}

// Checked reports whether all of the file was checked.
func Checked(db *DB) bool { return db.checked.Load() }
