package state

import "errors"

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
