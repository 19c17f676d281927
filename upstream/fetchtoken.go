package upstream

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// The limits of a token service's answer.
const (
	maxTokenAnswer = 1 << 20
	maxTokenLife   = 24 * time.Hour
	tokenLife      = time.Minute // where nobody says how long
)

// fetchToken asks a token service for one token of one scope (distribution's token specification).
func (c *core) fetchToken(ctx context.Context, ep *target, k tokenKey, cred auth.Credential) fetched {
	// A budget of its own: those who wait for it have theirs.
	ctx, cancel := context.WithTimeout(ctx, c.o.DialTimeout+c.o.HeaderTimeout)
	defer cancel()
	t := &call{core: c, ep: ep, cred: cred, trace: &fault.Trace{Endpoint: ep.Name}}
	tok, err := t.fetchToken(ctx, k)
	if fault.IsBroken(err) && ctx.Err() == nil {
		tok, err = t.fetchToken(ctx, k)
	}
	return fetched{token: tok, steps: t.trace.Steps, err: err}
}

func (c *call) fetchToken(ctx context.Context, k tokenKey) (*token, error) {
	begun := time.Now()
	a, bound, secret, err := c.tokenRequest(k)
	if err != nil {
		return nil, &fault.Failure{Err: err, Step: fault.Step{Name: fault.StepToken, Err: err}}
	}
	req, err := c.ep.NewRequest(a)
	if err == nil {
		err = authorize(req, bound, secret)
	}
	if err != nil {
		return nil, &fault.Failure{Err: err, Step: fault.Step{Name: fault.StepToken, Host: bound.String(), Err: err}}
	}
	resp, steps, err := c.ep.RoundTrip(ctx, c.ep.Registry, req, a)
	c.trace.Add(steps...)
	if to := movedWithin(bound, a, resp); err == nil && to != nil {
		resp.Body.Close()
		a.URL = to
		if req, err = c.ep.NewRequest(a); err == nil {
			err = authorize(req, bound, secret)
		}
		if err != nil {
			return nil, &fault.Failure{Err: err, Step: fault.Step{Name: fault.StepToken, Host: bound.String(), Err: err}}
		}
		resp, steps, err = c.ep.RoundTrip(ctx, c.ep.Registry, req, a)
		c.trace.Add(steps...)
	}
	step := steps[len(steps)-1]
	if err != nil {
		return nil, &fault.Failure{Err: err, Step: step, Stage: fault.StepToken}
	}
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		defer resp.Body.Close()
		host := bound.String()
		if u, err := a.URL.Parse(resp.Header.Get("Location")); err == nil {
			to, _ := endpoint.OriginOf(u)
			host = fault.OneLine(to.String(), 100)
		}
		err = &fault.RedirectError{Host: host, Why: "token requests are not redirected", Final: true}
	case resp.StatusCode >= 400: // any 2xx may bring a token, as 201 from some
		f := c.refuse(resp)
		return nil, f
	default:
		defer resp.Body.Close()
		var tok *token
		if tok, err = c.readToken(resp, begun); err == nil {
			return tok, nil
		}
	}
	step.Err = err
	return nil, &fault.Failure{Err: err, Step: step}
}

// movedWithin is where a token service redirects within its own origin, as from /token to /token/: the login that is bound to
// the origin may go there. Nil: nowhere, or elsewhere, or with a body that has been sent.
func movedWithin(bound endpoint.Origin, a endpoint.Request, resp *http.Response) *url.URL {
	if resp == nil || !endpoint.IsRedirect(resp.StatusCode) || a.Method != http.MethodGet {
		return nil
	}
	u, err := a.URL.Parse(resp.Header.Get("Location"))
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
func (c *call) tokenRequest(k tokenKey) (endpoint.Request, endpoint.Origin, auth.Secret, error) {
	u, err := c.ep.Policy.Realm(c.ep.Origin, c.ep.URL, k.realm)
	if err != nil {
		return endpoint.Request{}, endpoint.Origin{}, auth.Secret{}, err
	}
	bound, _ := endpoint.OriginOf(u)
	a := endpoint.Request{
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
	if !c.cred.Identity.IsZero() {
		q.Set("grant_type", "refresh_token")
		q.Set("client_id", "mirror")
		q.Set("refresh_token", c.cred.Identity.Reveal())
		a.Method, a.Body = http.MethodPost, strings.NewReader(q.Encode())
		a.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return a, bound, auth.Secret{}, nil
	}
	to := *u
	if to.RawQuery != "" && len(q) > 0 {
		to.RawQuery += "&"
	}
	to.RawQuery += q.Encode()
	a.URL = &to
	return a, bound, basicAuth(c.cred), nil
}

func (c *call) readToken(resp *http.Response, begun time.Time) (*token, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxTokenAnswer {
		return nil, &fault.ContentError{
			Kind: fault.ContentTooLarge, Want: fmt.Sprintf("a token answer of at most %d bytes", maxTokenAnswer), Got: "more",
		}
	}
	var doc struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"` // a number, and from some a string
	}
	b = bytes.TrimPrefix(b, []byte(fault.ByteOrderMark))
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, &fault.ContentError{Kind: fault.ContentNotRegistry, Want: "JSON with a token", Got: fault.Shape(b)}
	}
	value := cmp.Or(doc.Token, doc.AccessToken)
	if value == "" {
		return nil, &fault.ContentError{Kind: fault.ContentNotRegistry, Want: "JSON with a token", Got: fmt.Sprintf("JSON without one, %d bytes", len(b))}
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, &fault.ContentError{Kind: fault.ContentNotRegistry, Want: "a token", Got: "one that can't be sent in a header"}
	}
	return newToken(value, lifeOf(value, string(doc.ExpiresIn), begun), begun), nil
}

// lifeOf is how long a token lives: as the service says, else as the token itself says, else a minute.
func lifeOf(value, expiresIn string, now time.Time) time.Duration {
	if s, err := strconv.ParseFloat(strings.Trim(expiresIn, `"`), 64); err == nil && s > 0 {
		return time.Duration(min(s, maxTokenLife.Seconds()) * float64(time.Second))
	}
	if life := jwtLife(value, now); life > 0 {
		return min(life, maxTokenLife)
	}
	return tokenLife
}

// jwtLife is how long a JSON Web Token lives by its own clock, 0 where it doesn't say.
func jwtLife(value string, now time.Time) time.Duration {
	parts := strings.Split(value, ".")
	if len(parts) != 3 {
		return 0
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return 0
	}
	var claims struct{ Exp, Iat float64 }
	if json.Unmarshal(b, &claims) != nil || claims.Exp <= 0 {
		return 0
	}
	begin := float64(now.Unix())
	if claims.Iat > 0 && claims.Iat < claims.Exp {
		begin = claims.Iat // its clock may not be ours
	}
	return time.Duration(min(claims.Exp-begin, maxTokenLife.Seconds()) * float64(time.Second))
}
