package upstream

import "reflect"

// CloseIdle has the next request make a connection.
func (r *Registry) CloseIdle() {
	for _, ep := range r.endpoints {
		ep.CloseIdle()
	}
}

// QueueHolds is how many turns, clients and transfers the queues of the first endpoint remember.
func QueueHolds(r *Registry) (n int) {
	for _, q := range []*queue{r.endpoints[0].queue, r.endpoints[0].small} {
		q.mu.Lock()
		n += len(q.running) + len(q.held) + len(q.clients) + len(q.order) + len(q.paused) + q.waiting
		q.mu.Unlock()
	}
	return n
}

// Held is how many entries each memory of a registry's first endpoint has, and how many it may have.
func Held(r *Registry) map[string][2]int {
	ep := r.endpoints[0]
	return map[string][2]int{
		"tokens":           {length(r.up, "tokens", "have") + length(r.up, "tokens", "refusals"), 10_000},
		"token calls":      {length(r.up, "tokens", "calls", "calls"), 0},
		"schemes":          {length(ep.Endpoint, "schemes", "own"), 4096},
		"public":           {length(ep.Endpoint, "public", "until"), 16_384},
		"computed digests": {length(ep.Endpoint, "public", "made"), 4096},
		"problems":         {length(r.up, "standing", "problems"), 1024},
		"failed renewals":  {length(r.up, "standing", "failedRenewals"), 1024},
		"refusals":         {length(r.up, "standing", "refusals"), 1024},
		"shown":            {length(r.up, "shown", "known"), 64},
		"inquiries":        {len(ep.inquiries.m), maxProbes},
		"known to be":      {len(ep.inquiries.exists), maxExists},
		"said sizes":       {len(ep.said.m), maxSaid},
		"places":           {len(r.places.m), maxPlaces},
		"budgets":          {length(ep.Limits, "budgets"), 64},
		"ledgers":          {length(ep.Limits.Spending(), "ledgers"), 1024},
		"paused limits":    {length(ep.Limits, "pauses"), 1024},
		"queues":           {QueueHolds(r), 0},
	}
}

// length is that of a field at a path of unexported fields, of a type of another package.
func length(p any, path ...string) int {
	v := reflect.ValueOf(p)
	for _, field := range path {
		v = reflect.Indirect(v).FieldByName(field)
	}
	return v.Len()
}
