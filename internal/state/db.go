package state

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/boltfile"
)

// Options for a DB. The zero value of a field means what its comment says.
type Options struct {
	Log   *slog.Logger  // nil: discard
	Every time.Duration // between copies to the last good one; 24 h
	// Expendable are the tables whose items can be learned again, with the bytes that the pages of each may take. Above that
	// its own items are removed.
	Expendable map[string]int64
	// AtOnce is up to which size, in bytes, Open checks all of the file; 16 MiB. Of a larger one it checks what is not
	// expendable; the rest is checked in the background, or by the first write.
	AtOnce int64
	// Owner returns how many bytes of a key of these tables name its upstream, and its repository, each with its separator.
	// Nil: up to the first, and to the last slash.
	Owner func(key string) (upstream, repository int)
	// Age puts the items of one owner in order: the smallest is removed first. Nil: all are equal.
	Age func(table string, value []byte) int64
}

// DB is state.db: all tables in one bbolt file. It is safe for concurrent use; concurrent writers share a transaction.
type DB struct {
	bolt *boltfile.DB // nil until the file is checked
	path string
	log  *slog.Logger
	o    Options

	checking  sync.Once
	checkErr  error // why it can't be written
	checked   atomic.Bool
	reading   sync.RWMutex     // guards unchecked; held while it is read
	unchecked *boltfile.Reader // reads the file until it is checked

	mu      sync.Mutex // guards the fields below; never held during a transaction
	queue   queue
	writing bool  // a writer leads, and will call the next one to lead
	broken  error // a write met damage; bbolt may still hold its lock

	rooms map[string]*room // by name of an expendable table; taken before mu
}

// firstCopy is how long after the start the first copy is made: a process that restarts in a loop makes none.
const firstCopy = time.Minute

// Run checks the file, if that is not done, and then copies the state once a day, starting soon after the start, until the context
// ends.
func (db *DB) Run(ctx context.Context) error {
	_ = db.check() // its error is in the log, and is that of each write
	for next := firstCopy; backoff.Wait(ctx, next); next = db.o.Every {
		err := db.Copy()
		switch {
		case err == nil:
		case boltfile.IsDamage(err):
			db.log.ErrorContext(ctx, "the state is damaged; restart the mirror, it then opens the last good copy",
				"path", db.path, "error", err)
		default:
			db.log.WarnContext(ctx, "the copy of the state failed; the one before is kept",
				"path", db.path, "next_try", db.o.Every, "error", err)
		}
	}
	return nil
}

// Copy makes path.good a copy of the present state, without its free pages. If the state is damaged, it returns an error and
// keeps the former copy.
func (db *DB) Copy() error {
	err := db.check()
	if err == nil {
		err = db.bolt.View(checkItems)
	}
	if err == nil {
		err = rewrite(db.bolt, db.path+".good")
	}
	if err != nil {
		return fmt.Errorf("copy state to %s.good: %w", db.path, err)
	}
	return nil
}

// checkItems is the error of the first item that is not what was written.
func checkItems(tx *bbolt.Tx) error {
	all, err := findDamaged(tx)
	if err == nil && len(all) > 0 {
		err = boltfile.Damaged("table %s: item %q is not what was written", all[0].table, all[0].keys[0])
	}
	return err
}

// Close closes the file. Every write that returned is on disk.
func (db *DB) Close() error {
	db.checking.Do(func() { db.checkErr = errClosed }) // else it is over now
	db.reading.Lock()
	if db.unchecked != nil {
		db.unchecked.Close()
		db.unchecked = nil
	}
	db.reading.Unlock()
	if db.bolt == nil {
		return nil
	}
	db.mu.Lock()
	broken := db.broken
	db.mu.Unlock()
	if broken != nil {
		db.bolt.Abandon() // Close would wait for the transaction that broke
		return nil
	}
	if err := db.bolt.Close(); err != nil {
		return fmt.Errorf("close state %s: %w", db.path, err)
	}
	return nil
}

// Table returns the table of that name.
func (db *DB) Table(name string) Table { return &table{db: db, name: []byte(name)} }
