// Package bounded keeps what is remembered within bounds: maps with a number of entries, and an LRU with a budget of
// costs. What is in either may be gone the next time: it is for what can be found out anew.
package bounded

import (
	"sync"
	"time"
)

// Put sets an entry of a map, which is made if it is nil. A map that has the most entries is emptied before a new key is
// added: that is for maps which are seldom full, and whose entries cost little to find out anew. The caller holds the
// map's lock.
func Put[K comparable, V any](m *map[K]V, key K, value V, most int) {
	if *m == nil {
		*m = make(map[K]V)
	}
	if _, known := (*m)[key]; !known && len(*m) >= most {
		clear(*m)
	}
	(*m)[key] = value
}

// Expiring remembers values for a time. The zero value remembers nothing yet. It is safe for concurrent use.
type Expiring[K comparable, V any] struct {
	mu sync.Mutex // guards m; a leaf
	m  map[K]expiring[V]
}

type expiring[V any] struct {
	value V
	until time.Time // when it is no longer remembered
}

// Put remembers a value for a time, as one of at most so many: see the function Put.
func (e *Expiring[K, V]) Put(key K, value V, life time.Duration, most int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	Put(&e.m, key, expiring[V]{value, time.Now().Add(life)}, most)
}

// Get is the value of a key. False: none is remembered.
func (e *Expiring[K, V]) Get(key K) (V, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.m[key]
	if !time.Now().Before(x.until) {
		delete(e.m, key)
		return *new(V), false
	}
	return x.value, true
}

// Has reports whether the value of a key is remembered.
func (e *Expiring[K, V]) Has(key K) bool {
	_, ok := e.Get(key)
	return ok
}

// Delete forgets a value, and reports whether it was remembered.
func (e *Expiring[K, V]) Delete(key K) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	was := time.Now().Before(e.m[key].until)
	delete(e.m, key)
	return was
}

// Clear forgets all values.
func (e *Expiring[K, V]) Clear() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.m)
}
