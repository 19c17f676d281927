package flight

import (
	"sync"
	"time"
)

// A large blob comes in parts, several at a time for as long as that is faster:
//
//	 prefix         fill           lane           lane
//	|██████████████|███>          |██>           |█████>        |
//	0              one part       the next       the next       size
//
// The fill begins alone, with one large part: what a connection gives must be known before another one can prove
// anything. From then on pace opens a lane at a time, and looks whether the blob comes faster for it. Each of them takes
// the first part that nobody has or brings, so that bytes come near enough in order for readers, who follow the prefix.
// The parts are closed ranges: nothing is asked for that another one brings. A source that knows no ranges, and one that
// fails in a lane, has the blob go on by the fill alone.

// pays is how much faster the blob has to come for a lane to stay.
const pays = 1.15

// lanes says how a large blob is fetched. The flight's lock guards it.
type lanes struct {
	want    int   // fetches side by side now, the fill included
	settled bool  // no more are tried
	paced   bool  // pace runs
	came    int64 // bytes since the flight began
}

// hosts counts the lanes at each host, of all flights.
type hosts struct {
	mu    sync.Mutex // a leaf
	most  int
	lanes map[string]int
}

func (h *hosts) take(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lanes[host] >= h.most {
		return false
	}
	h.lanes[host]++
	return true
}

func (h *hosts) give(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lanes[host]--; h.lanes[host] <= 0 {
		delete(h.lanes, host)
	}
}

// inParts reports whether the blob is one that comes in parts. The lock is held.
func (f *Flight) inParts() bool {
	above := f.g.o.ParallelAbove
	return above > 0 && f.size > above && (f.lanes.want > 1 || !f.lanes.settled)
}

// partEnd is where the fill or a lane that goes on at off ends. The lock is held.
func (f *Flight) partEnd(off int64) int64 {
	end := f.gapEnd(off)
	if !f.inParts() {
		return end
	}
	s, part := f.g.sizes, f.g.o.ParallelAbove
	if n := int64(f.lanes.want); n > 1 {
		part = min(s.most, max(s.extent, (f.size-off)/(2*n)))
	}
	return min(end, s.up(off+part))
}

// nextPart is the first part that nobody has or brings. The lock is held, and whoever asks claims nothing.
func (f *Flight) nextPart() (from, to int64, ok bool) {
	off := f.prefix()
	for {
		off = f.have.run(off)
		if off >= f.size {
			return 0, 0, false
		}
		end := off
		for _, ft := range f.fetches {
			if off >= ft.pos && off < ft.to {
				end = max(end, ft.to)
			}
		}
		if end == off {
			return off, f.partEnd(off), true
		}
		off = end
	}
}

// nextLane moves a lane to its next part. False: there is none, or there are lanes enough without it.
func (f *Flight) nextLane(ft *fetch) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ft.stopped || f.lanes.want <= f.laneCount() {
		return false
	}
	ft.pos, ft.to, ft.open = 0, 0, false
	from, to, ok := f.nextPart()
	ft.pos, ft.to = from, to
	return ok
}

func (f *Flight) laneCount() int {
	n := 0
	for _, ft := range f.fetches {
		if ft.lane {
			n++
		}
	}
	return n
}

// laneFailed goes on without lanes: many hosts give fewer connections than one wants. What the lane leaves is the
// fill's, whose own error counts.
func (f *Flight) laneFailed(ft *fetch, err error) {
	f.g.o.Log.DebugContext(f.ctx, "a blob is fetched in one piece: a second connection failed", "digest", f.digest,
		"host", ft.host, "err", err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lanes.want, f.lanes.settled = 1, true
}

// pacing has pace run, if there is something for it to do. The lock is held.
func (f *Flight) pacing() {
	if f.inParts() && !f.lanes.settled && !f.lanes.paced {
		f.lanes.paced = true
		if f.lanes.want == 0 {
			f.lanes.want = 1
		}
		f.g.wg.Go(f.pace)
	}
}

// pace opens lanes while they pay.
func (f *Flight) pace() {
	t := time.NewTicker(f.g.sizes.pace)
	defer t.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.lanes.paced = false }()
	p := pacer{f: f, last: f.lanes.came, at: time.Now()}
	for {
		f.mu.Unlock()
		select {
		case <-t.C:
		case <-f.ctx.Done():
		}
		f.mu.Lock()
		if f.ctx.Err() != nil || !p.look() {
			return
		}
	}
}

// pacer is what pace has seen.
type pacer struct {
	f     *Flight
	last  int64 // bytes by the last look
	at    time.Time
	base  float64 // bytes per second before the last lane
	tried bool    // a lane was opened, and is to prove itself
	young bool    // since the last look: it does not count yet
}

// look judges the last lane, and opens another one. False: there is nothing to be gained any more.
func (p *pacer) look() bool {
	f, now := p.f, time.Now()
	rate := float64(f.lanes.came-p.last) / now.Sub(p.at).Seconds()
	p.last, p.at = f.lanes.came, now
	fill := f.filling()
	if f.lanes.settled || fill == nil {
		return false
	}
	if p.young {
		p.young = false
		return true
	}
	if p.tried && rate < p.base*pays {
		f.lanes.want--
		f.lanes.settled = true
		return false
	}
	p.tried, p.base = false, rate
	left := float64(f.size - f.have.bytes())
	if f.lanes.want >= f.g.o.Lanes || left < rate*f.g.sizes.nearly.Seconds() || !fill.open || !f.g.hosts.take(f.host) {
		return true
	}
	f.lanes.want++
	from, to, ok := f.nextPart()
	if !ok {
		f.lanes.want--
		f.g.hosts.give(f.host)
		return false
	}
	p.tried, p.young = true, true
	f.start(&fetch{src: fill.src, lane: true, host: f.host, pos: from, to: to})
	return true
}

// filling is the running fill. The lock is held.
func (f *Flight) filling() *fetch {
	for _, ft := range f.fetches {
		if ft.fill && !ft.stopped {
			return ft
		}
	}
	return nil
}
