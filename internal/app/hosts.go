package app

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/pull"
)

// Registries of patterns are in use at a time up to these numbers. Clients name them, and each has connections, tokens and a
// login; of one that is dropped nothing is lost but these. Those that have never given anything may be inventions of a
// client's: they push out each other, not those that have.
const (
	maxHosts    = 100
	maxNewHosts = 50
)

// opener gives the registries of hosts that fit a pattern. They are made when somebody first asks for them, and ask
// nobody before.
func (s *sites) opener(u *config.Upstream) func(host string) (pull.Upstream, error) {
	return func(host string) (pull.Upstream, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		st := s.hosts[host]
		if st != nil && st.pattern == u {
			st.used = time.Now()
			return st.registry, nil
		}
		next, err := s.site(u.At(host), u.Name, st)
		if err != nil {
			return nil, fmt.Errorf("upstream %s, which fits %s: %w", host, u.Name, err)
		}
		next.pattern, next.used = u, time.Now() // of a reload's, where it is the same as before
		if next == st {
			return st.registry, nil
		}
		s.drop(host)
		s.trim(maxNewHosts - 1)
		s.hosts[host] = next
		if s.ctx != nil {
			s.start(host, next)
		}
		return next.registry, nil
	}
}

// openHost makes the registry of a host that fits a pattern, if there is none yet.
func (s *sites) openHost(pattern, host string) {
	s.mu.Lock()
	st := s.running[pattern]
	s.mu.Unlock()
	if st == nil {
		return
	}
	if _, err := s.opener(&st.conf)(host); err != nil {
		s.log.Warn("the registry can't be opened", "upstream", host, "err", err)
	}
}

// drop ends the background work of a host's registry, and forgets it. What it still sends goes on. The lock is held.
func (s *sites) drop(host string) {
	if st := s.hosts[host]; st != nil && st.stop != nil {
		st.stop()
	}
	delete(s.hosts, host)
}

// trim drops the hosts that clients have not asked for the longest time, until at most fresh are left of those that have not
// given anything, and maxHosts of the others. The lock is held.
func (s *sites) trim(fresh int) {
	most := map[bool]int{true: maxHosts, false: fresh}
	of := make(map[bool][]string)
	for host, st := range s.hosts {
		served := st.registry.Served()
		of[served] = append(of[served], host)
	}
	for served, list := range of {
		slices.SortFunc(list, func(a, b string) int { return s.hosts[a].used.Compare(s.hosts[b].used) })
		for _, host := range list[:max(0, len(list)-most[served])] {
			s.drop(host)
		}
	}
}

// reset ends what is believed of a registry, by name, by alias, as a host that fits a pattern, or of all hosts of a pattern.
// It returns their names.
func (a *App) reset(name string) []string {
	routes := a.routes.Load()
	if routes == nil {
		return nil
	}
	entry := routes.Entry(name)
	names := a.sites.reset(func(host string, st *site) bool {
		if st.pattern != nil {
			return st.pattern.Name == name || strings.EqualFold(host, name)
		}
		return host == entry
	})
	for _, n := range names {
		a.puller.ForgetUpstream(n)
	}
	return names
}

// reset resets the registries that match, and returns their names, sorted.
func (s *sites) reset(match func(host string, st *site) bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, st := range s.registries() {
		if match(name, st) {
			st.registry.Reset()
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// entry is what metrics call an upstream: as the configuration does. Hosts of a pattern are of a client's choice, and no
// client may make series.
func (a *App) entry(host string) string {
	if routes := a.routes.Load(); routes != nil && host != "" {
		return routes.Entry(host)
	}
	return host
}
