package catalog

import (
	"fmt"
	"testing"
)

func TestMemoryIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	m := newMemory[int](1600, nil)
	m.put("used", -1)
	for i := range 100_000 {
		m.put(fmt.Sprint(i), i)
		if _, ok := m.get("used"); !ok {
			t.Fatalf("what is used all the time was dropped after %d others", i)
		}
	}
	if n := m.len(); n > 1600 {
		t.Errorf("%d entries, the bound is 1600", n)
	}
	m.drop("used")
	if _, ok := m.get("used"); ok {
		t.Error("dropped, and still there")
	}
}

// Entries that cost more leave room for fewer, and one that costs more than there is room for is remembered alone.
func TestMemoryByCost(t *testing.T) {
	t.Parallel()
	m := newMemory(1600, func(v int) int { return v })
	for i := range 10_000 {
		m.put(fmt.Sprint(i), 10)
		if i%100 == 0 {
			m.put("large", 1000)
			if v, ok := m.get("large"); !ok || v != 1000 {
				t.Fatal("the last entry is not remembered")
			}
			m.update("small", func(int, bool) int { return 1 })
			m.refresh("small", 2)
			m.drop("small")
		}
	}
	if n := m.len(); n > 161 {
		t.Errorf("%d entries of 10, the room is 1600", n)
	}
	for i := range m.shards {
		s, taken := &m.shards[i], 0
		for _, v := range s.young {
			taken += v
		}
		if taken != s.taken {
			t.Errorf("shard %d: %d are taken, it counts %d", i, taken, s.taken)
		}
	}
}

func (m *memory[V]) len() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		n += len(s.young) + len(s.old)
	}
	return n
}
