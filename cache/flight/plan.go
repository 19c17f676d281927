package flight

import (
	"slices"

	"github.com/registrymirror/mirror/internal/guard"
)

// plan decides which bytes of a blob are fetched next. It is a value without a lock, a clock or a goroutine: the flight
// asks it, runs the fetches, and tells it what has arrived.
//
//	 prefix         fill           lane           lane                  ahead
//	|██████████████|███>          |██>           |█████>        |      |██>  |
//	0               one part       the next       the next              a reader's range      size
//
// Each fetch has a claim, the bytes that it alone will bring. Claims overlap neither each other nor the bytes that are
// there, so no byte is fetched twice.
//
// A blob above the limit for parallel fetches comes in parts. The fill and each lane take the first part that is neither
// there nor claimed, so that bytes arrive nearly in order for readers, which follow the prefix. Parts are closed ranges: no
// request asks for bytes that another one brings.
type plan struct {
	sizes   sizes
	above   int64 // size in bytes above which a blob is fetched in parts; 0: none is
	size    int64 // of the blob in bytes; -1: not known
	have    extents
	claims  []*claim
	brought int64 // bytes that fetches have delivered

	connections int  // that bring parts at the same time, with the fill's; 1: the fill's alone; 0: the same, and not yet recalled
	settled     bool // no more connections are tried
}

// claim is what one fetch will bring: [pos, to), where to is -1 while the size is not known.
type claim struct {
	kind    kind
	pos, to int64
	writing int64 // end of the write that runs
	brought int64 // bytes
	open    bool  // the source has agreed to send the bytes
	stopped bool  // its fetch was cancelled; the claim stays until that has ended
}

// kind says what a fetch is for.
type kind int

const (
	fillKind  kind = iota // it extends the prefix, to the end of the blob
	laneKind              // it brings parts beside the fill
	aheadKind             // it brings a range ahead of the prefix that a reader waits for
	probeKind             // it brings a part by which another source is tried
)

// far is behind the end of every blob.
const far = 1<<63 - 1

// firstMissing stands for the first byte that is not there, wherever it is. Readers that wait for the end of the blob
// use it.
const firstMissing = -1

// down and up are the nearest borders of the grid.
func (s sizes) down(n int64) int64 { return n - n%s.extent }
func (s sizes) up(n int64) int64   { return s.down(n + s.extent - 1) }

// prefix is the length of the contiguous start.
func (p *plan) prefix() int64 { return p.have.run(0) }

// whole reports whether every byte is there.
func (p *plan) whole() bool { return p.size >= 0 && p.prefix() >= p.size }

// missing is how many bytes of a blob of known size are not there.
func (p *plan) missing() int64 { return p.size - p.have.bytes() }

// firm is the end of the bytes of a claim that no other claim may take: a fill and a lane can be cut behind it.
func (p *plan) firm(c *claim) int64 {
	if c.kind != fillKind && c.kind != laneKind {
		return c.to
	}
	end := max(p.sizes.up(c.pos+1), c.writing)
	if c.to >= 0 {
		end = min(end, c.to)
	}
	return end
}

// covered is the claim whose fetch is about to bring the byte at off, or nil.
func (p *plan) covered(off int64) *claim {
	for _, c := range p.claims {
		if off >= c.pos && off < p.firm(c) {
			return c
		}
	}
	return nil
}

// filling is the claim of the running fill, or nil.
func (p *plan) filling() *claim {
	for _, c := range p.claims {
		if c.kind == fillKind && !c.stopped {
			return c
		}
	}
	return nil
}

// lanes is how many fetches run beside the fill.
func (p *plan) lanes() int {
	n := 0
	for _, c := range p.claims {
		if c.kind == laneKind {
			n++
		}
	}
	return n
}

// allBring reports whether the fill and each lane have brought bytes.
func (p *plan) allBring() bool {
	return !slices.ContainsFunc(p.claims, func(c *claim) bool {
		return (c.kind == fillKind || c.kind == laneKind) && c.brought == 0
	})
}

// claim adds [from, to) as the region of a new fetch.
func (p *plan) claim(k kind, from, to int64) *claim {
	c := &claim{kind: k, pos: from, to: to}
	p.claims = append(p.claims, c)
	return c
}

// drop removes a claim. What it did not bring is free.
func (p *plan) drop(c *claim) {
	p.claims = slices.DeleteFunc(p.claims, func(x *claim) bool { return x == c })
}

// next adds the claim that brings the byte at off, for a reader that wants [off, end). It is nil where a fetch is about
// to bring that byte, or the blob has none there. Of a byte that is there, and held back, the reader waits for the rest of
// the blob.
func (p *plan) next(off, end int64) *claim {
	if to := p.have.run(max(0, off)); off == firstMissing || to > off {
		off, end = to, far
	}
	if p.size >= 0 && off >= p.size || p.covered(off) != nil {
		return nil
	}
	toEnd := p.size < 0 || end >= p.size
	if p.size >= 0 {
		end = min(end, p.size)
	}
	if off == p.prefix() && toEnd && !slices.ContainsFunc(p.claims, func(c *claim) bool { return c.kind == fillKind }) {
		return p.claim(fillKind, off, p.partEnd(off))
	}
	most := p.sizes.most
	if toEnd { // a client with an open-ended range may hang up soon
		most = p.sizes.extent
	}
	from := max(p.sizes.down(off), p.have.prev(off))
	to := min(p.sizes.up(min(end, from+most)), p.gapEnd(off))
	for _, c := range p.claims {
		if firm := p.firm(c); firm <= off {
			from = max(from, firm)
		}
	}
	for _, c := range p.claims {
		if (c.kind == fillKind || c.kind == laneKind) && c.pos <= off && (c.to < 0 || c.to > from) {
			c.to = from // it continues behind the new claim
		}
	}
	return p.claim(aheadKind, from, to)
}

