package upstream

import (
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

// The pure parts, for tables and fuzzing.

func LifeOf(value, expiresIn string, now time.Time) time.Duration {
	return lifeOf(value, expiresIn, now)
}

// Authorize attaches credentials that are bound to a place.
func Authorize(req *http.Request, bound string) error {
	u, err := url.Parse(bound)
	if err != nil {
		return err
	}
	o, _ := endpoint.OriginOf(u)
	return authorize(req, o, auth.NewSecret("Basic x"))
}

// CloseIdle has the next request make a connection.
func (r *Registry) CloseIdle() {
	for _, ep := range r.endpoints {
		ep.CloseIdle()
	}
}

// MaxTokens is how many tokens and refusals are kept.
const MaxTokens = maxTokens

// FillTokens has a registry hold as many tokens as it may, none of which is in use.
func FillTokens(r *Registry) {
	for i := 0; TokensHeld(r) < maxTokens-1; i++ {
		k := tokenKey{scope: "repository:filler" + strconv.Itoa(i) + ":pull"}
		r.tokens.mu.Lock()
		r.tokens.keep(k, &tokenCall{out: fetched{token: newToken("t", time.Hour, time.Now().Add(-time.Minute))}})
		r.tokens.mu.Unlock()
	}
}

// TokensHeld is how many tokens and refusals a registry holds.
func TokensHeld(r *Registry) int {
	r.tokens.mu.Lock()
	defer r.tokens.mu.Unlock()
	return len(r.tokens.have) + len(r.tokens.no)
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
		"tokens":        {TokensHeld(r), maxTokens},
		"token calls":   {len(r.tokens.calls), 0},
		"ways":          {len(ep.known.repos), maxWays},
		"public":        {len(ep.public.until), maxPublic},
		"inquiries":     {len(ep.inquiries.m), maxProbes},
		"known to be":   {len(ep.inquiries.exists), maxExists},
		"said sizes":    {len(ep.said.m), maxSaid},
		"places":        {len(r.places.m), maxPlaces},
		"refused":       {len(r.health.bad), maxIdentities + 1},
		"in vain":       {len(r.health.vain), maxIdentities},
		"declined":      {len(r.health.no), maxIdentities},
		"shown":         {len(r.shown.known), maxShown},
		"budgets":       {lengthOf(ep.limits, "budgets"), 64},
		"ledgers":       {lengthOf(ep.limits.Spending(), "ledgers"), 1024},
		"paused limits": {lengthOf(ep.limits, "pauses"), 1024},
		"queues":        {QueueHolds(r), 0},
	}
}

// lengthOf is the length of an unexported field of a type of another package.
func lengthOf(p any, field string) int { return reflect.ValueOf(p).Elem().FieldByName(field).Len() }
