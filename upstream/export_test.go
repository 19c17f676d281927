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
	for _, field := range []string{"queue", "small"} {
		q := siteOf(r).FieldByName(field).Elem()
		for _, list := range []string{"running", "charged", "clients", "order", "paused"} {
			n += q.FieldByName(list).Len()
		}
		n += int(q.FieldByName("waiting").Int())
	}
	return n
}

// siteOf is what the transfers keep of the first endpoint.
func siteOf(r *Registry) reflect.Value {
	sites := reflect.ValueOf(r.transfers).Elem().FieldByName("sites")
	return sites.MapIndex(reflect.ValueOf(r.endpoints[0].Endpoint)).Elem()
}

// Held is how many entries each memory of a registry's first endpoint has, and how many it may have.
func Held(r *Registry) map[string][2]int {
	ep := r.endpoints[0]
	return map[string][2]int{
		"tokens":           {length(r.logins, "tokens", "have"), 10_000},
		"refused tokens":   {length(r.logins, "tokens", "refusals", "m"), 10_000},
		"token calls":      {length(r.logins, "tokens", "calls", "calls"), 0},
		"schemes":          {length(ep.Known, "schemes", "own"), 4096},
		"public":           {length(ep.Known, "public", "repositories", "m"), 16_384},
		"computed digests": {length(ep.Known, "public", "made"), 4096},
		"problems":         {length(r.logins, "standing", "problems"), 1024},
		"failed renewals":  {length(r.logins, "standing", "failedRenewals", "m"), 1024},
		"refusals":         {length(r.logins, "standing", "refusals", "m"), 1024},
		"shown":            {length(r.logins, "shown", "list"), 64},
		"probes":           {length(ep, "probes", "results", "m"), maxProbes},
		"known to exist":   {length(ep, "probes", "exists", "m"), maxExists},
		"said sizes":       {siteOf(r).FieldByName("sizes").Elem().FieldByName("entries").Len(), 1024},
		"redirects":        {length(r, "redirects", "m"), maxKnownRedirects},
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
