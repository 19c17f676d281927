package login

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

const (
	maxTokenAnswer   = 1 << 20 // bytes
	maxTokenLife     = 24 * time.Hour
	defaultTokenLife = time.Minute // where neither the service nor the token says how long
)

// fetchToken asks a token service for one token of one scope (distribution's token specification).
func (u *Upstream) fetchToken(ctx context.Context, ep *Known, k tokenKey, cred auth.Credential) fetched {
	// A timeout of its own: operations that wait for it have theirs.
	ctx, cancel := context.WithTimeout(ctx, u.o.TokenTimeout)
	defer cancel()
	op := Operation{Trace: &fault.Trace{Endpoint: ep.Name}}
	t := &Transport{chooser: chooser{up: u, ep: ep, Credential: cred, op: op}}
	tok, err := t.fetchToken(ctx, k)
	if fault.IsBroken(err) && ctx.Err() == nil {
		tok, err = t.fetchToken(ctx, k)
	}
	return fetched{token: tok, steps: t.op.Trace.Steps, err: err}
}

func (t *Transport) fetchToken(ctx context.Context, k tokenKey) (*token, error) {
	began := time.Now()
	r, bound, secret, err := t.tokenRequest(k)
	if err != nil {
		return nil, &fault.Failure{Err: err, Step: fault.Step{Name: fault.StepToken, Err: err}}
	}
	g := grant{bound: bound, value: secret}
	resp, err := t.exchange(ctx, t.ep.Registry, r, g)
	if to := movedWithin(bound, r, resp); err == nil && to != nil {
		resp.Body.Close()
		r.URL = to
		resp, err = t.exchange(ctx, t.ep.Registry, r, g)
	}
	if err != nil {
		return nil, err
	}
	step := *t.op.Trace.Last()
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		defer resp.Body.Close()
		host := bound.String()
		if u, err := r.URL.Parse(resp.Header.Get("Location")); err == nil {
			to, _ := endpoint.OriginOf(u)
			host = text.Line(to.String(), 100)
		}
		err = &fault.RedirectError{Host: host, Why: "token requests are not redirected", Final: true}
	case resp.StatusCode >= 400: // any 2xx may bring a token, as 201 from some
		return nil, t.Refuse(resp)
	default:
		defer resp.Body.Close()
		var tok *token
		if tok, err = readToken(resp, began); err == nil {
			return tok, nil
		}
	}
	step.Err = err
	return nil, &fault.Failure{Err: err, Step: step}
}

// movedWithin is where a token service redirects within its own origin, as from /token to /token/: the login that is bound to
// the origin may go there. Nil: nowhere, or elsewhere, or with a body that has been sent.
func movedWithin(bound endpoint.Origin, r endpoint.Request, resp *http.Response) *url.URL {
	if resp == nil || !endpoint.IsRedirect(resp.StatusCode) || r.Method != http.MethodGet {
		return nil
	}
	u, err := r.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil
	}
	if to, ok := endpoint.OriginOf(u); !ok || to != bound {
		return nil
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return u
}

// tokenRequest makes the request for a token: by GET, with the password as Basic, or by POST with a refresh token. It
// says to which origin the secret is bound.
func (t *Transport) tokenRequest(k tokenKey) (r endpoint.Request, bound endpoint.Origin, secret auth.Secret, err error) {
	u, err := t.ep.Policy.Realm(t.ep.Origin, t.ep.URL, k.realm)
	if err != nil {
		return r, bound, secret, err
	}
	bound, _ = endpoint.OriginOf(u)
	r = endpoint.Request{
		Step: fault.StepToken, Method: http.MethodGet, URL: u, Reach: endpoint.ReachAny,
		Header: http.Header{"Accept": {"application/json"}},
	}
	q := url.Values{}
	if k.service != "" {
		q.Set("service", k.service)
	}
	if k.scope != "" {
		q.Set("scope", k.scope)
	}
	if !t.Credential.Identity.IsZero() {
		q.Set("grant_type", "refresh_token")
		q.Set("client_id", "mirror")
		q.Set("refresh_token", t.Credential.Identity.Reveal())
		r.Method, r.Body = http.MethodPost, strings.NewReader(q.Encode())
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return r, bound, auth.Secret{}, nil
	}
	to := *u
	if to.RawQuery != "" && len(q) > 0 {
		to.RawQuery += "&"
	}
	to.RawQuery += q.Encode()
	r.URL = &to
	return r, bound, basicAuth(t.Credential), nil
}

func readToken(resp *http.Response, began time.Time) (*token, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxTokenAnswer {
		return nil, fault.TooLarge("a token answer", maxTokenAnswer, -1)
	}
	var doc struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"` // a number, and from some a string
	}
	b = bytes.TrimPrefix(b, []byte(fault.ByteOrderMark))
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fault.NotRegistry("JSON with a token", fault.Shape(b))
	}
	value := cmp.Or(doc.Token, doc.AccessToken)
	if value == "" {
		return nil, fault.NotRegistry("JSON with a token", fmt.Sprintf("JSON without one, %d bytes", len(b)))
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fault.NotRegistry("a token", "one that can't be sent in a header")
	}
	return newToken(value, tokenLife(value, string(doc.ExpiresIn), began), began), nil
}

// tokenLife is how long a token lives: as the service says, else as the token itself says, else a minute.
func tokenLife(value, expiresIn string, now time.Time) time.Duration {
	if s, err := strconv.ParseFloat(strings.Trim(expiresIn, `"`), 64); err == nil && s > 0 {
		return time.Duration(min(s, maxTokenLife.Seconds()) * float64(time.Second))
	}
	if life := auth.TokenLife(value, now); life > 0 {
		return min(life, maxTokenLife)
	}
	return defaultTokenLife
}

// TokenWithoutScope asks the repository's token service, anonymously, for a token that opens nothing. Nil: it gives one.
func (t *Transport) TokenWithoutScope(ctx context.Context) error {
	sc, _, _ := t.ep.schemes.of(t.repository)
	_, err := t.fetchToken(ctx, tokenKey{endpoint: t.ep.Origin, scheme: scheme{realm: sc.realm, service: sc.service}})
	return err
}

// AsksForTokens reports whether the repository is known to ask for tokens with the scope of a repository.
func (t *Transport) AsksForTokens() bool {
	sc, _, known := t.ep.schemes.of(t.repository)
	return known && sc.realm != "" && sc.scope == ""
}
