package upstream

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"time"

	"github.com/registrymirror/mirror/auth"
)

// The pure parts, for tables and fuzzing.

type Challenge struct {
	Scheme string
	Params map[string]string
}

func ParseChallenges(values ...string) []Challenge {
	var all []Challenge
	for _, c := range parseChallenges(values) {
		all = append(all, Challenge{c.scheme, c.params})
	}
	return all
}

func ParseContentRange(v string) (from, end, size int64, ok bool) {
	r, ok := parseContentRange(v)
	return r.from, r.end, r.size, ok
}

func NextLink(values []string, at *url.URL) *url.URL {
	u, _ := nextLink(values, at)
	return u
}

func Redact(s string, c auth.Credential) string { return redact(s, c) }

func Tidy(s string, n int, c auth.Credential) string { return tidy(s, n, c) }

func OneLine(s string, n int) string { return oneLine(s, n) }

func ReadErrorBody(b []byte, contentType string) (BodyKind, string, string) {
	return readErrorBody(b, contentType)
}

func LifeOf(value, expiresIn string, now time.Time) time.Duration {
	return lifeOf(value, expiresIn, now)
}

// Class names what it takes to dial an address.
func Class(a netip.Addr) string {
	return [...]string{
		reachPublic: "public", reachPrivate: "private", reachLoopback: "loopback",
		reachAny: "never",
	}[needs(a)]
}

// DialPublic dials as for a host that nobody named.
func DialPublic(ctx context.Context, o Options, addr string) (net.Conn, error) {
	return newDialer(o).dial(withReach(ctx, reachPublic), "tcp", addr)
}

type Policy struct{ p policy }

func NewPolicy(authHosts, redirectHosts []string) (Policy, error) {
	var p Policy
	var err error
	if p.p.authHosts, err = parseNames(authHosts); err != nil {
		return p, err
	}
	p.p.redirectHosts, err = parseNames(redirectHosts)
	return p, err
}

func (p Policy) Realm(endpoint *url.URL, realm string) (*url.URL, error) {
	o, _ := originOf(endpoint)
	return p.p.realm(o, endpoint, realm)
}

// Redirect judges a redirect of a host at an address.
func (p Policy) Redirect(endpoint, from *url.URL, location, addr string, proxied bool) (to *url.URL, anywhere bool,
	err error,
) {
	o, _ := originOf(endpoint)
	u, r, err := p.p.redirect(o, from, location, reachFrom(addr), func(*url.URL) bool { return proxied })
	return u, r == reachAny, err
}

// BareTransport is the blob host's, over another.
func BareTransport(rt http.RoundTripper) http.RoundTripper { return bare{rt} }

// Authorize attaches credentials that are bound to a place.
func Authorize(req *http.Request, bound string) error {
	u, err := url.Parse(bound)
	if err != nil {
		return err
	}
	o, _ := originOf(u)
	return authorize(req, o, auth.NewSecret("Basic x"))
}

// CloseIdle has the next request make a connection.
func (r *Registry) CloseIdle() {
	for _, ep := range r.endpoints {
		ep.idle()
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
