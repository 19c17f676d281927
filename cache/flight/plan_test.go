package flight

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// planSizes are small enough that random plans meet every border of the grid.
var planSizes = sizes{extent: 16, most: 64}

// planModel drives a plan by random operations, as fetches and readers do, and knows of each byte whether it has arrived.
type planModel struct {
	p       plan
	r       *rand.Rand
	size    int64 // of the blob, which the plan may not know
	arrived []bool
	pending map[*claim]int // bytes of writes that run
	log     []string
}

// TestPlan holds random plans against what they promise: no byte is claimed or brought twice, parts are the first bytes
// that are missing and bounded, and in the end every byte is there.
func TestPlan(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		size := 1 + r.Int64N(700)
		m := &planModel{r: r, size: size, arrived: make([]bool, size), pending: make(map[*claim]int)}
		m.p = plan{sizes: planSizes, size: size}
		if r.IntN(4) == 0 {
			m.p.size = -1
		}
		if r.IntN(3) > 0 {
			m.p.above = 1 + r.Int64N(size)
			m.p.connections = r.IntN(9)
		}
		if err := m.run(); err != nil {
			t.Fatalf("seed %d (size %d): %v\n%s", seed, size, err, m.log)
		}
	}
}

func (m *planModel) run() error {
	for range 150 {
		if err := m.step(); err != nil {
			return err
		}
	}
	for range 10_000 { // every claim is brought, and readers ask for the rest
		if m.p.whole() {
			return m.complete()
		}
		if len(m.p.claims) == 0 {
			m.note("drain", m.p.next(firstMissing, far))
		}
		for _, c := range slices.Clone(m.p.claims) {
			if err := m.bring(c, 1<<10); err != nil {
				return err
			}
		}
		if err := m.check(); err != nil {
			return err
		}
	}
	return fmt.Errorf("the blob never was whole: %v of %d", m.p.have, m.size)
}

// complete checks that every byte was brought once.
func (m *planModel) complete() error {
	if m.p.brought != m.size || slices.Contains(m.arrived, false) {
		return fmt.Errorf("%d bytes brought of %d", m.p.brought, m.size)
	}
	return nil
}

func (m *planModel) note(what string, c *claim) {
	if c != nil {
		m.log = append(m.log, fmt.Sprintf("%s %+v; ", what, *c))
	}
}

// step does one random operation.
func (m *planModel) step() error {
	p := &m.p
	var c *claim
	if len(p.claims) > 0 {
		c = p.claims[m.r.IntN(len(p.claims))]
	}
	switch n := m.r.IntN(10); {
	case n < 2:
		if err := m.demand(); err != nil {
			return err
		}
	case n == 2 && p.inParts():
		if err := m.firstMissing(p.addLane()); err != nil {
			return err
		}
	case n == 3 && p.filling() != nil:
		m.note("probe", p.addProbe(p.filling()))
	case n == 4 && m.r.IntN(5) == 0 && c != nil && m.pending[c] == 0: // its source fails
		m.note("fail", c)
		p.drop(c)
	case n == 5 && m.r.IntN(10) == 0:
		p.alone()
	case n == 6 && m.r.IntN(4) == 0 && p.above > 0 && !p.settled:
		p.connections = 1 + m.r.IntN(8)
	case c != nil:
		if err := m.bring(c, 1+m.r.IntN(40)); err != nil {
			return err
		}
	}
	return m.check()
}

// demand has a reader wait for a random range.
func (m *planModel) demand() error {
	off, end := int64(firstMissing), int64(far)
	if m.p.size >= 0 && m.r.IntN(2) == 0 {
		off = m.r.Int64N(m.size)
		end = off + 1 + m.r.Int64N(m.size-off)
	}
	c := m.p.next(off, end)
	m.note("demand", c)
	if c != nil && c.kind == aheadKind && c.to-c.pos > planSizes.most+2*planSizes.extent {
		return fmt.Errorf("a reader at %d has %d bytes fetched ahead", off, c.to-c.pos)
	}
	at := m.p.have.run(max(0, off))
	if at < m.size && m.p.covered(at) == nil {
		return fmt.Errorf("no fetch is about to bring byte %d, for a reader of [%d, %d)", at, off, end)
	}
	return nil
}

