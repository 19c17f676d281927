package flight

import (
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/bounded"
)

// hosts is what a group knows of the hosts that blobs come from: how many lanes use each of them now, and by how many
// connections the last large blob of each upstream came fastest. So the next one begins with as many.
//
// Lanes are counted by the host that sends the bytes, after redirects. What is remembered is remembered by the upstream's
// name, which is known before the first request; an upstream whose endpoints differ has one figure for all of them.
type hosts struct {
	most int // lanes at one host

	mu     sync.Mutex // guards the fields below; no other lock is taken while it is held
	lanes  map[string]int
	proven map[string]proven // by upstream
}

// proven is by how many connections blobs of an upstream come fastest.
type proven struct {
	connections int
	settled     bool // more of them were tried in vain, or refused
	until       time.Time
}

const (
	// provenFor is how long a figure is used. Then the next large blob begins with one connection again.
	provenFor = time.Hour
	// refusedFor is the same where the host refused a connection.
	refusedFor = 10 * time.Minute
	// provenMost is how many upstreams are remembered at most.
	provenMost = 1000
)

// take counts a lane at a host, if it may have another one. Those for background work leave half of them to clients.
func (h *hosts) take(host string, live bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	most := h.most
	if !live {
		most /= 2
	}
	if h.lanes[host] >= most {
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

// recall returns by how many connections a blob of an upstream begins, at least 1, and whether more are tried.
func (h *hosts) recall(upstream string) (connections int, settled bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p, ok := h.proven[upstream]; ok && time.Now().Before(p.until) {
		return p.connections, p.settled
	}
	return 1, false
}

// remember notes by how many connections a blob of an upstream came fastest, for a time.
func (h *hosts) remember(upstream string, connections int, settled bool, d time.Duration) {
	if upstream == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	p := proven{connections: connections, settled: settled, until: now.Add(d)}
	if old, ok := h.proven[upstream]; ok && now.Before(old.until) && old.until.Before(p.until) {
		p.until = old.until // a figure that is built upon does not live longer for it
	}
	bounded.Put(&h.proven, upstream, p, provenMost)
}
