package bounded

import (
	"sync"
	"time"
)

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
