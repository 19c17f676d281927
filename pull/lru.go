package pull

import (
	"container/list"
	"sync"

	"github.com/registrymirror/mirror/internal/memory"
)

// lru is a map that forgets what was used longest ago once its costs exceed a budget. Safe for concurrent use.
type lru[K comparable, V any] struct {
	budget int64
	gone   func(K, V)     // called with mu held for what leaves, replaced values included; may be nil
	memory *memory.Budget // which the costs, in bytes, are part of; nil: of none

	mu    sync.Mutex // guards what follows; before the budget's
	spent int64
	order *list.List // of *slot[K, V], the last used in front
	slots map[K]*list.Element
}

type slot[K comparable, V any] struct {
	key   K
	value V
	cost  int64
}

// within counts an lru of bytes in a budget.
func (l *lru[K, V]) within(m *memory.Budget) *lru[K, V] {
	l.memory = m
	m.Register(l)
	return l
}

func newLRU[K comparable, V any](budget int64) *lru[K, V] {
	return &lru[K, V]{budget: budget, order: list.New(), slots: make(map[K]*list.Element)}
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.slots[k]
	if !ok {
		return v, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*slot[K, V]).value, true
}

// put sets the value. What costs more than the whole budget is not kept.
func (l *lru[K, V]) put(k K, v V, cost int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.slots[k]; ok {
		l.drop(e)
	}
	if cost > l.budget {
		return
	}
	for l.memory != nil && !l.memory.Keep(cost) {
		if l.order.Len() == 0 {
			return // all is in use
		}
		l.drop(l.order.Back())
	}
	l.slots[k] = l.order.PushFront(&slot[K, V]{key: k, value: v, cost: cost})
	l.spent += cost
	for l.spent > l.budget {
		l.drop(l.order.Back())
	}
}

// Shrink implements memory.Store.
func (l *lru[K, V]) Shrink(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for before := l.spent; l.order.Len() > 0 && before-l.spent < n; {
		l.drop(l.order.Back())
	}
}

func (l *lru[K, V]) remove(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.slots[k]; ok {
		l.drop(e)
	}
}

// removeIf forgets every key that match accepts. It looks at all of them.
func (l *lru[K, V]) removeIf(match func(K) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, e := range l.slots {
		if match(k) {
			l.drop(e)
		}
	}
}

// drop takes one slot out. The caller holds mu.
func (l *lru[K, V]) drop(e *list.Element) {
	s := l.order.Remove(e).(*slot[K, V])
	delete(l.slots, s.key)
	l.spent -= s.cost
	if l.memory != nil {
		l.memory.Drop(s.cost)
	}
	if l.gone != nil {
		l.gone(s.key, s.value)
	}
}
