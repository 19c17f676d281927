package state

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
)

// Options for a DB. The zero value of a field means what its comment says.
type Options struct {
	Log   *slog.Logger  // nil: discard
	Every time.Duration // between copies to the last good one; 24 h
}

// DB is state.db: all tables in one bbolt file. It is safe for concurrent use; writers that meet share a transaction.
type DB struct {
	bolt *bbolt.DB
	path string
	log  *slog.Logger
	o    Options
}

// Open opens the file at path, or makes it. A damaged one is set aside as path.bad-TIME, and the last good copy,
// path.good, takes its place; without one the state starts empty. Either is logged as an error, since tags, rights or
// pins may be those of yesterday. The error of Open itself is the disk's.
func Open(path string, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Every == 0 {
		o.Every = 24 * time.Hour
	}
	db := &DB{path: path, log: o.Log, o: o}
	b, err := open(path)
	var damage *damageError
	if errors.As(err, &damage) {
		b, err = db.recover(damage)
	}
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", path, err)
	}
	db.bolt = b
	return db, nil
}

// damageError says that the file is there and is not sound.
type damageError struct{ err error }

func (e *damageError) Error() string { return e.err.Error() }
func (e *damageError) Unwrap() error { return e.err }

// open opens and checks a file. bbolt panics on some kinds of damage, and faults on a file that is shorter than its
// pages say; both come back as a *damageError.
func open(path string) (b *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if b != nil {
				_ = b.Close()
			}
			b, err = nil, &damageError{fmt.Errorf("%v", p)}
		}
	}()
	b, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) || errors.Is(err, bbolt.ErrTimeout) {
			return nil, err
		}
		return nil, &damageError{err}
	}
	err = b.View(func(tx *bbolt.Tx) error {
		for e := range tx.Check() {
			if err == nil {
				err = e
			}
		}
		return err
	})
	if err != nil {
		_ = b.Close()
		return nil, &damageError{err}
	}
	return b, nil
}

// recover puts the last good copy, or nothing, in the place of a damaged file.
func (db *DB) recover(damage error) (*bbolt.DB, error) {
	bad := db.path + ".bad-" + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(db.path, bad); err != nil {
		return nil, fmt.Errorf("set the damaged file aside: %w", err)
	}
	good := db.path + ".good"
	if err := copyFile(good, db.path); err == nil {
		if b, err := open(db.path); err == nil {
			at := "unknown"
			if info, err := os.Stat(good); err == nil {
				at = info.ModTime().UTC().Format(time.RFC3339)
			}
			db.log.Error("state was damaged; the last good copy is in use: tags and references since then are learnt again",
				"file", db.path, "aside", bad, "copyOf", at, "err", damage)
			return b, nil
		}
		_ = os.Remove(db.path)
	}
	db.log.Error("state was damaged and there is no good copy: tags and references are learnt again from the upstreams",
		"file", db.path, "aside", bad, "err", damage)
	return open(db.path)
}

// copyFile makes to a copy of from, whole or not at all.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return replace(to, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

// replace writes a file beside its place, syncs it, and renames it there.
func replace(path string, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // harmless once it is renamed
	if err := write(tmp); err != nil {
		_ = tmp.Close()
		return err
	}
	if err := tmp.Sync(); err != nil {
		_ = tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Copy makes path.good a copy of the present state.
func (db *DB) Copy() error {
	err := replace(db.path+".good", func(w io.Writer) error {
		return db.bolt.View(func(tx *bbolt.Tx) error {
			_, err := tx.WriteTo(w)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("copy state to %s.good: %w", db.path, err)
	}
	return nil
}

// Run copies the state once a day, starting soon after the start, until the context ends.
func (db *DB) Run(ctx context.Context) error {
	next := time.Minute // not at once: a process that restarts in a loop has better things to do
	for {
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		next = db.o.Every
		if err := db.Copy(); err != nil {
			db.log.WarnContext(ctx, "the copy of the state failed; it is tried again tomorrow", "err", err)
		}
	}
}

// Close closes the file. Every write that returned is on disk.
func (db *DB) Close() error {
	if err := db.bolt.Close(); err != nil {
		return fmt.Errorf("close state %s: %w", db.path, err)
	}
	return nil
}

// Table returns the table of that name. One noun owns it.
func (db *DB) Table(name string) Table { return &table{db: db.bolt, name: []byte(name)} }

// table is a bucket. A value is its version, 8 bytes big endian, and what the noun wrote.
type table struct {
	db   *bbolt.DB
	name []byte
}

func decode(key string, v []byte) (Item, error) {
	if len(v) < 8 {
		return Item{}, fmt.Errorf("state: value of %q has %d bytes", key, len(v))
	}
	return Item{Key: key, Version: Version(binary.BigEndian.Uint64(v)), Value: bytes.Clone(v[8:])}, nil
}

func encode(version Version, v []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(v)), uint64(version)), v...)
}

func (t *table) Get(key string) (item Item, err error) {
	err = t.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(t.name)
		if b == nil {
			return ErrNotFound
		}
		v := b.Get([]byte(key))
		if v == nil {
			return ErrNotFound
		}
		item, err = decode(key, v)
		return err
	})
	return item, err
}

func (t *table) Swap(key string, old Version, v []byte) (next Version, err error) {
	err = t.db.Batch(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(t.name)
		if err != nil {
			return err
		}
		var have Version
		if raw := b.Get([]byte(key)); len(raw) >= 8 {
			have = Version(binary.BigEndian.Uint64(raw))
		}
		if have != old {
			return ErrConflict
		}
		if v == nil {
			next = 0
			return b.Delete([]byte(key))
		}
		next = have + 1
		return b.Put([]byte(key), encode(next, v))
	})
	if err != nil && !errors.Is(err, ErrConflict) {
		err = fmt.Errorf("write state %q: %w", key, err)
	}
	return next, err
}

func (t *table) Write(items []Item) error {
	err := t.db.Batch(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(t.name)
		if err != nil {
			return err
		}
		for _, it := range items {
			if it.Value == nil {
				if err := b.Delete([]byte(it.Key)); err != nil {
					return err
				}
				continue
			}
			var have Version
			if raw := b.Get([]byte(it.Key)); len(raw) >= 8 {
				have = Version(binary.BigEndian.Uint64(raw))
			}
			if err := b.Put([]byte(it.Key), encode(have+1, it.Value)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %d items of state %s: %w", len(items), t.name, err)
	}
	return nil
}

// scanPage is how many items one read transaction yields: a long scan must not keep bbolt from reusing pages.
const scanPage = 1000

func (t *table) Scan(prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		from := []byte(prefix)
		for {
			var page []Item
			err := t.db.View(func(tx *bbolt.Tx) error {
				b := tx.Bucket(t.name)
				if b == nil {
					return nil
				}
				c := b.Cursor()
				for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
					if len(page) == scanPage {
						return nil
					}
					it, err := decode(string(k), v)
					if err != nil {
						return err
					}
					page = append(page, it)
				}
				return nil
			})
			for _, it := range page {
				if !yield(it, nil) {
					return
				}
			}
			if err != nil {
				yield(Item{}, err)
				return
			}
			if len(page) < scanPage {
				return
			}
			from = append([]byte(page[len(page)-1].Key), 0)
		}
	}
}
