package upstream

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/upstream/endpoint"
)

// State is the health of the endpoints, in their order. It makes no request.
func (r *Registry) State() []endpoint.Status {
	list := make([]endpoint.Status, len(r.endpoints))
	for i, ep := range r.endpoints {
		list[i] = ep.Health.Status(time.Now())
		list[i].URL = ep.Name
		list[i].Running, list[i].Waiting = r.transfers.Load(ep.Endpoint)
		list[i].Budgets = ep.Limits.All()
	}
	return list
}

// Served reports whether an endpoint has ever given something that it was asked for, so that the upstream is known to exist.
func (r *Registry) Served() bool {
	for _, ep := range r.endpoints {
		if ep.Health.Served() {
			return true
		}
	}
	return false
}

// Reset makes the endpoints be asked again, whatever they have said or done before: that they limit us, that nothing is left
// of a limit, that they are down. Tokens and what was learned of logins stay, and State still shows what an endpoint has said.
func (r *Registry) Reset() {
	for _, ep := range r.endpoints {
		ep.Limits.Reset()
		ep.Health.Reset()
	}
	r.transfers.Reset()
}

// watch gives the endpoints their health.
func (c *core) watch() {
	for _, ep := range c.endpoints {
		ep.Health = endpoint.NewHealth(endpoint.HealthOptions{
			Endpoint: ep.Name, Only: len(c.endpoints) == 1, Log: c.o.Log, Ping: func(ctx context.Context) error { return c.ping(ctx, ep) }, Start: c.background.start,
		})
	}
}
