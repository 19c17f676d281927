package state

import (
	"errors"
	"iter"
)

// ErrNotFound says that a key is not in the table; ErrConflict that its version is not the one expected.
var (
	ErrNotFound = errors.New("no such key")
	ErrConflict = errors.New("changed by another writer")
)

// Version counts the writes of a key, from 1. Zero means that the key is not there. A key that is made again after it was
// removed continues above all the versions that it had, so that an old one never fits again.
type Version uint64

// Item is a key with its value and version.
type Item struct {
	Key     string
	Value   []byte // nil in Write: remove the key
	Version Version
}

// Table is a set of keys that one package owns: it alone knows their form and what the values mean. Safe for concurrent
// use. A write that returned nil survives a crash of the process and of the machine.
type Table interface {
	// Get returns the item, or ErrNotFound. The value is the caller's.
	Get(key string) (Item, error)
	// Swap writes v if the key's version is old (0: it must not exist) and returns the new version; else ErrConflict.
	// A nil v removes the key.
	Swap(key string, old Version, v []byte) (Version, error)
	// Write writes all items, whatever their versions. Concurrent writes share a transaction; 500 items, or 256 KiB, are
	// written at once or not at all, more of them in pieces, in order: after an error the pieces before it may be there.
	Write(items []Item) error
	// Scan yields the items whose keys start with prefix, in order of their keys.
	Scan(prefix string) iter.Seq2[Item, error]
}