// gapEnd is where the bytes end that are neither there nor claimed, as seen from off. It is -1 where the size is not
// known and nothing lies behind off.
func (p *plan) gapEnd(off int64) int64 {
	end := int64(far)
	if p.size >= 0 {
		end = p.size
	}
	end = p.have.next(off, end)
	for _, c := range p.claims {
		if c.pos > off {
			end = min(end, c.pos)
		}
	}
	if end == far {
		return -1
	}
	return end
}

// inParts reports whether the blob is fetched in parts.
func (p *plan) inParts() bool {
	return p.above > 0 && p.size > p.above && (p.connections > 1 || !p.settled)
}

// partEnd is where the part ends that begins at off.
func (p *plan) partEnd(off int64) int64 {
	end := p.gapEnd(off)
	if !p.inParts() {
		return end
	}
	// What one connection gives is not known at first: the parts are small enough that others can soon help, and grow.
	part := min(p.above, max(p.sizes.most, off))
	if n := int64(p.connections); n > 1 {
		part = min(p.sizes.most, max(p.sizes.extent, (p.size-off)/(2*n)))
	}
	return min(end, p.sizes.up(off+part))
}

// nextPart is the first part that is neither there nor claimed.
func (p *plan) nextPart() (from, to int64, ok bool) {
	off := p.prefix()
	for {
		off = p.have.run(off)
		if off >= p.size {
			return 0, 0, false
		}
		end := off
		for _, c := range p.claims {
			if off >= c.pos && off < c.to {
				end = max(end, c.to)
			}
		}
		if end == off {
			return off, p.partEnd(off), true
		}
		off = end
	}
}

// addLane adds a claim for another fetch beside the fill, or returns nil where no part is left.
func (p *plan) addLane() *claim {
	from, to, ok := p.nextPart()
	if !ok {
		return nil
	}
	return p.claim(laneKind, from, to)
}

// addProbe adds a claim by which another source is tried: the next part, or where the blob does not come in parts, what
// the fill would reach last. It is nil where no bytes are left for it.
func (p *plan) addProbe(fill *claim) *claim {
	if p.inParts() {
		if from, to, ok := p.nextPart(); ok {
			return p.claim(probeKind, from, min(to, from+p.sizes.extent))
		}
	}
	if fill.to < 0 {
		return nil
	}
	at := max(fill.pos, fill.writing)
	from, to := p.sizes.down(fill.to-1), fill.to
	if from < p.firm(fill) { // in its last extent: half of what is left of that
		from = at + (to-at+1)/2
	}
	if from < at || from >= to {
		return nil
	}
	fill.to = from
	return p.claim(probeKind, from, to)
}

// turn is what a fetch does after its part.
type turn int

const (
	turnEnd   turn = iota // it ends
	turnFetch             // it fetches its claim
	turnWait              // it waits until more bytes have arrived
)

// advance moves the claim of a fill or a lane to its next part.
func (p *plan) advance(c *claim) turn {
	if c.stopped || c.kind != fillKind && c.kind != laneKind {
		return turnEnd
	}
	if c.kind == laneKind && p.connections <= p.lanes() {
		return turnEnd
	}
	at := p.prefix()
	c.pos, c.to, c.open = at, at, false // it claims nothing
	if p.size >= 0 && at >= p.size {
		return turnEnd
	}
	if c.kind == laneKind || p.connections > 1 {
		from, to, ok := p.nextPart()
		switch {
		case ok:
			c.pos, c.to = from, to
			return turnFetch
		case c.kind == laneKind:
			return turnEnd
		}
		return turnWait
	}
	if p.covered(at) != nil {
		return turnWait
	}
	c.to = p.partEnd(at)
	return turnFetch
}

// agree notes what the source of a claim has said as it agreed to send: the size of the blob, -1 where it did not say, and
// whether it sends all of it from the claim on. It returns false where the size contradicts what is known.
func (p *plan) agree(c *claim, size int64, toEnd bool) bool {
	if size >= 0 {
		if guard.Size && (p.size >= 0 && size != p.size || size < p.prefix()) {
			return false
		}
		p.size = size
		if c.to < 0 {
			c.to = p.gapEnd(c.pos)
		}
	}
	if toEnd {
		p.settled = true
		if p.size >= 0 {
			c.to = p.gapEnd(c.pos)
		}
	}
	c.open = true
	return true
}

// room is how many of n bytes a claim still lacks.
func (p *plan) room(c *claim, n int) int {
	if c.to < 0 {
		return n
	}
	return int(max(0, min(int64(n), c.to-c.pos)))
}

// reserve begins a write of n bytes at the claim's position, and returns how many of them are the claim's still. No other
// claim takes these.
func (p *plan) reserve(c *claim, n int) int {
	n = p.room(c, n)
	c.writing = c.pos + int64(n)
	return n
}

// deliver ends a write of n bytes: they are there.
func (p *plan) deliver(c *claim, n int) {
	from := c.pos
	c.pos += int64(n)
	c.brought += int64(n)
	p.brought += int64(n)
	p.have.add(from, c.pos)
}

// end notes that the source of a claim has no more bytes. It returns false where some of the claim are missing.
func (p *plan) end(c *claim) bool {
	if p.size < 0 && c.kind == fillKind {
		p.size, c.to = c.pos, c.pos
		return true
	}
	return c.pos >= c.to
}

// alone has the rest of the blob come by one connection.
func (p *plan) alone() {
	p.connections, p.settled = 1, true
}
