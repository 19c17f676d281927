package flight

import (
	"sync"
	"time"
)

// pays is how much faster the blob has to come for a lane to stay.
const pays = 1.15

// hosts counts the lanes at each host, of all flights.
type hosts struct {
	most int

	mu    sync.Mutex // guards lanes; no other lock is taken while it is held
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

// laneFailed has the blob come by the fill alone: many hosts refuse a second connection. The bytes that the lane lacks
// are the fill's, whose own error counts.
func (f *Flight) laneFailed(ft *fetch, err error) {
	f.g.o.Log.DebugContext(f.ctx, "a blob is fetched by one connection: another one failed", "digest", f.digest,
		"host", ft.host, "error", err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan.connections, f.plan.settled = 1, true
}

// pacing starts pace where more lanes may be opened. The lock is held.
func (f *Flight) pacing() {
	if !f.plan.inParts() || f.plan.settled || f.paced {
		return
	}
	f.paced = true
	f.plan.connections = max(1, f.plan.connections)
	f.g.wg.Go(f.pace)
}

// pace opens lanes while they pay off.
func (f *Flight) pace() {
	t := time.NewTicker(f.g.sizes.pace)
	defer t.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.paced = false }()
	p := pacer{f: f, last: f.plan.brought, at: time.Now()}
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

// look judges the last lane, and opens another one. It returns false where there is nothing more to gain.
func (p *pacer) look() bool {
	f, now := p.f, time.Now()
	rate := float64(f.plan.brought-p.last) / now.Sub(p.at).Seconds()
	p.last, p.at = f.plan.brought, now
	fill := f.filling()
	if f.plan.settled || fill == nil {
		return false
	}
	if p.young {
		p.young = false
		return true
	}
	if p.tried && rate < p.base*pays {
		f.plan.connections--
		f.plan.settled = true
		return false
	}
	p.tried, p.base = false, rate
	soon := float64(f.plan.missing()) < rate*f.g.sizes.nearly.Seconds()
	if f.plan.connections >= f.g.o.Lanes || soon || !fill.open || !f.g.hosts.take(f.origins.host) {
		return true
	}
	f.plan.connections++
	c := f.plan.addLane()
	if c == nil {
		f.plan.connections--
		f.g.hosts.give(f.origins.host)
		return false
	}
	p.tried, p.young = true, true
	f.start(c, fill.src)
	return true
}
