package catalog

import (
	"hash/maphash"
	"sync"
)

// memory is a bounded map: entries that are read often stay. It is split into shards so that readers on many cores don't meet.
// Each shard has two generations: a full young one becomes the old one, and an entry that is read in the old one moves up.
// That is an LRU to within a factor of two, at the cost of a map look-up.
type memory[V any] struct {
	seed   maphash.Seed
	shards [16]shard[V]
}

type shard[V any] struct {
	mu         sync.Mutex
	young, old map[string]V
	room       int           // how much a generation may take
	taken      int           // by the young one
	cost       func(v V) int // of an entry; nil: 1
}

// newMemory makes a memory of so many entries, or of as much as they cost.
func newMemory[V any](entries int, cost func(v V) int) *memory[V] {
	m := &memory[V]{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i] = shard[V]{young: make(map[string]V), room: max(1, entries/2/len(m.shards)), cost: cost}
	}
	return m
}

func (m *memory[V]) shard(key string) *shard[V] {
	return &m.shards[maphash.String(m.seed, key)%uint64(len(m.shards))]
}

// find looks a key up and moves it up. The lock is held.
func (s *shard[V]) find(key string) (V, bool) {
	if v, ok := s.young[key]; ok {
		return v, true
	}
	v, ok := s.old[key]
	if ok {
		s.set(key, v)
	}
	return v, ok
}

// set puts a key into the young generation. The lock is held.
func (s *shard[V]) set(key string, v V) {
	delete(s.old, key)
	s.replace(key)
	n := s.of(v)
	if len(s.young) > 0 && s.taken+n > s.room {
		s.old, s.young, s.taken = s.young, make(map[string]V, len(s.young)/4), 0
	}
	s.young[key] = v
	s.taken += n
}

// of is what an entry costs.
func (s *shard[V]) of(v V) int {
	if s.cost == nil {
		return 1
	}
	return s.cost(v)
}

// replace takes a key out of the young generation.
func (s *shard[V]) replace(key string) {
	if v, ok := s.young[key]; ok {
		s.taken -= s.of(v)
		delete(s.young, key)
	}
}

func (m *memory[V]) get(key string) (V, bool) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(key)
}

func (m *memory[V]) put(key string, v V) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(key, v)
}

// update replaces the value of a key in one step: f gets the old value and returns the new one. It must not use the memory.
func (m *memory[V]) update(key string, f func(have V, ok bool) V) V {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	v := f(s.find(key))
	s.set(key, v)
	return v
}

// offer puts v if the key has no value, and returns its value.
func (m *memory[V]) offer(key string, v V) V {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.find(key); ok {
		return have
	}
	s.set(key, v)
	return v
}

// refresh puts v if the key has a value, which is not a use.
func (m *memory[V]) refresh(key string, v V) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.young[key]; ok {
		s.set(key, v)
	} else if _, ok := s.old[key]; ok {
		s.old[key] = v
	}
}

func (m *memory[V]) drop(key string) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(key)
	delete(s.old, key)
}
