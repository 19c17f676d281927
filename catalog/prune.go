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

// Cached is what Prune wants to know of the cache.
type Cached struct {
	// Has reports whether content is there, or may be. It must be quick.
	Has func(d oci.Digest) bool
	// Parts are what a manifest that is there refers to.
	Parts func(mediaType string, d oci.Digest) ([]oci.Digest, error)
}

// pruneBatch is how many references are removed in one write; who learns one of them waits for it.
const pruneBatch = 256

// Prune forgets what leads to nothing: references to content that is not in the cache and that no manifest of the same
// repository refers to that is. If such content is pulled again, its upstream is asked for it in any case, and it is learnt
// anew; so nothing is lost by one that is removed too much. One Prune runs at a time; everything else goes on meanwhile, and
// what is learnt or used during it stays.
//
// An error is that of the context or of the table. A repository of which a manifest can't be read stays as it is.
func (c *Catalog) Prune(ctx context.Context, cached Cached) (removed int, err error) {
	c.pruning.Lock()
	defer c.pruning.Unlock()
	c.removal.watch(true)
	defer c.removal.watch(false)
	var (
		repo  string
		known bool                // keep is repo's: it takes reading manifests, and most lack nothing
		keep  map[oci.Digest]bool // nil: everything
		batch []string
	)
	flush := func() error {
		n, err := c.prune(batch, cached.Has)
		removed += n
		batch = batch[:0]
		return err
	}
	for it, err := range c.refs.Scan("") {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return removed, fmt.Errorf("look for what references lead to: %w", err)
		}
		at := strings.LastIndexByte(it.Key, '@')
		if at < 0 {
			continue
		}
		if it.Key[:at] != repo {
			if err := flush(); err != nil {
				return removed, err
			}
			repo, known = it.Key[:at], false
		}
		d := oci.Digest(it.Key[at+1:])
		if cached.Has(d) {
			continue
		}
		if !known {
			if keep, err = c.inUse(ctx, repo, cached); err != nil {
				return removed, err
			}
			known = true
		}
		if keep == nil || keep[d] {
			continue
		}
		if batch = append(batch, it.Key); len(batch) == pruneBatch {
			if err := flush(); err != nil {
				return removed, err
			}
		}
	}
	return removed, flush()
}

// inUse is what the manifests of a repository refer to that are there. Nil: one can't be read.
func (c *Catalog) inUse(ctx context.Context, repo string, cached Cached) (map[oci.Digest]bool, error) {
	keep := make(map[oci.Digest]bool)
	for it, err := range c.refs.Scan(repo + "@") {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("look for what %s refers to: %w", repo, err)
		}
		m, ok := c.decode(it)
		d := oci.Digest(it.Key[len(repo)+1:])
		if !ok || !m.Own || !cached.Has(d) {
			continue
		}
		parts, err := cached.Parts(m.MediaType, d)
		if err != nil {
			c.log.DebugContext(ctx, "a manifest can't be read; what its repository refers to stays recorded", "repository", repo,
				"digest", d, "err", err)
			return nil, ctx.Err()
		}
		for _, p := range parts {
			keep[p] = true
		}
	}
	return keep, nil
}

// prune removes references, but for those that have come into use since they were found.
func (c *Catalog) prune(keys []string, has func(oci.Digest) bool) (int, error) {
	var items []state.Item
	for _, key := range keys {
		if !has(oci.Digest(key[strings.LastIndexByte(key, '@')+1:])) {
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
	}
	if err != nil {
		return 0, fmt.Errorf("remove %d references: %w", len(items), err)
	}
	return len(items), nil
}

// removal keeps what is removed apart from what is learnt and used at the same time. Nobody waits for it but who learns
// what is just being removed.
type removal struct {
	active  atomic.Bool   // a Prune runs
	batches atomic.Uint64 // counts beginnings and ends of writes that remove

	mu    sync.Mutex      // guards what follows; a leaf
	used  map[string]bool // keys that were learnt or used since the last watch
	going map[string]bool // keys that are being removed
	gone  chan struct{}   // closed when they are
}

// watch forgets what was used, and begins or ends to note what is.
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
