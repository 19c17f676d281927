package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"

	"go.etcd.io/bbolt"
)

// table is a bucket. A value is its version, a checksum of table, key, version and value, and the bytes that the owner wrote.
// The bucket's sequence is the highest version that a removed key had.
type table struct {
	db   *DB
	name []byte
}

const valueHead = 8 + 4 // version, big endian, and CRC-32C

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers the table as well: a bad disk may return a page of another one.
func (t *table) checksum(key, version, v []byte) uint32 {
	sum := crc32.Update(crc32.Update(0, castagnoli, t.name), castagnoli, key)
	return crc32.Update(crc32.Update(sum, castagnoli, version), castagnoli, v)
}

// sound reports whether a value's bytes are those that were written.
func (t *table) sound(key, raw []byte) bool {
	return len(raw) >= valueHead && binary.BigEndian.Uint32(raw[8:]) == t.checksum(key, raw[:8], raw[valueHead:])
}

// decode returns the item, and false where its bytes are not those that were written. The value is a copy.
func (t *table) decode(key string, raw []byte) (Item, bool) {
	if !t.sound([]byte(key), raw) {
		return Item{}, false
	}
	return Item{Key: key, Version: Version(binary.BigEndian.Uint64(raw)), Value: bytes.Clone(raw[valueHead:])}, true
}

func (t *table) encode(key string, version Version, v []byte) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, valueHead+len(v)), uint64(version))
	b = binary.BigEndian.AppendUint32(b, t.checksum([]byte(key), b, v))
	return append(b, v...)
}

// versionOf is that of a key, 0 where it is not there or damaged.
func (t *table) versionOf(b *bbolt.Bucket, key string) Version {
	it, _ := t.decode(key, b.Get([]byte(key)))
	return it.Version
}

// logDamaged reports an item that is damaged. It is taken for missing: the owner of the table can do without it.
func (t *table) logDamaged(key string) {
	t.db.log.Error("an item of the state is damaged and taken for missing; check the disk", "path", t.db.path,
		"table", string(t.name), "key", key)
}

// put writes a key, or removes it where v is nil, and returns its new version.
func (t *table) put(b *bbolt.Bucket, key string, have Version, v []byte) (Version, error) {
	switch {
	case v == nil:
		if uint64(have) > b.Sequence() {
			if err := b.SetSequence(uint64(have)); err != nil {
				return 0, err
			}
		}
		return 0, b.Delete([]byte(key))
	case have == 0:
		have = Version(b.Sequence())
	}
	return have + 1, b.Put([]byte(key), t.encode(key, have+1, v))
}

// view runs f on the bucket, unless there is none yet.
func (t *table) view(f func(*bbolt.Bucket) error) error {
	if t.db.bolt == nil {
		return errClosed
	}
	return t.db.bolt.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(t.name); b != nil {
			return f(b)
		}
		return nil
	})
}

// Get implements Table.
func (t *table) Get(key string) (item Item, err error) {
	var found bool
	got := func(v []byte) {
		if item, found = t.decode(key, v); !found {
			t.logDamaged(key)
		}
	}
	if r, done := t.db.early(); r != nil {
		err = r.Each(string(t.name), []byte(key), func(k, v []byte) bool {
			if string(k) == key {
				got(v)
			}
			return false
		})
		done()
	} else {
		err = t.view(func(b *bbolt.Bucket) error {
			if v := b.Get([]byte(key)); v != nil {
				got(v)
			}
			return nil
		})
	}
	switch {
	case err != nil:
		return Item{}, fmt.Errorf("read state %q: %w", key, err)
	case !found:
		return Item{}, ErrNotFound
	}
	return item, nil
}

// Swap implements Table.
func (t *table) Swap(key string, old Version, v []byte) (next Version, err error) {
	var conflict bool
	err = t.db.update(1, len(key)+len(v), func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(t.name)
		if err != nil {
			return err
		}
		have := t.versionOf(b, key)
		if conflict = have != old; conflict {
			return nil // not an error: that would undo other writes of the same transaction
		}
		next, err = t.put(b, key, have, v)
		return err
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("write state %q: %w", key, err)
	case conflict:
		return 0, ErrConflict
	}
	t.db.makeRoom(t, 1, len(key)+len(v))
	return next, nil
}

// Write implements Table.
func (t *table) Write(items []Item) error {
	size := 0
	for left := items; len(left) > 0; {
		n, bytes := piece(left)
		if err := t.write(left[:n], bytes); err != nil {
			return fmt.Errorf("write %d items of state %s: %w", len(items), t.name, err)
		}
		left, size = left[n:], size+bytes
	}
	t.db.makeRoom(t, len(items), size)
	return nil
}

// piece is how many of the items are written in one transaction, and how many bytes they have.
func piece(items []Item) (n, bytes int) {
	for n < len(items) && n < pieceItems {
		size := len(items[n].Key) + len(items[n].Value)
		if n > 0 && bytes+size > pieceBytes {
			break
		}
		n, bytes = n+1, bytes+size
	}
	return n, bytes
}

// write is one piece.
func (t *table) write(items []Item, bytes int) error {
	return t.db.update(len(items), bytes, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(t.name)
		if err != nil {
			return err
		}
		for _, it := range items {
			if _, err := t.put(b, it.Key, t.versionOf(b, it.Key), it.Value); err != nil {
				return fmt.Errorf("%q: %w", it.Key, err)
			}
		}
		return nil
	})
}

// scanPage is how many items one read transaction yields: a long scan must not keep bbolt from reusing pages.
const scanPage = 1000

// errPage ends a page before the table ends.
var errPage = errors.New("page is full")

// Scan implements Table.
func (t *table) Scan(prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for from := []byte(prefix); from != nil; {
			page, err := t.page(from, []byte(prefix))
			from = nil
			if errors.Is(err, errPage) {
				from, err = append([]byte(page[len(page)-1].Key), 0), nil
			}
			for _, it := range page {
				if !yield(it, nil) {
					return
				}
			}
			if err != nil {
				yield(Item{}, fmt.Errorf("read state %s: %w", t.name, err))
				return
			}
		}
	}
}

// page reads items from a key on. Its error is errPage where there may be more.
func (t *table) page(from, prefix []byte) (page []Item, err error) {
	full := false
	add := func(k, v []byte) (on bool) {
		switch full = len(page) == scanPage; {
		case full || !bytes.HasPrefix(k, prefix):
			return false
		default:
			if it, ok := t.decode(string(k), v); ok {
				page = append(page, it)
			} else {
				t.logDamaged(string(k))
			}
			return true
		}
	}
	if r, done := t.db.early(); r != nil {
		err = r.Each(string(t.name), from, add)
		done()
	} else {
		err = t.view(func(b *bbolt.Bucket) error {
			c := b.Cursor()
			for k, v := c.Seek(from); k != nil && add(k, v); k, v = c.Next() {
			}
			return nil
		})
	}
	if err == nil && full {
		err = errPage
	}
	return page, err
}
