package login

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// grant is what a request shows to be let in.
type grant struct {
	value auth.Secret // of Authorization; zero: none
	key   tokenKey
	token *token          // nil for a password
	bound endpoint.Origin // where it may be shown; zero: at the endpoint
	sure  bool            // the challenge is this repository's, not that of another one
	fresh bool            // the token was fetched just now
}

func (g grant) isEmpty() bool { return g.value.IsZero() }

// authorize is the only place where a request gets credentials. They are bound to an origin: a request that leads to
// another one is a mistake of ours, and must not become a leak.
func authorize(req *http.Request, bound endpoint.Origin, value auth.Secret) error {
	if value.IsZero() {
		return nil
	}
	if to, ok := endpoint.OriginOf(req.URL); !ok || to != bound {
		return fmt.Errorf("credentials for %s must not go to %s", bound, to)
	}
	req.Header.Set("Authorization", value.Reveal())
	return nil
}

func basicAuth(c auth.Credential) auth.Secret {
	if c.Password.IsZero() && c.Username == "" {
		return auth.Secret{}
	}
	return auth.NewSecret("Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password.Reveal())))
}

// grant makes an Authorization of a credential. It is empty as long as the endpoint's challenge is not known: the first
// request learns it.
func (t *Transport) grant(ctx context.Context, cred auth.Credential) (grant, error) {
	sc, sure, known := t.ep.schemes.of(t.repository)
	switch {
	case !known:
		return grant{}, nil
	case sc.realm == "":
		return grant{value: basicAuth(cred), sure: sure}, nil
	}
	sc.scope = sc.scopeOf(t.repository)
	g := grant{sure: sure, key: tokenKey{endpoint: t.ep.Origin, scheme: sc, credential: identityOf(cred)}}
	return t.withToken(ctx, g, cred)
}

// withToken is a grant with the token of its key.
func (t *Transport) withToken(ctx context.Context, g grant, cred auth.Credential) (grant, error) {
	up, ep, key := t.up, t.ep, g.key
	since, _ := ctx.Value(afreshKey{}).(time.Time)
	out, fresh := up.tokens.get(ctx, key, since, func(ctx context.Context) fetched { return up.fetchToken(ctx, ep, key, cred) })
	t.op.Trace.Add(out.steps...)
	if out.err != nil {
		return g, t.atTokenService(key.realm, out.err)
	}
	g.value, g.token, g.fresh = auth.NewSecret("Bearer "+out.token.value.Reveal()), out.token, fresh
	return g, nil
}

// atTokenService adds the step to an error that came while another operation's token request was waited for.
func (t *Transport) atTokenService(realm string, err error) error {
	if _, ok := errors.AsType[*fault.Failure](err); ok {
		return err
	}
	step := fault.Step{Name: fault.StepToken, Err: err}
	if u, perr := url.Parse(realm); perr == nil {
		o, _ := endpoint.OriginOf(u)
		step.Host = o.String()
	}
	t.op.Trace.Add(step)
	return &fault.Failure{Err: err, Step: step}
}
