package upstream

import (
	"context"
	"net/http"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
)

// grantAt lets us in where a redirect led to another registry, which answered 401: a vanity host sends on to it. Where the
// operator has named it, in redirectHosts, and its token service, in authHosts, we get a token there without a login: ours is
// for the endpoint alone. Otherwise the error is an *AwayError, or the refusal where it is not a registry's. It closes the
// answer.
func (c *call) grantAt(ctx context.Context, here endpoint.Origin, a endpoint.Request, resp *http.Response) (grant, error) {
	f := c.refuse(resp)
	bearer, ok := header.FindChallenge(f.Challenges, "bearer")
	if _, basic := header.FindChallenge(f.Challenges, "basic"); !ok && !basic {
		return grant{}, f
	}
	away := &fault.AwayError{From: c.ep.Origin.String(), To: here.String()}
	u, err := c.ep.Policy.Realm(c.ep.Origin, a.URL, bearer.Params["realm"])
	if to, rerr := a.URL.Parse(bearer.Params["realm"]); ok && rerr == nil {
		at, _ := endpoint.OriginOf(to)
		away.Realm = fault.OneLine(at.String(), 100)
	}
	if !ok || err != nil || guard.Away && !c.ep.Policy.RedirectHosts.Has(here) {
		f.Err = away
		return grant{}, f
	}
	g := grant{bound: here, key: tokenKey{
		endpoint: here, realm: u.String(), service: bearer.Params["service"], scope: bearer.Params["scope"],
		who: identityOf(noCredential),
	}}
	if len(g.key.scope) > 1<<10 || g.key.scope == "" {
		g.key.scope = way{}.scopeOf(c.repository)
	}
	c.trace.Last().Err = nil // as it should be: we asked, and were told how
	core, ep, key := c.core, c.ep, g.key
	out, _ := c.tokens.get(ctx, key, func(ctx context.Context) fetched { return core.fetchToken(ctx, ep, key, noCredential) })
	c.trace.Add(out.steps...)
	if out.err != nil {
		return grant{}, c.atTokenService(way{realm: key.realm}, out.err)
	}
	g.token, g.value = out.token, auth.NewSecret("Bearer "+out.token.value.Reveal())
	return g, nil
}
