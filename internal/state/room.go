package state

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Items that clients can make the mirror learn must not make the file grow for ever. Each expendable table has a budget of
// its own, and counts its own pages alone: items of one table take nothing from another. Above it, a write to the table
// removes items there. They are chosen by owner: repositories that have a quarter of a table go down to the level at which the
// rest fits, so that a flood in one repository takes that repository's items. Where none has so much, a flood is in many
// repositories, and the upstreams with the most bytes lose items, each of its largest repositories. Of one owner the oldest
// items are removed, by the time that Options.Age reads from them. Where large items take most of a table, they alone count.
const (
	roomItems  = 20_000    // how many one write removes at most, and four times as many as it has itself
	roomRounds = 4         // how often items are chosen at most: removals here and there leave pages half full
	roomShare  = 4         // the part of a table, a quarter, above which a repository loses items before others
	roomLarge  = 8 << 10   // bytes of an item that few clients need
	roomLog    = time.Hour // between lines in the log, for each table
	itemHead   = 16        // bytes that bbolt needs for an item beside its key and value
)

// Used is how many bytes of the file are in use. The rest of it is free pages, which the next writes take.
func (db *DB) Used() int64 {
	if err := db.check(); err != nil {
		return 0
	}
	return db.used()
}

func (db *DB) used() int64 {
	s := db.bolt.Stats()
	var size, page int64
	_ = db.bolt.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		page = int64(tx.DB().Info().PageSize) // in a transaction, which keeps the file from being mapped again
		return nil
	})
	return size - int64(s.FreePageN+s.PendingPageN)*page
}

// room is what a table takes.
type room struct {
	mu     sync.Mutex // guards what follows; held while items are removed, so that only writers of this table wait
	known  bool
	bytes  int64     // of its pages, at most: measured, and all that was written since
	logged time.Time // when it was last logged that the budget is reached
}

// makeRoom keeps a table within its budget after a write of items with so many bytes, if it is expendable.
func (db *DB) makeRoom(t *table, wrote, size int) {
	r := db.rooms[string(t.name)]
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	budget := db.o.Expendable[string(t.name)]
	r.bytes += 2 * int64(size+wrote*(valueHead+itemHead)) // pages are half full at least
	if r.known && r.bytes <= budget {
		return
	}
	removed, err := db.shrink(t, r, budget, roomItems+4*wrote)
	if err != nil {
		db.log.Warn("the state is over its budget, and items can't be removed", "path", db.path, "limit", budget,
			"table", string(t.name), "error", err)
		return
	}
	if now := time.Now(); now.Sub(r.logged) >= roomLog && removed > 0 {
		r.logged = now
		db.log.Warn("the state has reached its budget; items that can be learned again from the upstreams are removed",
			"path", db.path, "limit", budget, "table", string(t.name), "items", removed)
	}
}

// measure measures the expendable tables, so that no write has to.
func (db *DB) measure() {
	for name, r := range db.rooms {
		r.mu.Lock()
		if _, pages, err := db.owners(&table{db: db, name: []byte(name)}); err == nil {
			r.known, r.bytes = true, pages
		}
		r.mu.Unlock()
	}
}

// shrink measures a table and removes up to most items of it, down to an eighth below its budget, so that the next time is
// not soon.
func (db *DB) shrink(t *table, r *room, budget int64, most int) (removed int, err error) {
	for range roomRounds {
		owners, pages, err := db.owners(t)
		if err != nil {
			return removed, err
		}
		r.known, r.bytes = true, pages
		if pages <= budget-budget/16 || removed >= most {
			return removed, nil
		}
		all := bytesOf(owners)
		goal := budget - budget/8
		need := all - int64(float64(all)*float64(goal)/float64(pages)) // in bytes of items
		list, err := t.choose(owners, need, most-removed)
		if err != nil {
			return removed, err
		}
		n, err := db.remove(t, list)
		if removed += n; err != nil {
			return removed, err
		}
	}
	_, r.bytes, err = db.owners(t)
	return removed, err
}

// owner is a repository, or an upstream, with the bytes of its items.
type owner struct {
	prefix   string // of its keys
	upstream int    // the length of the prefix that is its upstream's
	bytes    int64
	large    int64 // of these, in items of more than roomLarge
}

// owners measures a table: its owners in order, and the bytes of its pages.
func (db *DB) owners(t *table) (list []owner, pages int64, err error) {
	err = t.view(func(b *bbolt.Bucket) error {
		s := b.Stats()
		pages = int64(s.LeafAlloc + s.BranchAlloc)
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			n := len(list)
			if n == 0 || !bytes.HasPrefix(k, []byte(list[n-1].prefix)) {
				upstream, repository := db.owner(string(k))
				list = append(list, owner{prefix: string(k[:repository]), upstream: upstream})
				n++
			}
			size := int64(len(k) + len(v))
			if list[n-1].bytes += size; size > roomLarge {
				list[n-1].large += size
			}
		}
		return nil
	})
	return list, pages, err
}

