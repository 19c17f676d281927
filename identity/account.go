package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/internal/coalesce"
)

const (
	// acceptedFor and refusedFor are how long the answer about a token is remembered; never past its end.
	acceptedFor = 60 * time.Second
	refusedFor  = 10 * time.Second
	// maxAccounts is how many tokens are remembered, and maxReviews how many are asked about at a time.
	maxAccounts = 16_384
	maxReviews  = 32
	// maxJWT is the size of a token in bytes: those of Kubernetes have about 1 KiB.
	maxJWT = 8 << 10
	// clockLeeway is how far the clocks of a cluster and the mirror may differ.
	clockLeeway = 30 * time.Second
)

// algorithms are those with which Kubernetes signs. None of them works with a key that is public.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384}

// Reviewer asks the API server of a cluster about a token. *kube.Client is the real one.
type Reviewer interface {
	// ReviewToken returns the name of the user that a token is of, if it is valid for an audience. Empty: it is not, and why says
	// what the API server says of it.
	ReviewToken(ctx context.Context, token, audience string) (user, why string, err error)
}

// Keys are those with which a cluster signs its tokens.
type Keys interface {
	// Find returns the keys of an id, or all where the id is empty.
	Find(ctx context.Context, id string) ([]jose.JSONWebKey, error)
}

// AccountOptions say which tokens of service accounts are accepted.
type AccountOptions struct {
	Audience string // that tokens must name; required
	// Reviewer checks tokens in their cluster, where a token ends with its pod. Nil: Keys and Issuer do.
	Reviewer Reviewer
	Keys     Keys
	Issuer   string
}

// Accounts tell service accounts of Kubernetes by their tokens. They are safe for concurrent use.
type Accounts struct {
	o       AccountOptions
	known   *bounded.LRU[[sha256.Size]byte, reviewed]
	reviews coalesce.Group[[sha256.Size]byte, reviewed]
}

// reviewed is the answer about a token.
type reviewed struct {
	who    client.Identity
	result Result
	detail string
	err    error
	until  time.Time
}

// NewAccounts makes Accounts.
func NewAccounts(o AccountOptions) *Accounts {
	return &Accounts{
		o: o, known: bounded.NewLRU(bounded.Options[[sha256.Size]byte, reviewed]{Budget: maxAccounts}),
		reviews: coalesce.Group[[sha256.Size]byte, reviewed]{Most: maxReviews},
	}
}

