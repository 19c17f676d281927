package flight

import (
	"errors"
	"time"
)

// A large blob begins with as many connections as its upstream has proven, one at first. While it comes, their number is
// doubled for as long as the blob comes faster for it:
//
//	one connection ──looks──> two ──it pays──> four ──it pays──> eight
//	                           │                 │
//	                           └─it does not─────┴──> back to those before, for this blob and the next ones
//
// So a blob that comes at full speed by one connection has one, and a host that limits each connection gives eight times
// as much.

// ErrBusy is wrapped by the errors of a source that is too busy to fetch a part beside others now. It says nothing about the
// host.
var ErrBusy = errors.New("too busy to fetch another part")

const (
	// gain is how much of what new connections could bring at most, if each brought as much as one before, they have to
	// bring to stay.
	gain = 1.0 / 3
	// stepLooks is how many looks new connections have to prove themselves, once all of them bring bytes.
	stepLooks = 4
	// startLooks is how many looks they have to bring their first bytes.
	startLooks = 20
)

// pace judges whether more connections pay off. It is a value: the caller tells it the time and how much has arrived.
type pace struct {
	at      time.Time // of the last look
	brought int64     // bytes by the last look
	rate    float64   // bytes a second at the last look

	// The step that is on trial.
	before, after int     // connections; 0: no step is
	base          float64 // bytes a second before it
	looks         int     // since it began, or since all of its connections bring bytes
	measured      bool    // all of them do
}

// verdict is what pace has found.
type verdict int

const (
	undecided verdict = iota // look again
	paid                     // the step has paid off, or none is on trial
	failed                   // the step has not paid off
)

// step puts a step from before to after connections on trial.
func (p *pace) step(before, after int) {
	p.before, p.after, p.base, p.looks, p.measured = before, after, p.rate, 0, false
}

// look judges the step by the bytes that have arrived. all reports whether each connection has brought some.
func (p *pace) look(now time.Time, brought int64, all bool) verdict {
	p.rate = float64(brought-p.brought) / max(now.Sub(p.at).Seconds(), 1e-9)
	p.at, p.brought = now, brought
	p.looks++
	switch {
	case !all && p.before > 0 && p.looks >= startLooks:
		return failed
	case !all:
		return undecided
	case p.before == 0:
		return paid
	case !p.measured: // they began since the last look
		p.measured, p.looks = true, 0
		return undecided
	}
	could := float64(p.after-p.before) / float64(p.before)
	switch {
	case p.rate >= p.base*(1+gain*could):
		return paid
	case p.looks >= stepLooks:
		return failed
	}
	return undecided
}

// parallel has a blob fetched by several connections. The flight's lock guards it, and is held in every method but run.
type parallel struct {
	f    *Flight
	pace pace
	runs bool // run does
}

// recall begins a plan with the connections that the upstream has proven.
func (p *parallel) recall(src Source) {
	plan, o := &p.f.plan, p.f.g.o
	if plan.connections == 0 {
		n, settled := p.f.g.hosts.recall(src.Upstream)
		plan.connections, plan.settled = min(n, o.Lanes), settled
	}
}

// widen starts lanes until as many connections as the plan wants bring parts, or as there can be.
func (p *parallel) widen(src Source) {
	f := p.f
	for f.plan.lanes()+1 < f.plan.connections {
		if !f.g.hosts.take(f.origins.host, f.idle.isLive(f.readers)) {
			break
		}
		c := f.plan.addLane()
		if c == nil {
			f.g.hosts.give(f.origins.host)
			break
		}
		f.start(c, src)
	}
	f.plan.connections = min(f.plan.connections, f.plan.lanes()+1)
}

// begun starts the lanes that the plan wants beside a fill whose source has agreed to send, and the trial of more.
func (p *parallel) begun(fill *fetch) {
	f := p.f
	if !f.plan.inParts() {
		return
	}
	if f.plan.connections > 1 {
		p.widen(fill.src)
	}
	if !f.plan.settled && !p.runs {
		p.runs = true
		p.pace = pace{at: time.Now(), brought: f.plan.brought}
		f.g.wg.Go(p.run)
	}
}

// run adds connections while they pay off.
func (p *parallel) run() {
	f := p.f
	f.mu.Lock()
	defer f.mu.Unlock()
	every(f, f.g.sizes.pace, p.look)
	p.runs = false
}

// look judges the connections, and adds some. It returns false where there is nothing more to gain.
func (p *parallel) look(now time.Time) bool {
	f := p.f
	fill := f.filling()
	if _, _, more := f.plan.nextPart(); f.plan.settled || fill == nil || !more {
		return false
	}
	upstream := fill.src.Upstream
	switch p.pace.look(now, f.plan.brought, f.plan.allBring()) {
	case undecided:
		return true
	case failed:
		f.plan.connections, f.plan.settled = min(f.plan.connections, p.pace.before), true
		if f.idle.isLive(f.readers) { // else it may have been paused for clients
			f.g.hosts.remember(upstream, p.pace.before, true, provenFor)
		}
		return false
	}
	if p.pace.before > 0 {
		f.g.hosts.remember(upstream, p.pace.after, false, provenFor)
		p.pace.before = 0
	}
	n := f.plan.connections
	if n >= f.g.o.Lanes {
		f.plan.settled = true
		return false
	}
	if soon := p.pace.rate * f.g.sizes.nearly.Seconds(); float64(f.plan.missing()) < soon || !fill.open {
		return true
	}
	f.plan.connections = min(2*n, f.g.o.Lanes)
	p.widen(fill.src)
	if f.plan.connections > n {
		p.pace.step(n, f.plan.connections)
	}
	return true
}

// failed has the blob come by the connections that are left: many hosts refuse a second one, or one more than some. The
// bytes that the lane lacks are for the others, and for the fill, whose own error counts.
func (p *parallel) failed(ft *fetch, err error) {
	f := p.f
	f.g.o.Log.DebugContext(f.ctx, "a blob is fetched by fewer connections: one failed", "digest", f.digest,
		"host", ft.host, "error", err)
	left := max(1, f.plan.lanes()) // the fill, and all lanes but this one
	f.plan.connections, f.plan.settled = min(f.plan.connections, left), true
	if ft.brought == 0 && !errors.Is(err, ErrBusy) {
		f.g.hosts.remember(ft.src.Upstream, f.plan.connections, true, refusedFor)
	}
}
