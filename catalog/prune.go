package catalog

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// pruneBatch is how many records are removed in one write; a caller that learns one of them waits for it.
const pruneBatch = 256

// Prune removes the records of content that is not in the cache: if it is pulled again its upstream is asked for it in any
// case, and it is learnt anew. So nothing is lost by a record that is removed too early. cached reports whether content is in
// the cache, or may be; it must be quick. A repository without records is removed, too. One Prune runs at a time; all other
// calls go on meanwhile, and records that are learnt or used during it stay.
//
// An error is that of the context or of the table.
func (c *content) Prune(ctx context.Context, cached func(d oci.Digest) bool) (removed int, err error) {
	c.pruning.Lock()
	defer c.pruning.Unlock()
	c.removal.watch(true)
	defer c.removal.watch(false)
	var (
		batch []string
		empty string // key of a repository of which nothing was found so far
	)
	flush := func() error {
		n, err := c.prune(batch, cached)
		removed += n
		batch = batch[:0]
		return err
	}
	remove := func(key string) error {
		if batch = append(batch, key); len(batch) == pruneBatch {
			return flush()
		}
		return nil
	}
	for it, err := range c.refs.Scan("") {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return removed, fmt.Errorf("look for records of content that is gone: %w", err)
		}
		at := strings.LastIndexByte(it.Key, '@')
		if at < 0 {
			continue
		}
		repo, d := it.Key[:at+1], oci.Digest(it.Key[at+1:])
		if empty != "" && repo != empty {
			if err := remove(empty); err != nil {
				return removed, err
			}
			empty = ""
		}
		switch {
		case d == "":
			empty = it.Key
		case cached(d):
			empty = ""
		default:
			if err := remove(it.Key); err != nil {
				return removed, err
			}
		}
	}
	if empty != "" {
		batch = append(batch, empty)
	}
	return removed, flush()
}

// prune removes records, except those that have been used since they were found.
func (c *content) prune(keys []string, has func(oci.Digest) bool) (int, error) {
	var items []state.Item
	for _, key := range keys {
		if d := oci.Digest(key[strings.LastIndexByte(key, '@')+1:]); d == "" || !has(d) {
			items = append(items, state.Item{Key: key})
		}
	}
	if len(items) == 0 {
		return 0, nil
	}
	items, done := c.removal.begin(items)
	defer done()
	if len(items) == 0 {
		return 0, nil
	}
	err := c.refs.Write(items)
	for _, it := range items {
		c.members.drop(it.Key)
		c.repositories.drop(it.Key)
	}
	if err != nil {
		return 0, fmt.Errorf("remove %d records: %w", len(items), err)
	}
	return len(items), nil
}

// removal keeps the records that are being removed apart from those that are learnt and used at the same time. Only a caller
// that learns a record which is just being removed waits.
type removal struct {
	active  atomic.Bool   // a Prune runs
	batches atomic.Uint64 // counts beginnings and ends of writes that remove

	mu    sync.Mutex      // guards what follows; a leaf
	used  map[string]bool // keys that were learnt or used since the last watch
	going map[string]bool // keys that are being removed
	gone  chan struct{}   // closed when they are
}

// watch forgets the used keys, and begins or ends to note them.
func (r *removal) watch(active bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active.Store(active)
	r.used = make(map[string]bool)
}

// uses notes that a key is used.
func (r *removal) uses(key string) {
	if !r.active.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used[key] = true
}

// learns notes that a key is learnt, and waits for the end of its removal, if that has begun.
func (r *removal) learns(key string) {
	if !r.active.Load() {
		return
	}
	r.mu.Lock()
	r.used[key] = true
	going, gone := r.going[key], r.gone
	r.mu.Unlock()
	if going {
		<-gone
	}
}

// begin begins the removal of those items that are not in use, until done.
func (r *removal) begin(items []state.Item) (unused []state.Item, done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.going, r.gone = make(map[string]bool), make(chan struct{})
	for _, it := range items {
		if !r.used[it.Key] {
			unused = append(unused, it)
			r.going[it.Key] = true
		}
	}
	r.batches.Add(1)
	return unused, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.going = nil
		r.batches.Add(1)
		close(r.gone)
	}
}
