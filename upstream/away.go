package upstream

import (
	"context"
	"net/http"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/guard"
)

// grantAt lets us in where a redirect led to another registry, which answered 401: a vanity host sends on to it. Where the
// operator has named it, in redirectHosts, and its token service, in authHosts, we get a token there without a login: ours is
// for the endpoint alone. Otherwise the error is an *AwayError, or the refusal where it is not a registry's. It closes the
// answer.
func (c *call) grantAt(ctx context.Context, here origin, a ask, resp *http.Response) (grant, error) {
	f := c.refuse(resp)
	bearer, ok := find(f.challenges, "bearer")
	if _, basic := find(f.challenges, "basic"); !ok && !basic {
		return grant{}, f
	}
	away := &AwayError{From: c.ep.origin.String(), To: here.String()}
	u, err := c.ep.policy.realm(c.ep.origin, a.url, bearer.params["realm"])
	if to, rerr := a.url.Parse(bearer.params["realm"]); ok && rerr == nil {
		at, _ := originOf(to)
		away.Realm = oneLine(at.String(), 100)
	}
	if !ok || err != nil || guard.Away && !c.ep.policy.redirectHosts.has(here) {
		f.err = away
		return grant{}, f
	}
	g := grant{bound: here, key: tokenKey{
		endpoint: here, realm: u.String(), service: bearer.params["service"], scope: bearer.params["scope"],
		who: identityOf(noCredential),
	}}
	if len(g.key.scope) > 1<<10 || g.key.scope == "" {
		g.key.scope = way{}.scopeOf(c.repository)
	}
	c.steps[len(c.steps)-1].Err = nil // as it should be: we asked, and were told how
	core, ep, key := c.core, c.ep, g.key
	out, _ := c.tokens.get(ctx, key, func(ctx context.Context) fetched { return core.fetchToken(ctx, ep, key, noCredential) })
	c.trace(out.steps...)
	if out.err != nil {
		return grant{}, c.atTokenService(way{realm: key.realm}, out.err)
	}
	g.token, g.value = out.token, auth.NewSecret("Bearer "+out.token.value.Reveal())
	return g, nil
}
