package bounded

import (
	"container/list"
	"sync"
)

// LRU is a map that forgets the entries that were used longest ago once their costs exceed a budget. Make it by NewLRU.
// It is safe for concurrent use.
type LRU[K comparable, V any] struct {
	o Options[K, V]

	mu      sync.Mutex // guards what follows; before the lock of Options.Memory
	spent   int64
	order   *list.List // of *entry[K, V], the last used in front
	entries map[K]*list.Element
}

// Options for an LRU.
type Options[K comparable, V any] struct {
	Budget int64 // of all costs together; a number of entries where each costs 1
	// Gone is called for each entry that leaves, one that is replaced included, with the LRU locked. Nil: nothing is.
	Gone func(K, V)
	// Memory is a budget of bytes that the costs are a part of, too. Nil: there is none.
	Memory Memory
}

// Memory is a budget that several share.
type Memory interface {
	// Keep takes n bytes, unless all are in use.
	Keep(n int64) bool
	// Drop gives back n bytes.
	Drop(n int64)
}

type entry[K comparable, V any] struct {
	key   K
	value V
	cost  int64
}

// NewLRU makes an LRU.
func NewLRU[K comparable, V any](o Options[K, V]) *LRU[K, V] {
	return &LRU[K, V]{o: o, order: list.New(), entries: make(map[K]*list.Element)}
}

// Get returns an entry, which is a use of it.
func (l *LRU[K, V]) Get(key K) (v V, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[key]
	if !ok {
		return v, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*entry[K, V]).value, true
}

// Put sets an entry. One that costs more than the whole budget, or for which there is no memory, is not kept.
func (l *LRU[K, V]) Put(key K, value V, cost int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.entries[key]; ok {
		l.drop(e)
	}
	if cost > l.o.Budget {
		return
	}
	for l.o.Memory != nil && !l.o.Memory.Keep(cost) {
		if l.order.Len() == 0 {
			return
		}
		l.drop(l.order.Back())
	}
	l.entries[key] = l.order.PushFront(&entry[K, V]{key: key, value: value, cost: cost})
	l.spent += cost
	for l.spent > l.o.Budget {
		l.drop(l.order.Back())
	}
}

// Len is the number of entries.
func (l *LRU[K, V]) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order.Len()
}

// Remove forgets an entry.
func (l *LRU[K, V]) Remove(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.entries[key]; ok {
		l.drop(e)
	}
}

// RemoveIf forgets every entry whose key is accepted. It looks at all of them.
func (l *LRU[K, V]) RemoveIf(match func(K) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, e := range l.entries {
		if match(k) {
			l.drop(e)
		}
	}
}

// Shrink forgets entries that cost at least n together, as far as there are so many.
func (l *LRU[K, V]) Shrink(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for before := l.spent; l.order.Len() > 0 && before-l.spent < n; {
		l.drop(l.order.Back())
	}
}

// drop takes an entry out. The lock is held.
func (l *LRU[K, V]) drop(e *list.Element) {
	x := l.order.Remove(e).(*entry[K, V])
	delete(l.entries, x.key)
	l.spent -= x.cost
	if l.o.Memory != nil {
		l.o.Memory.Drop(x.cost)
	}
	if l.o.Gone != nil {
		l.o.Gone(x.key, x.value)
	}
}
