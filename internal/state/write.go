package state

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/registrymirror/mirror/internal/point"
)

// Writers queue. The first becomes the leader: it takes all that wait, runs them in one transaction, calls the next in
// the queue to lead, and tells the others of its batch their results. Who comes during a transaction waits for that
// one and its own, and none waits longer: bbolt's own Batch would hold each writer back by 10 ms in the hope of
// another.

// batchMost is how many writes share a transaction.
const batchMost = 1000

// write is one writer in the queue.
type write struct {
	f    func(*bbolt.Tx) error // may run twice: it sets its results anew
	err  error
	turn chan bool // true: lead; false: it is done
}

// update runs f in a transaction that others may share. An error of f undoes what f did, and nothing of others.
func (db *DB) update(f func(*bbolt.Tx) error) error {
	w := &write{f: f, turn: make(chan bool, 1)}
	db.mu.Lock()
	db.queue = append(db.queue, w)
	leads := !db.writing
	db.writing = true
	db.mu.Unlock()
	if !leads && !<-w.turn {
		return w.err
	}
	db.mu.Lock()
	n := min(len(db.queue), batchMost)
	batch := db.queue[:n:n]
	db.queue = db.queue[n:]
	db.mu.Unlock()

	db.commit(batch)

	db.mu.Lock()
	if len(db.queue) > 0 {
		db.queue[0].turn <- true
	} else {
		db.writing, db.queue = false, nil
	}
	db.mu.Unlock()
	for _, other := range batch {
		if other != w {
			other.turn <- false
		}
	}
	return w.err
}

// commit runs a batch and sets the error of each.
func (db *DB) commit(batch []*write) {
	var guilty *write
	point.Hit("state/tx")
	err := db.transact(func(tx *bbolt.Tx) error {
		guilty = nil
		for _, w := range batch {
			if err := w.f(tx); err != nil {
				guilty = w
				return err
			}
		}
		point.Hit("state/in-tx")
		return nil
	})
	point.Hit("state/committed")
	for _, w := range batch {
		w.err = err
		if guilty != nil && len(batch) > 1 { // one undid the work of all
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
	panicked := true
	err := guard(func() error {
		err := db.bolt.Update(f)
		panicked = false
		return err
	})
	if panicked {
		err = fmt.Errorf("state can't be written until the mirror is restarted: %w", err)
		db.log.Error("the state is damaged; restart the mirror, it then opens the last good copy",
			"file", db.path, "err", err)
		db.mu.Lock()
		db.broken = err
		db.mu.Unlock()
	}
	return err
}
