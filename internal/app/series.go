package app

import (
	"maps"
	"slices"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream"
)

// Metrics call an upstream as the configuration does. The hosts of a pattern are of a client's choice, and no client may
// make series: they are told as one. What a host does that has never given anything says nothing of the pattern: it may be
// an invention.

// hostsOf are the hosts of patterns in use, by pattern, for what is told of the pattern: those that have given something,
// and where there is none the one that was asked for last. The lock is held.
func (s *sites) hostsOf() map[string][]*site {
	served, last := make(map[string][]*site), make(map[string]*site)
	for _, host := range slices.Sorted(maps.Keys(s.hosts)) {
		st := s.hosts[host]
		name := st.pattern.Name
		if st.registry.Served() {
			served[name] = append(served[name], st)
		}
		if last[name] == nil || st.used.After(last[name].used) {
			last[name] = st
		}
	}
	for name, st := range last {
		if served[name] == nil {
			served[name] = []*site{st}
		}
	}
	return served
}

// endpointSeries says how the endpoints of each upstream in use are. Those of a pattern's hosts are one, with the pattern
// as its name: down while one that has worked is down, with the transfers of all.
func (s *sites) endpointSeries() map[string][]upstream.EndpointStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string][]upstream.EndpointStatus, len(s.running))
	for name, st := range s.running {
		if st.registry != nil {
			all[name] = st.registry.State()
		}
	}
	for name, hosts := range s.hostsOf() {
		sum := upstream.EndpointStatus{URL: name, State: upstream.EndpointUp}
		for _, st := range hosts {
			for _, e := range st.registry.State() {
				if e.State == upstream.EndpointOpen && st.registry.Served() {
					sum.State = e.State
				}
				sum.Budgets = append(sum.Budgets, e.Budgets...)
			}
		}
		all[name] = []upstream.EndpointStatus{sum}
	}
	for _, st := range s.hosts { // new ones are at work, too
		sum := &all[st.pattern.Name][0]
		for _, e := range st.registry.State() {
			sum.Running, sum.Waiting = sum.Running+e.Running, sum.Waiting+e.Waiting
		}
	}
	return all
}

// credentialSeries says how the credentials of each upstream in use are. Of a pattern's hosts, which have a credential
// each, it is the one in the worst state, or else the one that ends first.
func (s *sites) credentialSeries() map[string][]auth.Status {
	s.mu.Lock()
	running, patterns := maps.Clone(s.running), s.hostsOf()
	s.mu.Unlock()
	// Without the lock: files are looked at, and a disk may hang.
	all := make(map[string][]auth.Status, len(running))
	for name, st := range running {
		if st.registry != nil {
			all[name] = st.credentials()
		}
	}
	for name, hosts := range patterns {
		worst := make(map[string]auth.Status)
		for _, st := range hosts {
			for _, c := range st.credentials() {
				if old, ok := worst[c.Name]; !ok || worse(c, old) {
					worst[c.Name] = c
				}
			}
		}
		for _, credential := range slices.Sorted(maps.Keys(worst)) {
			all[name] = append(all[name], worst[credential])
		}
	}
	return all
}

func worse(a, b auth.Status) bool {
	if x, y := slices.Index(upstream.CredentialStates, a.State), slices.Index(upstream.CredentialStates, b.State); x != y {
		return x > y
	}
	return ends(a).Before(ends(b))
}

// ends is when a credential expires, far away where that isn't known.
func ends(s auth.Status) time.Time {
	if s.Expires.IsZero() {
		return time.Unix(1<<40, 0)
	}
	return s.Expires
}

// credentials says how those of a registry are.
func (st *site) credentials() (list []auth.Status) {
	for _, m := range st.login {
		list = append(list, st.registry.Judge(auth.Describe(m.Source)))
	}
	return list
}