// firstMissing checks that a part is the first one that is missing, and bounded where several connections bring parts.
func (m *planModel) firstMissing(c *claim) error {
	m.note("part", c)
	if c == nil {
		return nil
	}
	for i := range c.pos {
		if !m.arrived[i] && !m.claimed(i) {
			return fmt.Errorf("part [%d, %d) leaves byte %d out", c.pos, c.to, i)
		}
	}
	if m.p.connections > 1 && c.to-c.pos > planSizes.most+planSizes.extent {
		return fmt.Errorf("part [%d, %d) has more than %d bytes", c.pos, c.to, planSizes.most)
	}
	return nil
}

func (m *planModel) claimed(i int64) bool {
	return slices.ContainsFunc(m.p.claims, func(c *claim) bool { return i >= c.pos && (c.to < 0 || i < c.to) })
}

// bring has the fetch of a claim go on: its source agrees, a write begins or ends, or it takes its next part.
func (m *planModel) bring(c *claim, n int) error {
	p := &m.p
	written, writes := m.pending[c]
	switch {
	case writes:
		delete(m.pending, c)
		for i := range int64(written) {
			if m.arrived[c.pos+i] {
				return fmt.Errorf("byte %d is brought twice", c.pos+i)
			}
			m.arrived[c.pos+i] = true
		}
		p.deliver(c, written)
	case !c.open && (c.to < 0 || c.to > c.pos):
		said := m.size
		if p.size < 0 && m.r.IntN(3) == 0 {
			said = -1
		}
		toEnd := c.kind == fillKind && c.pos == 0 && m.r.IntN(8) == 0
		if !p.agree(c, said, toEnd) {
			return fmt.Errorf("the right size is refused: %d", said)
		}
		m.note("agree", c)
	case p.size < 0 && c.pos == m.size: // the body ends, which tells the size
		if !p.end(c) || p.size != m.size {
			return fmt.Errorf("a body of %d bytes ends with a size of %d", m.size, p.size)
		}
	case p.room(c, n) > 0:
		m.pending[c] = p.reserve(c, int(min(int64(n), m.size-c.pos)))
	case !p.end(c):
		return fmt.Errorf("%+v has no room, and is not at its end", *c)
	default:
		return m.advance(c)
	}
	return nil
}

// advance gives the fetch of a claim its next part.
func (m *planModel) advance(c *claim) error {
	switch m.p.advance(c) {
	case turnEnd:
		m.p.drop(c)
	case turnFetch:
		return m.firstMissing(c)
	case turnWait:
		if c.pos != c.to {
			return fmt.Errorf("%+v waits, and claims bytes", *c)
		}
	}
	return nil
}

// check holds the claims against each other and against the bytes that are there.
func (m *planModel) check() error {
	for i := range m.size {
		if there := m.p.have.run(i) > i; there != m.arrived[i] {
			return fmt.Errorf("byte %d: the plan has it: %t", i, there)
		}
	}
	end := func(c *claim) int64 {
		if c.to < 0 {
			return m.size
		}
		return c.to
	}
	for i, c := range m.p.claims {
		if c.pos < end(c) && m.p.have.next(c.pos-1, end(c)) < end(c) || m.p.have.run(c.pos) > c.pos && c.pos < end(c) {
			return fmt.Errorf("%+v claims bytes that are there: %v", *c, m.p.have)
		}
		if n, writes := m.pending[c]; writes && c.to >= 0 && c.pos+int64(n) > c.to {
			return fmt.Errorf("%+v is cut within a write of %d bytes", *c, n)
		}
		for _, x := range m.p.claims[:i] {
			if max(c.pos, x.pos) < min(end(c), end(x)) {
				return fmt.Errorf("%+v and %+v claim the same bytes", *c, *x)
			}
		}
	}
	return nil
}
