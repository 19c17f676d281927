package state

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/registrymirror/mirror/internal/boltfile"
	"github.com/registrymirror/mirror/internal/point"
)

// Writers queue. The first becomes the leader: it runs transactions, each with as many waiting writes as may share one, until
// its own write is done; then it makes another writer the leader. A writer that comes during a transaction waits for that one
// and its own. bbolt's own Batch would delay each writer by 10 ms, to wait for others.
//
//	small writes ──┐
//	               ├──► a transaction: small ones first, then one piece or more of large ones, within bounds
//	large, in ─────┘
//	pieces, in turn
//
// A large write comes in pieces, each with a transaction of its own and at the end of the queue again, so that writers take
// turns; and a small one, which a client waits for, never waits for more than the piece that is being written.
const (
	batchMost  = 1000      // writes that share a transaction
	batchItems = 1000      // items of theirs
	batchBytes = 512 << 10 // of those items, if there is more than one write
	pieceItems = 500
	pieceBytes = 256 << 10
	smallItems = 64 // up to which a write is small
	smallBytes = 16 << 10
)

// write is one writer in the queue.
type write struct {
	f     func(*bbolt.Tx) error // may run twice, and sets its results each time
	items int
	bytes int
	err   error
	done  bool      // guarded by the DB's mutex
	turn  chan bool // true: lead; false: it is done
}

func (w *write) small() bool { return w.items <= smallItems && w.bytes <= smallBytes }

// queue holds the writes that wait.
type queue struct{ small, large []*write }

func (q *queue) add(w *write) {
	if w.small() {
		q.small = append(q.small, w)
	} else {
		q.large = append(q.large, w)
	}
}

// next is the write that leads next, nil where no write waits.
func (q *queue) next() *write {
	switch {
	case len(q.small) > 0:
		return q.small[0]
	case len(q.large) > 0:
		return q.large[0]
	}
	return nil
}

// batch takes out the writes that share a transaction.
func (q *queue) batch() (list []*write) {
	items, bytes := 0, 0
	take := func(from []*write, least int) []*write {
		n := 0
		for n < len(from) && len(list) < batchMost &&
			(n < least || items+from[n].items <= batchItems && bytes+from[n].bytes <= batchBytes) {
			items, bytes = items+from[n].items, bytes+from[n].bytes
			list = append(list, from[n])
			n++
		}
		if n == len(from) {
			return nil
		}
		return from[n:]
	}
	q.small = take(q.small, 1)
	q.large = take(q.large, 1) // one in any case: an endless row of small ones must not keep it waiting
	return list
}

// update runs f, which writes so many items and bytes, in a transaction that other writes may share. An error of f undoes
// what f did, and nothing else.
func (db *DB) update(items, bytes int, f func(*bbolt.Tx) error) error {
	if err := db.check(); err != nil {
		return err
	}
	w := &write{f: f, items: items, bytes: bytes, turn: make(chan bool, 1)}
	db.mu.Lock()
	db.queue.add(w)
	leads := !db.writing
	db.writing = true
	db.mu.Unlock()
	if !leads && !<-w.turn {
		return w.err
	}
	for !db.lead(w) {
	}
	return w.err
}

// lead runs one transaction and reports whether w was in it. Then another one leads.
func (db *DB) lead(w *write) bool {
	db.mu.Lock()
	batch := db.queue.batch()
	db.mu.Unlock()

	db.commit(batch)

	db.mu.Lock()
	for _, other := range batch {
		if other.done = true; other != w {
			other.turn <- false
		}
	}
	if w.done {
		if next := db.queue.next(); next != nil {
			next.turn <- true
		} else {
			db.writing = false
		}
	}
	db.mu.Unlock()
	return w.done
}

// commit runs a batch and sets the error of each.
func (db *DB) commit(batch []*write) {
	var failed *write
	point.Hit("state/tx")
	err := db.transact(func(tx *bbolt.Tx) error {
		failed = nil
		for _, w := range batch {
			if err := w.f(tx); err != nil {
				failed = w
				return err
			}
		}
		point.Hit("state/in-tx")
		return nil
	})
	point.Hit("state/committed")
	for _, w := range batch {
		w.err = err
		if failed != nil && len(batch) > 1 { // its error undid the others
			w.err = db.transact(w.f)
		}
	}
}

func (db *DB) transact(f func(*bbolt.Tx) error) error {
	db.mu.Lock()
	broken := db.broken
	db.mu.Unlock()
	if broken != nil {
		return broken
	}
	err := db.bolt.Update(f)
	if boltfile.IsDamage(err) {
		err = fmt.Errorf("state can't be written until the mirror is restarted: %w", err)
		db.log.Error("the state is damaged; restart the mirror, it then opens the last good copy",
			"path", db.path, "error", err)
		db.mu.Lock()
		db.broken = err
		db.mu.Unlock()
	}
	return err
}
