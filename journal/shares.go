package journal

import (
	"cmp"
	"container/heap"
	"container/list"
	"iter"

	"github.com/registrymirror/mirror/internal/guard"
)

// holder is the party that an element of a bounded set is charged to: a client, at the address that its requests come
// from. A client can choose its name (Mirror-Node), but not its address.
type holder struct{ source, client string }

// shares is a bounded set in which one client's elements never displace another's: when there are too many, the source
// with the most elements gives one up, of that source the client with the most, and of that client the element used
// longest ago. A client that is alone may fill the set. Each operation takes logarithmic time in the number of holders.
type shares[T any] struct {
	max   int
	clock int64 // counts uses
	root  *pile
}

// pile is the elements of one source, or of one client of it; the root is all of them.
type pile struct {
	name     string
	n        int   // elements
	oldest   int64 // when the element of it used longest ago was used
	position int   // in parent.order
	parent   *pile // nil: it is the root
	children map[string]*pile
	order    piles      // children, the one that gives up first in front
	list     *list.List // of a client: *share, the one used last in front
}

// share is one element.
type share[T any] struct {
	value T
	used  int64
	pile  *pile
	place *list.Element // in pile.list
}

func newShares[T any](most int) *shares[T] {
	return &shares[T]{max: most, root: new(pile)}
}

// add takes in an element, and returns the one that has to be removed for it; nil: none has to.
func (s *shares[T]) add(h holder, value T) (added, victim *share[T]) {
	added = &share[T]{value: value}
	s.charge(added, h)
	if s.root.n > s.max {
		victim = s.victim()
	}
	return added, victim
}

// victim is the element that goes first.
func (s *shares[T]) victim() *share[T] {
	p := s.root
	for p.list == nil {
		p = p.order[0]
	}
	return p.list.Back().Value.(*share[T])
}

// all yields the elements, in no order.
func (s *shares[T]) all() iter.Seq[*share[T]] {
	return func(yield func(*share[T]) bool) {
		for _, source := range s.root.children {
			for _, client := range source.children {
				for e := client.list.Front(); e != nil; e = e.Next() {
					if !yield(e.Value.(*share[T])) {
						return
					}
				}
			}
		}
	}
}

// use makes an element the one used last.
func (s *shares[T]) use(e *share[T]) {
	s.clock++
	e.used = s.clock
	p := e.pile
	p.list.MoveToFront(e.place)
	p.reorder(p.list.Back().Value.(*share[T]).used)
}

// remove takes an element out.
func (s *shares[T]) remove(e *share[T]) {
	p := e.pile
	p.list.Remove(e.place)
	e.pile = nil
	for q := p; q != nil; q = q.parent {
		q.n--
	}
	for p.n == 0 && p.parent != nil {
		heap.Remove(&p.parent.order, p.position)
		delete(p.parent.children, p.name)
		p = p.parent
	}
	switch {
	case p.list != nil:
		p.reorder(p.list.Back().Value.(*share[T]).used)
	case len(p.order) > 0:
		p.reorder(p.order[0].oldest)
	}
}

// charge gives an element, which is in no pile, to a holder.
func (s *shares[T]) charge(e *share[T], h holder) {
	p := s.root.child(h.source).child(h.client)
	if p.list == nil {
		p.list = list.New()
	}
	e.pile, e.place = p, p.list.PushFront(e)
	for q := p; q != nil; q = q.parent {
		q.n++
	}
	s.use(e)
}

// recharge uses an element for another holder that meets it too, and charges it to that one if its source has fewer
// elements: an element that a client shares with a source that floods stays as long as one that it has alone.
func (s *shares[T]) recharge(e *share[T], h holder) {
	var n int
	if other := s.root.children[h.source]; other != nil {
		n = other.n
	}
	if e.pile.parent.name == h.source || n+1 >= e.pile.parent.n {
		s.use(e)
		return
	}
	s.remove(e)
	s.charge(e, h)
}

// holder is the party that an element is charged to.
func (e *share[T]) holder() holder { return holder{e.pile.parent.name, e.pile.name} }

// child is the pile of a name below p.
func (p *pile) child(name string) *pile {
	q := p.children[name]
	if q == nil {
		q = &pile{name: name, parent: p}
		if p.children == nil {
			p.children = make(map[string]*pile)
		}
		p.children[name] = q
		heap.Push(&p.order, q)
	}
	return q
}

// reorder puts a pile in its position after its elements have changed.
func (p *pile) reorder(oldest int64) {
	p.oldest = oldest
	for ; p.parent != nil; p = p.parent {
		heap.Fix(&p.parent.order, p.position)
		p.parent.oldest = p.parent.order[0].oldest
	}
}

// piles is a heap: the pile with the most elements in front, of equal ones that whose element was used longest ago.
type piles []*pile

func (p piles) Len() int { return len(p) }

func (p piles) Less(i, j int) bool {
	if guard.Share && p[i].n != p[j].n {
		return p[i].n > p[j].n
	}
	return cmp.Less(p[i].oldest, p[j].oldest)
}

func (p piles) Swap(i, j int) {
	p[i], p[j] = p[j], p[i]
	p[i].position, p[j].position = i, j
}

// Push is heap.Interface's.
func (p *piles) Push(x any) {
	q := x.(*pile)
	q.position = len(*p)
	*p = append(*p, q)
}

// Pop is heap.Interface's.
func (p *piles) Pop() any {
	last := len(*p) - 1
	q := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	return q
}