// isJWT reports whether a text has the form of a token of Kubernetes.
func isJWT(s string) bool { return strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") == 2 }

// claims are what a token says of itself, until it is checked.
type claims struct {
	jwt.Claims
	who client.Identity
}

// read reads a token, and refuses one that is not for the mirror: it is shown to no API server.
func (a *Accounts) read(token string, now time.Time) (*jwt.JSONWebToken, claims, error) {
	var c claims
	if len(token) > maxJWT {
		return nil, c, fmt.Errorf("the token has more than %d KiB", maxJWT>>10)
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return nil, c, errors.New("the token can't be read, or is signed in a way that Kubernetes does not use")
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&c.Claims); err != nil {
		return nil, c, errors.New("the claims of the token can't be read")
	}
	expected := jwt.Expected{AnyAudience: jwt.Audience{a.o.Audience}, Issuer: a.o.Issuer, Time: now}
	if c.Expiry == nil {
		return nil, c, errors.New("the token has no end")
	}
	switch err := c.ValidateWithLeeway(expected, clockLeeway); {
	case errors.Is(err, jwt.ErrInvalidAudience):
		return nil, c, fmt.Errorf("the token is not for the audience %s", a.o.Audience)
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return nil, c, fmt.Errorf("the token was not issued by %s", a.o.Issuer)
	case errors.Is(err, jwt.ErrExpired):
		return nil, c, errors.New("the token has expired")
	case err != nil:
		return nil, c, errors.New("the token is not valid yet")
	}
	if c.who = accountOf(c.Subject); c.who == "" {
		return nil, c, errors.New("the token is not of a service account")
	}
	return parsed, c, nil
}

// accountPattern is the user name of a service account.
var accountPattern = regexp.MustCompile(`^system:serviceaccount:([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?):([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)$`)

// accountOf is the identity of a service account by its user name; empty: it is not one.
func accountOf(user string) client.Identity {
	if m := accountPattern.FindStringSubmatch(user); m != nil {
		return client.ServiceAccount(m[1], m[3])
	}
	return ""
}

// account checks the token of a service account.
func (v *Verifier) account(ctx context.Context, a *Accounts, token, source string) (client.Identity, error) {
	now := time.Now()
	key := v.sum(token)
	got, known := a.known.Get(key)
	if !known || !now.Before(got.until) {
		parsed, c, err := a.read(token, now)
		if err != nil {
			return "", v.refuse(ByAccount, Refused, err.Error(), nil)
		}
		got, _, err = a.reviews.Do(ctx, key, func(ctx context.Context) (reviewed, error) {
			if got, known := a.known.Get(key); known && now.Before(got.until) { // since the caller has looked
				return got, nil
			}
			got := v.review(ctx, a, parsed, c, token, source)
			v.o.Observe(ByAccount, got.result)
			if !got.until.IsZero() {
				a.known.Put(key, got, 1)
			}
			return got, nil
		})
		if err != nil {
			return "", v.refuse(ByAccount, Unavailable, "", err)
		}
	}
	if got.result != Accepted {
		return "", &RefusedError{Method: ByAccount, Result: got.result, Detail: got.detail, Err: got.err}
	}
	return got.who, nil
}

// review checks a token that is for the mirror.
func (v *Verifier) review(ctx context.Context, a *Accounts, parsed *jwt.JSONWebToken, c claims, token, source string) reviewed {
	if a.o.Reviewer == nil {
		return a.verify(ctx, parsed, c)
	}
	t := v.limits.begin(string(c.who), source, time.Now())
	if t == nil {
		return reviewed{result: Limited, detail: "there were too many wrong tokens"}
	}
	user, why, err := a.o.Reviewer.ReviewToken(ctx, token, a.o.Audience)
	now := time.Now()
	switch {
	case err != nil:
		t.undo()
		return reviewed{result: Unavailable, err: err}
	case user != c.Subject:
		if why == "" {
			why = "the API server does not accept the token"
		}
		return reviewed{result: Refused, detail: why, until: now.Add(refusedFor)}
	}
	t.succeeded()
	return a.accept(c, now)
}

// verify checks the signature of a token.
func (a *Accounts) verify(ctx context.Context, parsed *jwt.JSONWebToken, c claims) reviewed {
	id := ""
	if len(parsed.Headers) > 0 {
		id = parsed.Headers[0].KeyID
	}
	keys, err := a.o.Keys.Find(ctx, id)
	if err != nil {
		return reviewed{result: Unavailable, err: err}
	}
	now := time.Now()
	if slices.ContainsFunc(keys, func(k jose.JSONWebKey) bool { return parsed.Claims(k.Key, new(jwt.Claims)) == nil }) {
		return a.accept(c, now)
	}
	if len(keys) == 0 {
		// The key may be found a moment later: not remembered, since to look costs nothing.
		return reviewed{result: Refused, detail: "the key that has signed the token is not among those of the cluster"}
	}
	return reviewed{result: Refused, detail: "the signature of the token is wrong", until: now.Add(refusedFor)}
}

// accept is the answer about a good token. It holds no longer than the token does.
func (a *Accounts) accept(c claims, now time.Time) reviewed {
	until := now.Add(acceptedFor)
	if end := c.Expiry.Time().Add(clockLeeway); end.Before(until) {
		until = end
	}
	return reviewed{who: c.who, result: Accepted, until: until}
}
