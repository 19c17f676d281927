package state

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// The file has a budget of its own: what strangers can make the mirror learn must not make it grow for ever. Above it, each
// write to an expendable table makes room there: some thousand items are looked at, from a place that moves on, and room is
// made where a thousand items take the most bytes, since large items are rarely what many clients need. If a few of that
// thousand take most of the bytes, they go; else half of the thousand go, side by side, so that whole pages become free.
const (
	roomLook   = 1000
	roomPlaces = 16
	roomRounds = 4         // at most, and as many again for each 100 items written, after each of which others may write
	roomTell   = time.Hour // between lines in the log
)

// Used is how many bytes of the file are in use. The rest of it is free pages, which the next writes take.
func (db *DB) Used() int64 {
	s := db.bolt.Stats()
	var size, page int64
	_ = guard(func() error {
		return db.bolt.View(func(tx *bbolt.Tx) error {
			size = tx.Size()
			page = int64(tx.DB().Info().PageSize) // in a transaction, which keeps the file from being mapped anew
			return nil
		})
	})
	return size - int64(s.FreePageN+s.PendingPageN)*page
}

// makeRoom keeps the file within its budget after a write to a table, if that is expendable.
func (db *DB) makeRoom(t *table, wrote int) {
	if !slices.Contains(db.o.Expendable, string(t.name)) || db.Used() <= db.o.Most {
		return
	}
	db.evicting.Lock()
	defer db.evicting.Unlock()
	removed := 0
	for range roomRounds + wrote/100*roomRounds {
		if db.Used() <= db.o.Most-db.o.Most/16 {
			break
		}
		n, err := db.evict(t)
		if removed += n; err != nil {
			db.log.Warn("the state is over its budget, and no room can be made in it", "file", db.path, "most", db.o.Most, "err", err)
			return
		}
	}
	if now := time.Now(); now.Sub(db.told) >= roomTell && removed > 0 {
		db.told = now
		db.log.Warn("the state has reached its budget; what can be learnt again from the upstreams makes room",
			"file", db.path, "most", db.o.Most, "table", string(t.name), "items", removed)
	}
}

// held is an item that may go.
type held struct {
	key  string
	size int
}

// evict removes some items of a table, in one transaction of pieces of a bounded size.
func (db *DB) evict(t *table) (removed int, err error) {
	var list []held
	for range roomPlaces {
		next, err := db.window(t)
		if err != nil {
			return 0, err
		}
		if bytesOf(next) > bytesOf(list) {
			list = next
		}
	}
	list = expend(list)
	for piece := range slices.Chunk(list, pieceItems) {
		err := db.update(len(piece), pieceBytes, func(tx *bbolt.Tx) error {
			b := tx.Bucket(t.name)
			if b == nil {
				return nil
			}
			for _, it := range piece {
				if _, err := t.put(b, it.key, t.versionOf(b, it.key), nil); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return removed, err
		}
		removed += len(piece)
	}
	return removed, nil
}

// window is the next items to look at. evicting is held.
func (db *DB) window(t *table) (list []held, err error) {
	from := db.hand[string(t.name)]
	err = t.view(func(b *bbolt.Bucket) error {
		c := b.Cursor()
		k, v := c.Seek([]byte(from))
		if k == nil { // round again
			k, v = c.First()
		}
		for ; k != nil && len(list) < roomLook; k, v = c.Next() {
			list = append(list, held{string(bytes.Clone(k)), len(k) + len(v)})
		}
		return nil
	})
	if n := len(list); n > 0 {
		if db.hand == nil {
			db.hand = make(map[string]string)
		}
		db.hand[string(t.name)] = list[n-1].key + "\x00"
	}
	return list, err
}

func bytesOf(list []held) (n int) {
	for _, it := range list {
		n += it.size
	}
	return n
}

// expend chooses those that go.
func expend(list []held) []held {
	all := bytesOf(list)
	large := slices.Clone(list)
	slices.SortFunc(large, func(a, b held) int { return cmp.Or(b.size-a.size, strings.Compare(a.key, b.key)) })
	few, sum := 0, 0
	for few < len(large)/8 && sum < all/2 {
		sum += large[few].size
		few++
	}
	if sum >= all/2 {
		return large[:few]
	}
	return list[:(len(list)+1)/2]
}
