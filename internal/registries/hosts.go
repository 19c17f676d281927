package registries

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
)

// Clients name the hosts of patterns, and the registry of each has connections, tokens and a login, so these numbers of them
// are kept. A registry that is dropped loses nothing but these. Hosts that have never served anything may be made up by a
// client: they replace each other, and not those that have served.
const (
	maxHosts    = 100
	maxNewHosts = 50
)

// opener returns the function that opens the registries of a pattern's hosts. They are built when a client first asks for one.
func (s *Registries) opener(u *config.Upstream) func(host string) (pull.Upstream, error) {
	return func(host string) (pull.Upstream, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		st := s.hosts[host]
		if st != nil && st.pattern == u {
			st.used = time.Now()
			return st.registry, nil
		}
		next, err := s.build(u.At(host), u.Name, st)
		if err != nil {
			return nil, fmt.Errorf("upstream %s, which fits %s: %w", host, u.Name, err)
		}
		next.pattern, next.used = u, time.Now() // u is new after a reload, even if nothing has changed
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

// Open returns the registry of a host; nil: it is not in use. pattern is the one that the host matches: then its registry is
// built if no client has named it before. Empty: it matches none.
func (s *Registries) Open(host, pattern string) *upstream.Registry {
	s.mu.Lock()
	st := s.running[pattern]
	s.mu.Unlock()
	if st != nil {
		if _, err := s.opener(&st.conf)(host); err != nil {
			s.log.Warn("the registry can't be opened", "upstream", host, "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st = s.running[host]; st == nil {
		st = s.hosts[host]
	}
	if st == nil {
		return nil
	}
	return st.registry
}

// Close ends the registries of a setup that never ran.
func (s *Registries) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.inUse() {
		st.registry.Close()
	}
}

// drop ends the background work of a host's registry, and forgets it. Its running pulls go on. The lock is held.
func (s *Registries) drop(host string) {
	if st := s.hosts[host]; st != nil && st.stop != nil {
		st.stop()
	}
	delete(s.hosts, host)
}

// trim drops the hosts that were not used for the longest time, until at most fresh are left of those that have not served
// anything, and maxHosts of the others. The lock is held.
func (s *Registries) trim(fresh int) {
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

// Reset forgets the limits, failures and refusals of a registry: of the one with an entry of that name, of a host that matches
// a pattern, or of all hosts of a pattern. It returns the names of the registries, sorted.
func (s *Registries) Reset(name, entry string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for host, st := range s.inUse() {
		matches := host == entry
		if st.pattern != nil {
			matches = st.pattern.Name == name || strings.EqualFold(host, name)
		}
		if matches {
			st.registry.Reset()
			names = append(names, host)
		}
	}
	slices.Sort(names)
	return names
}
