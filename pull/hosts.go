package pull

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/registrymirror/mirror/internal/bounded"
)

// maxHosts is how many sites of patterns are remembered. Clients name them, so there may be any number. The one that was
// used longest ago is forgotten: what had failed there is asked for anew, and no more.
const maxHosts = 1000

// hosts are the sites of patterns: those of the hosts that clients have named.
type hosts struct {
	mu    sync.Mutex // held from looking a site up until it is replaced
	known *bounded.LRU[string, *site]
}

func newHosts() *hosts {
	return &hosts{known: bounded.NewLRU(bounded.Options[string, *site]{Budget: maxHosts})}
}

// site is that of a host that fits a pattern.
func (h *hosts) site(p *Puller, pattern *site, host string) (*site, error) {
	up, err := pattern.Open(host)
	if err != nil {
		return nil, fmt.Errorf("open %s, which fits %s: %w", host, pattern.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old, _ := h.known.Get(host)
	same := old != nil && old.Upstream == up && old.sameAccess(pattern.Site)
	if same && old.pattern == pattern {
		return old, nil
	}
	st := &site{
		Site: Site{
			Name: host, Upstream: up, Tags: pattern.Tags, Ruled: pattern.Ruled, Login: pattern.Login, Own: pattern.Own, Names: pattern.Names,
		},
		rules: pattern.rules, pattern: pattern, gone: pattern.gone, remove: pattern.remove,
	}
	if same {
		st.generation, st.troubled, st.linked = old.generation, old.troubled, old.linked
	} else {
		st.generation, st.troubled, st.linked = p.sites.Add(1), new(atomic.Bool), new(linked)
	}
	h.known.Put(host, st, 1)
	return st, nil
}
