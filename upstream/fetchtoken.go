package upstream

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/registrymirror/mirror/auth"
)

// The limits of a token service's answer.
const (
	maxTokenAnswer = 1 << 20
	maxTokenLife   = 24 * time.Hour
	tokenLife      = time.Minute // where nobody says how long
)

// fetchToken asks a token service for one token of one scope (distribution's token specification).
func (c *core) fetchToken(ctx context.Context, ep *endpoint, k tokenKey, cred auth.Credential) fetched {
	// A budget of its own: those who wait for it have theirs.
	ctx, cancel := context.WithTimeout(ctx, c.o.DialTimeout+c.o.HeaderTimeout)
	defer cancel()
	t := &call{core: c, ep: ep, cred: cred}
	tok, err := t.fetchToken(ctx, k)
	if broke(err) && ctx.Err() == nil {
		tok, err = t.fetchToken(ctx, k)
	}
	return fetched{token: tok, steps: t.steps, err: err}
}

func (c *call) fetchToken(ctx context.Context, k tokenKey) (*token, error) {
	begun := time.Now()
	a, bound, secret, err := c.tokenRequest(k)
	if err != nil {
		return nil, &fault{err: err, step: Step{Name: StepToken, Err: err}}
	}
	req, err := c.request(a)
	if err == nil {
		err = authorize(req, bound, secret)
	}
	if err != nil {
		return nil, &fault{err: err, step: Step{Name: StepToken, Host: bound.String(), Err: err}}
	}
	resp, steps, err := c.roundTrip(ctx, c.ep.registry, req, a)
	c.trace(steps...)
	if to := movedWithin(bound, a, resp); err == nil && to != nil {
		resp.Body.Close()
		a.url = to
		if req, err = c.request(a); err == nil {
			err = authorize(req, bound, secret)
		}
		if err != nil {
			return nil, &fault{err: err, step: Step{Name: StepToken, Host: bound.String(), Err: err}}
		}
		resp, steps, err = c.roundTrip(ctx, c.ep.registry, req, a)
		c.trace(steps...)
	}
	step := steps[len(steps)-1]
	if err != nil {
		return nil, &fault{err: err, step: step, stage: StepToken}
	}
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		defer resp.Body.Close()
		host := bound.String()
		if u, err := a.url.Parse(resp.Header.Get("Location")); err == nil {
			to, _ := originOf(u)
			host = oneLine(to.String(), 100)
		}
		err = &RedirectError{Host: host, Why: "token requests are not redirected", Final: true}
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
	return nil, &fault{err: err, step: step}
}

// movedWithin is where a token service redirects within its own origin, as from /token to /token/: the login that is bound to
// the origin may go there. Nil: nowhere, or elsewhere, or with a body that has been sent.
func movedWithin(bound origin, a ask, resp *http.Response) *url.URL {
	if resp == nil || !isRedirect(resp.StatusCode) || a.method != http.MethodGet {
		return nil
	}
	u, err := a.url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil
	}
	if to, ok := originOf(u); !ok || to != bound {
		return nil
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return u
}

// tokenRequest makes the request for a token: by GET, with the password as Basic, or by POST with a refresh token. It
// says to which origin the secret is bound.
func (c *call) tokenRequest(k tokenKey) (ask, origin, auth.Secret, error) {
	u, err := c.ep.policy.realm(c.ep.origin, c.ep.url, k.realm)
	if err != nil {
		return ask{}, origin{}, auth.Secret{}, err
	}
	bound, _ := originOf(u)
	a := ask{
		step: StepToken, method: http.MethodGet, url: u, reach: reachAny,
		header: http.Header{"Accept": {"application/json"}},
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
		a.method, a.body = http.MethodPost, strings.NewReader(q.Encode())
		a.header.Set("Content-Type", "application/x-www-form-urlencoded")
		return a, bound, auth.Secret{}, nil
	}
	to := *u
	if to.RawQuery != "" && len(q) > 0 {
		to.RawQuery += "&"
	}
	to.RawQuery += q.Encode()
	a.url = &to
	return a, bound, basicAuth(c.cred), nil
}

func (c *call) readToken(resp *http.Response, begun time.Time) (*token, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxTokenAnswer {
		return nil, &ContentError{
			Kind: ContentTooLarge, Want: fmt.Sprintf("a token answer of at most %d bytes", maxTokenAnswer), Got: "more",
		}
	}
	var doc struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"` // a number, and from some a string
	}
	b = bytes.TrimPrefix(b, []byte(byteOrderMark))
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, &ContentError{Kind: ContentNotRegistry, Want: "JSON with a token", Got: shapeOf(b)}
	}
	value := orElse(doc.Token, doc.AccessToken)
	if value == "" {
		return nil, &ContentError{Kind: ContentNotRegistry, Want: "JSON with a token", Got: fmt.Sprintf("JSON without one, %d bytes", len(b))}
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, &ContentError{Kind: ContentNotRegistry, Want: "a token", Got: "one that can't be sent in a header"}
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

// shapeOf describes a successful answer of a token service that can't be read. It quotes nothing: what is there may be a token.
func shapeOf(b []byte) string {
	text := bytes.TrimSpace(b)
	what := "text"
	switch first := json.NewDecoder(bytes.NewReader(text)).Decode(new(json.RawMessage)); {
	case len(b) == 0:
		return "nothing"
	case len(text) == 0:
		what = "blanks"
	case json.Valid(text) && text[0] != '{':
		what = "JSON that is not an object"
	case json.Valid(text):
		what = "JSON with a token that is not a string"
	case first == nil && text[0] == '{':
		what = "JSON with something after it"
	case text[0] == '{':
		what = "broken JSON"
	case isHTMLBody(text):
		what = "a web page"
	case text[0] == '<':
		what = "XML"
	case !utf8.Valid(text):
		what = "data that is not text"
	}
	return fmt.Sprintf("%s, %d bytes", what, len(b))
}

// whatIs describes bytes that are not what they should be. Not those of a token service, see shapeOf.
func (c *call) whatIs(h http.Header, b []byte) string {
	kind, _, text := readErrorBody(b, h.Get("Content-Type"))
	text = tidy(text, 80, c.secrets()...)
	switch {
	case len(b) == 0:
		return "nothing"
	case kind == BodyHTML:
		return fmt.Sprintf("a web page %q", text)
	}
	return oneLine(fmt.Sprintf("%s %q", orElse(mediaType(h), string(kind)), text), maxMessage)
}

// broke reports whether a connection broke, as against an answer or a host that can't be reached: a second attempt
// may find another.
func broke(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || isReset(err)
}
