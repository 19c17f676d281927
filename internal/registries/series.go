package registries

import (
	"maps"
	"slices"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

// In metrics an upstream has its name in the configuration, so the hosts of a pattern count as one: clients choose them, and
// must not make series. A host that has never served anything does not count against its pattern: it may be made up.

// patternHosts are the hosts that stand for each pattern: those that have served something, and if there are none, the one
// that was used last. The lock is held.
func (s *Registries) patternHosts() map[string][]*registryState {
	served, last := make(map[string][]*registryState), make(map[string]*registryState)
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
			served[name] = []*registryState{st}
		}
	}
	return served
}

// EndpointSeries is the state of the endpoints of each upstream in use. The hosts of a pattern are one endpoint with the
// pattern as its name: it is down while one that has served is down, and has the transfers of all.
func (s *Registries) EndpointSeries() map[string][]endpoint.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string][]endpoint.Status, len(s.running))
	for name, st := range s.running {
		all[name] = st.endpoints()
	}
	for name, hosts := range s.patternHosts() {
		sum := endpoint.Status{URL: name, State: endpoint.StateUp}
		for _, st := range hosts {
			for _, e := range st.registry.State() {
				if e.State == endpoint.StateOpen && st.registry.Served() {
					sum.State = e.State
				}
				sum.Budgets = append(sum.Budgets, e.Budgets...)
			}
		}
		all[name] = []endpoint.Status{sum}
	}
	for _, st := range s.hosts { // new ones have transfers, too
		sum := &all[st.pattern.Name][0]
		for _, e := range st.registry.State() {
			sum.Running, sum.Waiting = sum.Running+e.Running, sum.Waiting+e.Waiting
		}
	}
	return all
}

// CredentialSeries is the state of the credentials of each upstream in use. The hosts of a pattern have a credential each: the
// one in the worst state stands for all, and of several the one that expires first.
func (s *Registries) CredentialSeries() map[string][]auth.Status {
	s.mu.Lock()
	running, patterns := maps.Clone(s.running), s.patternHosts()
	s.mu.Unlock()
	// Without the lock: the state of a file is read, and a disk may hang.
	all := make(map[string][]auth.Status, len(running))
	for name, st := range running {
		all[name] = st.credentials()
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
	return !a.Expires.IsZero() && (b.Expires.IsZero() || a.Expires.Before(b.Expires))
}

// endpoints is the state of the endpoints of a registry. A pattern has none.
func (st *registryState) endpoints() []endpoint.Status {
	if st.registry == nil {
		return nil
	}
	return st.registry.State()
}

// credentials is the state of the credentials of a registry. A pattern has none: each of its hosts has its own.
func (st *registryState) credentials() (list []auth.Status) {
	for _, m := range st.login {
		list = append(list, st.registry.Judge(auth.Describe(m.Source)))
	}
	return list
}
