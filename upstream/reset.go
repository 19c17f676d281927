package upstream

import "time"

// Reset ends what is believed of the endpoints because of what they said or did before: that they limit us, that nothing
// is left of a limit, that they are down. Tokens, credentials and what was learned of the way in stay. What an endpoint has
// said is still shown.
func (r *Registry) Reset() {
	for _, ep := range r.endpoints {
		ep.limits.Reset()
		ep.condition.reset()
	}
}

// reset makes an endpoint ready to be asked, whatever has failed before.
func (c *condition) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.registry, c.bodies, c.trial = breaker{}, breaker{}, false
	c.limited = [kinds]time.Time{}
}