// owner is how many bytes of a key name its upstream and its repository, both with their separators.
func (db *DB) owner(key string) (upstream, repository int) {
	if db.o.Owner != nil {
		return db.o.Owner(key)
	}
	return strings.IndexByte(key, '/') + 1, strings.LastIndexByte(key, '/') + 1
}

func bytesOf(list []owner) (n int64) {
	for _, o := range list {
		n += o.bytes
	}
	return n
}

// level is the number of bytes down to which owners go so that need bytes become free.
func level(list []owner, need int64) int64 {
	sum := int64(0)
	list = slices.SortedFunc(slices.Values(list), largest)
	for i, o := range list {
		sum += o.bytes
		next := int64(0)
		if i+1 < len(list) {
			next = list[i+1].bytes
		}
		if n := int64(i + 1); sum-next*n >= need {
			return (sum - need) / n
		}
	}
	return 0
}

func largest(a, b owner) int {
	return cmp.Or(cmp.Compare(b.bytes, a.bytes), strings.Compare(a.prefix, b.prefix))
}

// choose returns at most so many keys of items to remove, with need bytes.
func (t *table) choose(owners []owner, need int64, most int) (keys []string, err error) {
	large := int64(0)
	for _, o := range owners {
		large += o.large
	}
	if large > bytesOf(owners)/2 {
		owners = slices.Clone(owners)
		for i := range owners {
			owners[i].bytes = owners[i].large
		}
		return t.take(nil, owners, min(need, large), most)
	}
	share := bytesOf(owners) / roomShare
	if slices.ContainsFunc(owners, func(o owner) bool { return o.bytes >= share }) {
		owners = slices.DeleteFunc(slices.Clone(owners), func(o owner) bool { return o.bytes < share/2 })
		return t.take(nil, owners, need, most)
	}
	groups := make(map[string][]owner)
	var upstreams []owner
	for _, o := range owners {
		name := o.prefix[:o.upstream]
		groups[name] = append(groups[name], o)
	}
	for name, group := range groups {
		upstreams = append(upstreams, owner{prefix: name, bytes: bytesOf(group)})
	}
	down := level(upstreams, need)
	slices.SortFunc(upstreams, largest)
	for _, up := range upstreams {
		if up.bytes <= down {
			break
		}
		if keys, err = t.take(keys, groups[up.prefix], up.bytes-down, most); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// take adds keys of the largest of some owners.
func (t *table) take(keys []string, owners []owner, need int64, most int) ([]string, error) {
	down := level(owners, need)
	for _, o := range slices.SortedFunc(slices.Values(owners), largest) {
		if o.bytes <= down || need <= 0 || len(keys) >= most {
			break
		}
		list, err := t.candidates(o)
		if err != nil {
			return nil, err
		}
		for left := o.bytes - down; len(list) > 0 && left > 0 && need > 0 && len(keys) < most; list = list[1:] {
			keys = append(keys, list[0].key)
			left, need = left-list[0].size, need-list[0].size
		}
	}
	return keys, nil
}

// candidate is an item that may be removed.
type candidate struct {
	key  string
	size int64
	age  int64 // the smallest is removed first
}

// candidates returns the items of an owner, in the order in which they are removed.
func (t *table) candidates(o owner) (list []candidate, err error) {
	err = t.view(func(b *bbolt.Bucket) error {
		c := b.Cursor()
		for k, v := c.Seek([]byte(o.prefix)); k != nil && bytes.HasPrefix(k, []byte(o.prefix)); k, v = c.Next() {
			it := candidate{key: string(k), size: int64(len(k) + len(v))}
			if t.db.o.Age != nil && len(v) > valueHead {
				it.age = t.db.o.Age(string(t.name), v[valueHead:])
			}
			list = append(list, it)
		}
		return nil
	})
	slices.SortFunc(list, func(a, b candidate) int { // of equals the last: they are side by side, and whole pages become free
		return cmp.Or(cmp.Compare(b.size/roomLarge, a.size/roomLarge), cmp.Compare(a.age, b.age), strings.Compare(b.key, a.key))
	})
	return list, err
}

// remove removes items, in transactions of a bounded size.
func (db *DB) remove(t *table, keys []string) (removed int, err error) {
	for piece := range slices.Chunk(keys, pieceItems) {
		err := db.update(len(piece), pieceBytes, func(tx *bbolt.Tx) error {
			b := tx.Bucket(t.name)
			if b == nil {
				return nil
			}
			for _, key := range piece {
				if _, err := t.put(b, key, t.versionOf(b, key), nil); err != nil {
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
