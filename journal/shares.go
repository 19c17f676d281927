package journal

import (
	"cmp"
	"container/heap"
	"container/list"

	"github.com/registrymirror/mirror/internal/guard"
)

// holder is to whom a bounded thing is charged: a client, behind the address that its requests come from. A client may
// call itself what it likes (Mirror-Node); the address is what it can't choose.
type holder struct{ source, client string }

// shares is a bounded set in which one client's elements never displace another's: when there are too many, the source
// that holds most gives one up, of that the client that holds most, and of that the element used longest ago. A client
// that is alone may fill it. Each operation takes logarithmic time in the number of holders.
type shares[T any] struct {
	most  int
	clock int64 // counts uses
	root  *pile
}

// pile is what one source holds, or one client of it; the root is what all of them hold.
type pile struct {
	name   string
	n      int
	oldest int64 // when the element of it used longest ago was used
	place  int   // in up.order
	up     *pile // nil: it is the root
	below  map[string]*pile
	order  piles      // those below: the one that gives up first in front
	list   *list.List // of a client: *share, the one used last in front
}

// share is one element.
type share[T any] struct {
	value T
	used  int64
	pile  *pile
	place *list.Element
}

func newShares[T any](most int) *shares[T] {
	return &shares[T]{most: most, root: new(pile)}
}

// add takes an element in, and returns the one that has to go for it; nil: none has to.
func (s *shares[T]) add(h holder, value T) (added, victim *share[T]) {
	added = &share[T]{value: value}
	s.charge(added, h)
	if s.root.n > s.most {
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

// use says that an element is used now.
func (s *shares[T]) use(e *share[T]) {
	s.clock++
	e.used = s.clock
	p := e.pile
	p.list.MoveToFront(e.place)
	p.settle(p.list.Back().Value.(*share[T]).used)
}

// remove takes an element out.
func (s *shares[T]) remove(e *share[T]) {
	p := e.pile
	p.list.Remove(e.place)
	e.pile = nil
	for q := p; q != nil; q = q.up {
		q.n--
	}
	for p.n == 0 && p.up != nil {
		heap.Remove(&p.up.order, p.place)
		delete(p.up.below, p.name)
		p = p.up
	}
	switch {
	case p.list != nil:
		p.settle(p.list.Back().Value.(*share[T]).used)
	case len(p.order) > 0:
		p.settle(p.order[0].oldest)
	}
}

// charge gives an element, which is in no pile, to a holder.
func (s *shares[T]) charge(e *share[T], h holder) {
	p := s.root.under(h.source).under(h.client)
	if p.list == nil {
		p.list = list.New()
	}
	e.pile, e.place = p, p.list.PushFront(e)
	for q := p; q != nil; q = q.up {
		q.n++
	}
	s.use(e)
}

// lighten charges an element to another holder that meets it too, if its source holds less: what a client shares with
// one that floods stays as long as what it has alone.
func (s *shares[T]) lighten(e *share[T], h holder) {
	var n int
	if other := s.root.below[h.source]; other != nil {
		n = other.n
	}
	if e.pile.up.name == h.source || n+1 >= e.pile.up.n {
		s.use(e)
		return
	}
	s.remove(e)
	s.charge(e, h)
}

// holder is to whom an element is charged.
func (e *share[T]) holder() holder { return holder{e.pile.up.name, e.pile.name} }

// under is the pile of a name below p.
func (p *pile) under(name string) *pile {
	q := p.below[name]
	if q == nil {
		q = &pile{name: name, up: p}
		if p.below == nil {
			p.below = make(map[string]*pile)
		}
		p.below[name] = q
		heap.Push(&p.order, q)
	}
	return q
}

// settle puts a pile in its place after what it holds has changed.
func (p *pile) settle(oldest int64) {
	p.oldest = oldest
	for ; p.up != nil; p = p.up {
		heap.Fix(&p.up.order, p.place)
		p.up.oldest = p.up.order[0].oldest
	}
}

// piles is a heap: the pile that holds most in front, of equal ones that whose element was used longest ago.
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
	p[i].place, p[j].place = i, j
}

// Push is heap.Interface's.
func (p *piles) Push(x any) {
	q := x.(*pile)
	q.place = len(*p)
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
