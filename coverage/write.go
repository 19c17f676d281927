package coverage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/state"
)

// Run writes until the context ends, and then once more.
func (r *Record) Run(ctx context.Context) error {
	if r.table == nil {
		return nil
	}
	r.failed(r.writeSpan(false))
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.flush(false)
		case <-r.full:
			r.flush(false)
		case <-ctx.Done():
			return nil
		}
	}
}

// Close writes what waits: no pull is noted after it.
func (r *Record) Close() {
	if r.table != nil {
		r.flush(true)
	}
}

// flush writes what waits, and that it was written.
func (r *Record) flush(last bool) {
	now := time.Now()
	r.mu.Lock()
	pending := r.pending
	r.pending, r.count, r.writing = make(map[string]*waiting), 0, pending
	idle := len(pending) == 0 && now.Sub(r.span.Alive) < aliveEvery && !last
	r.mu.Unlock()
	if idle {
		return
	}
	var failed error
	for _, key := range slices.Sorted(maps.Keys(pending)) {
		if err := r.write(key, pending[key]); err != nil {
			failed = err
			r.put(key, pending[key].source, slices.Collect(maps.Values(pending[key].list)))
		}
	}
	failed = cmp.Or(failed, r.shrink())
	r.mu.Lock()
	r.writing = nil
	if failed == nil {
		r.lastRun, r.span.Alive = now, now.UTC().Truncate(time.Second)
	}
	r.mu.Unlock()
	if failed == nil {
		failed = r.writeSpan(last)
	}
	r.failed(failed)
}

// failed logs an error of a write, once for as long as writes fail.
func (r *Record) failed(err error) {
	if err != nil && !r.failing {
		r.log.Error("cannot write which client got which image; it is tried again; check the disk", "error", err)
	}
	r.failing = err != nil
}

func (r *Record) writeSpan(clean bool) error {
	r.mu.Lock()
	r.span.Clean = clean
	b, err := json.Marshal(r.span)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.table.Write([]state.Item{{Key: spanKey, Value: b}})
}

// write writes what waits of one client.
func (r *Record) write(key string, w *waiting) error {
	have, err := r.stored(key)
	if err != nil {
		return err
	}
	list := merged(have, w.list)
	if err := r.table.Write([]state.Item{{Key: key, Value: encode(w.source, list)}}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.clients[key]; h != nil {
		r.entries -= h.n
	}
	r.clients[key] = &holding{w.source, len(list), lastOf(list)}
	r.entries += len(list)
	return nil
}

// stored reads the entries of a client. Those that can't be read are forgotten.
func (r *Record) stored(key string) ([]Entry, error) {
	it, err := r.table.Get(key)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, list, _ := decode(it.Value)
	return list, nil
}

// merged are entries with later ones, sorted by key: maxOfClient of them, those seen last.
func merged(have []Entry, next map[Key]Entry) []Entry {
	list := make([]Entry, 0, len(have)+len(next))
	known := make(map[Key]bool, len(have))
	for _, e := range have {
		if n, ok := next[e.Key]; ok {
			e = e.add(n)
		}
		known[e.Key] = true
		list = append(list, e)
	}
	for k, e := range next {
		if !known[k] {
			list = append(list, e)
		}
	}
	if len(list) > maxOfClient {
		slices.SortFunc(list, func(a, b Entry) int { return cmp.Or(cmp.Compare(b.Last, a.Last), cmp.Compare(a.Key, b.Key)) })
		list = list[:maxOfClient:maxOfClient]
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// shrink removes clients while the record is above its bound. It goes a sixteenth below the bound, so that the next time is not soon.
func (r *Record) shrink() error {
	r.mu.Lock()
	var gone []string
	if r.entries > maxEntries {
		gone = r.beyond(maxEntries - maxEntries/16)
		r.log.Warn("the record of which client got which image is full; clients of the addresses with most of it are forgotten",
			"limit", maxEntries, "count", len(gone))
	}
	r.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	items := make([]state.Item, len(gone))
	for i, key := range gone {
		items[i].Key = key
	}
	return r.table.Write(items)
}

// beyond forgets clients, down to so many entries, and returns their keys: first of the addresses that have a large part of the
// record, the largest first, and then, where that is not enough, those seen longest ago. The lock is held.
func (r *Record) beyond(most int) (gone []string) {
	sizes := make(map[string]int)
	for _, h := range r.clients {
		sizes[h.source] += h.n
	}
	keys := slices.SortedFunc(maps.Keys(r.clients), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.clients[a].last, r.clients[b].last), strings.Compare(a, b))
	})
	forget := func(key string) {
		h := r.clients[key]
		sizes[h.source] -= h.n
		r.entries -= h.n
		delete(r.clients, key)
		gone = append(gone, key)
	}
	for r.entries > most {
		largest, n := "", 0
		for source, size := range sizes {
			if size > n || size == n && source < largest {
				largest, n = source, size
			}
		}
		if n <= largePart {
			break
		}
		for _, key := range keys {
			if h := r.clients[key]; h != nil && h.source == largest && sizes[largest] > largePart && r.entries > most {
				forget(key)
			}
		}
	}
	if r.entries <= maxEntries {
		most = r.entries
	}
	for _, key := range keys {
		if r.clients[key] != nil && r.entries > most {
			forget(key)
		}
	}
	// Of a client that is gone it is not known what it got.
	r.gap(r.span.Since, time.Now())
	return gone
}
