// Package bounded keeps what is remembered within bounds: maps with a number of entries, and an LRU with a budget of
// costs. What is in either may be gone the next time: it is for what can be found out anew.
package bounded

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
