package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
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
	file *os.File // bolt's
	path string
	log  *slog.Logger
	o    Options

	mu      sync.Mutex // guards all below; never held during a transaction
	queue   []*write
	writing bool  // somebody runs a transaction, and will call the first of the queue
	broken  error // a write met damage; bbolt may still hold its lock
}

// firstCopy is how long after the start the first copy is made: a process that restarts in a loop has better things to
// do.
const firstCopy = time.Minute

// Run copies the state once a day, starting soon after the start, until the context ends.
func (db *DB) Run(ctx context.Context) error {
	next := firstCopy
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
			if _, ok := errors.AsType[*damageError](err); ok {
				db.log.ErrorContext(ctx, "the state is damaged; restart the mirror, it then opens the last good copy",
					"file", db.path, "err", err)
				continue
			}
			db.log.WarnContext(ctx, "the copy of the state failed; the one before is kept, and it is tried again",
				"file", db.path, "again", next, "err", err)
		}
	}
}

// Copy makes path.good a copy of the present state. A damaged one is no copy: its error keeps the one before.
func (db *DB) Copy() error {
	err := replace(db.path+".good", func(w io.Writer) error {
		return guard(func() error {
			return db.bolt.View(func(tx *bbolt.Tx) error {
				all, err := findRot(tx)
				if err != nil {
					return err
				}
				if len(all) > 0 {
					return damaged("table %s: item %q is not what was written", all[0].table, all[0].keys[0])
				}
				_, err = tx.WriteTo(w)
				return err
			})
		})
	}, check)
	if err != nil {
		return fmt.Errorf("copy state to %s.good: %w", db.path, err)
	}
	return nil
}

// Close closes the file. Every write that returned is on disk.
func (db *DB) Close() error {
	db.mu.Lock()
	broken := db.broken
	db.mu.Unlock()
	if broken != nil {
		abandon(db.file) // bbolt's Close would wait for the transaction that broke
		return nil
	}
	if err := db.bolt.Close(); err != nil {
		return fmt.Errorf("close state %s: %w", db.path, err)
	}
	return nil
}

// Table returns the table of that name. One noun owns it.
func (db *DB) Table(name string) Table { return &table{db: db, name: []byte(name)} }
