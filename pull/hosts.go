package pull

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// maxHosts is how many sites of patterns are remembered. Clients name them, so there may be any number; who is forgotten
// is asked anew for what had failed, and no more. It is the one that was asked for longest ago.
const maxHosts = 1000

// hosts are the sites of patterns: those of the hosts that clients have named.
type hosts struct {
	mu    sync.Mutex // makes of a look and what follows from it one step
	known *lru[string, *site]
}

func newHosts() *hosts { return &hosts{known: newLRU[string, *site](maxHosts)} }

// site is that of a host that fits a pattern.
func (h *hosts) site(p *Puller, pattern *site, host string) (*site, error) {
	up, err := pattern.Open(host)
	if err != nil {
		return nil, fmt.Errorf("open %s, which fits %s: %w", host, pattern.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old, _ := h.known.get(host)
	same := old != nil && old.Upstream == up && old.Ruled == pattern.Ruled && old.Login == pattern.Login
	if same && old.rules == pattern.rules && old.Tags == pattern.Tags {
		return old, nil
	}
	st := &site{Site: Site{Name: host, Upstream: up, Tags: pattern.Tags, Ruled: pattern.Ruled, Login: pattern.Login}, rules: pattern.rules}
	if same {
		st.generation, st.troubled, st.linked = old.generation, old.troubled, old.linked
	} else {
		st.generation, st.troubled, st.linked = p.sites.Add(1), new(atomic.Bool), new(linked)
	}
	h.known.put(host, st, 1)
	return st, nil
}
