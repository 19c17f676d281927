package boltfile

import (
	"bytes"
	"os"
)

// deepest is how many pages are one below the other at most: bbolt's trees of a million keys have four.
const deepest = 64

// Reader reads a file that is locked and not checked yet, without bbolt: it checks each page that it reads, and what it needs to
// know of the others. Nothing may write to the file, except one transaction of the database that Open returns. Safe for concurrent
// use.
type Reader struct {
	locked *os.File // with the lock; nil once Open has it
	f      *os.File // the same file, for as long as it is read
	m      meta
	tables map[string]inBucket
}

// Read locks a file and opens it for reading. The list of its tables is checked by then, and nothing else. Without an error,
// both of the file's roots are whole.
func Read(path string) (*Reader, error) {
	locked, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	r := &Reader{locked: locked, tables: make(map[string]inBucket)}
	if err = lock(locked); err == nil {
		err = r.open(path)
	}
	if err != nil {
		r.Close()
		return nil, classify(err)
	}
	return r, nil
}

func (r *Reader) open(path string) (err error) {
	if r.f, err = os.Open(path); err != nil {
		return err
	}
	info, err := r.locked.Stat()
	if err != nil {
		return err
	}
	if now, err := r.f.Stat(); err != nil || !os.SameFile(info, now) || !info.Mode().IsRegular() {
		return Damaged("the file was replaced while it was opened")
	}
	c := &checker{f: r.f, size: info.Size()}
	if err := c.findMeta(); err != nil {
		return err
	}
	if c.metas != 2 {
		return Damaged("one of its two meta pages is not whole")
	}
	r.m = c.m
	_, err = r.walk(subtree{id: r.m.root}, nil, 0, func(key, value []byte, bucket bool) (bool, error) {
		if !bucket {
			return false, Damaged("item %q is in no table", key)
		}
		in, err := bucketOf(r.m.root, value)
		r.tables[string(key)] = in
		return true, err
	})
	return err
}

// Tables returns the names of the tables, each with its sequence.
func (r *Reader) Tables() map[string]uint64 {
	all := make(map[string]uint64, len(r.tables))
	for name, in := range r.tables {
		all[name] = in.sequence
	}
	return all
}

// Each calls f for the items of a table, in order, from a key on, until it returns false. Keys and values are valid during
// the call.
func (r *Reader) Each(table string, from []byte, f func(key, value []byte) bool) error {
	in, ok := r.tables[table]
	if !ok {
		return nil
	}
	item := func(key, value []byte, bucket bool) (bool, error) { return bucket || f(key, value), nil }
	var err error
	if in.root != 0 {
		_, err = r.walk(subtree{id: in.root}, from, 0, item)
	} else {
		_, err = r.page(subtree{id: r.m.root}, in.page, from, 0, item)
	}
	if err != nil {
		return classify(err)
	}
	return nil
}

// walk calls item for what is in a tree from a key on, in order, until it returns false.
func (r *Reader) walk(t subtree, from []byte, depth int, item func(key, value []byte, bucket bool) (bool, error)) (on bool, err error) {
	if depth > deepest {
		return false, Damaged("page %d: it is %d pages below its root", t.id, depth)
	}
	b, err := r.m.read(r.f, t.id)
	if err != nil {
		return false, err
	}
	return r.page(t, b, from, depth, item)
}

// page is walk of a page that is read.
func (r *Reader) page(t subtree, b, from []byte, depth int, item func(key, value []byte, bucket bool) (bool, error)) (on bool, err error) {
	on = true
	below, err := parse(t, b, func(key, value []byte, bucket bool) (err error) {
		if on && bytes.Compare(key, from) >= 0 {
			on, err = item(key, value, bucket)
		}
		return err
	})
	for _, next := range below {
		if !on || err != nil {
			break
		}
		if next.hi != nil && bytes.Compare(next.hi, from) <= 0 {
			continue // all of it is before that key
		}
		on, err = r.walk(next, from, depth+1, item)
	}
	return on, err
}

// Open checks the file as a whole and opens it, as the function Open does. The reader can still be used, until Close.
func (r *Reader) Open() (*DB, error) {
	f := r.locked
	r.locked = nil
	return openLocked(f, false)
}

// Close ends reading, and the lock, unless Open has it.
func (r *Reader) Close() {
	if r.f != nil {
		_ = r.f.Close()
	}
	if r.locked != nil {
		_ = r.locked.Close()
	}
}
