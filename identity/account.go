package identity

import (
	"cmp"
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
	// maxAccounts is how many tokens are remembered as good, and how many as bad.
	maxAccounts = 16_384
	// How many tokens are asked about at a time, in all and from one address: those whose signature is right, and others.
	provenReviews, provenAtOnce     = 32, 8
	unprovenReviews, unprovenAtOnce = 16, 4
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
	// Keys are those that sign tokens. With a Reviewer a token whose signature is wrong by them is not shown to it, and one whose
	// signature is right takes precedence; nil: each is shown to it.
	Keys   Keys
	Issuer string // empty, with a Reviewer alone: any
}

// Accounts tell service accounts of Kubernetes by their tokens. They are safe for concurrent use.
type Accounts struct {
	o AccountOptions
	// good and bad are tokens by their last answer, apart: bad ones displace no good one.
	good, bad *bounded.LRU[[sha256.Size]byte, reviewed]
	reviews   coalesce.Group[[sha256.Size]byte, reviewed]
	// The turns of questions about tokens whose signature is right, or which were accepted before, and about others.
	proven, unproven *turns
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
		o:      o,
		good:   bounded.NewLRU(bounded.Options[[sha256.Size]byte, reviewed]{Budget: maxAccounts}),
		bad:    bounded.NewLRU(bounded.Options[[sha256.Size]byte, reviewed]{Budget: maxAccounts}),
		proven: newTurns(provenAtOnce, provenReviews), unproven: newTurns(unprovenAtOnce, unprovenReviews),
	}
}

// remembered is the answer about a token, while it holds.
func (a *Accounts) remembered(key [sha256.Size]byte, now time.Time) (reviewed, bool) {
	for _, of := range []*bounded.LRU[[sha256.Size]byte, reviewed]{a.good, a.bad} {
		if got, ok := of.Get(key); ok && now.Before(got.until) {
			return got, true
		}
	}
	return reviewed{}, false
}

// remember remembers the answer about a token. One that could not be had leaves what is known.
func (a *Accounts) remember(key [sha256.Size]byte, got reviewed) {
	switch got.result {
	case Accepted:
		a.good.Put(key, got, 1)
	case Refused:
		a.good.Remove(key)
		if !got.until.IsZero() {
			a.bad.Put(key, got, 1)
		}
	case Limited, Unavailable:
	}
}

// CheckKeys reports why the keys that sign tokens can't be had: with a Reviewer each forged token is then a question to it.
func (a *Accounts) CheckKeys(ctx context.Context) error {
	if a.o.Keys == nil {
		return errors.New("they are not configured")
	}
	_, err := a.o.Keys.Find(ctx, "")
	return err
}

// isJWT reports whether a text has the form of a token of Kubernetes.
func isJWT(s string) bool { return strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") == 2 }

// claims are what a token says of itself, until it is checked.
type claims struct {
	jwt.Claims
	who client.Identity
}

// parse reads a token without checking it. An error quotes nothing of it.
func parse(token string) (*jwt.JSONWebToken, jwt.Claims, error) {
	var said jwt.Claims
	if len(token) > maxJWT {
		return nil, said, fmt.Errorf("the token has more than %d KiB", maxJWT>>10)
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return nil, said, errors.New("the token can't be read, or is signed in a way that Kubernetes does not use")
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&said); err != nil {
		return nil, said, errors.New("the claims of the token can't be read")
	}
	return parsed, said, nil
}

// Unchecked is what the token of a service account says of itself, which may be made up.
type Unchecked struct {
	Who      client.Identity // empty: it is not of a service account
	Issuer   string
	Audience []string
	Expires  time.Time // zero: it does not say
}

// ReadUnchecked reads a token without checking its signature, audience or times. An error quotes nothing of the token.
func ReadUnchecked(token string) (Unchecked, error) {
	_, said, err := parse(token)
	if err != nil {
		return Unchecked{}, err
	}
	u := Unchecked{Who: accountOf(said.Subject), Issuer: said.Issuer, Audience: said.Audience}
	if said.Expiry != nil {
		u.Expires = said.Expiry.Time()
	}
	return u, nil
}

// read reads a token, and refuses one that is not for the mirror: it is shown to no API server.
func (a *Accounts) read(token string, now time.Time) (*jwt.JSONWebToken, claims, error) {
	var c claims
	parsed, said, err := parse(token)
	if err != nil {
		return nil, c, err
	}
	c.Claims = said
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
		return nil, c, errors.New(TokenExpired)
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
	got, known := a.remembered(key, now)
	if !known {
		parsed, c, err := a.read(token, now)
		if err != nil {
			return "", v.refuse(ByAccount, Refused, err.Error(), nil)
		}
		got, _, err = a.reviews.Do(ctx, key, func(ctx context.Context) (reviewed, error) {
			if got, known := a.remembered(key, now); known { // since the caller has looked
				return got, nil
			}
			_, before := a.good.Get(key)
			got := v.review(ctx, a, parsed, c, token, source, before)
			v.o.Observe(ByAccount, got.result)
			a.remember(key, got)
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

// review checks a token that is for the mirror. before: it was accepted before.
//
// What a token says of itself can be made up, its account too. So nothing is counted by that: a token whose signature is right has turns
// of its own and no limit, one whose signature is wrong is shown to no API server, and of those that can't be told an address
// has a share.
func (v *Verifier) review(ctx context.Context, a *Accounts, parsed *jwt.JSONWebToken, c claims, token, source string, before bool) reviewed {
	now := time.Now()
	if a.o.Reviewer == nil {
		right, known, err := a.signed(ctx, parsed)
		switch {
		case err != nil:
			return reviewed{result: Unavailable, err: err}
		case right:
			return a.accept(c, now)
		case known:
			return reviewed{result: Refused, detail: wrongSignature}
		}
		return reviewed{result: Refused, detail: "the key that has signed the token is not among those of the cluster"}
	}
	if !before && a.o.Keys != nil {
		// Where the keys can't be had the API server is asked: an error is in the log.
		right, known, _ := a.signed(ctx, parsed)
		if known && !right {
			return reviewed{result: Refused, detail: wrongSignature}
		}
		before = right
	}
	if before {
		return a.ask(ctx, a.proven, c, token, source)
	}
	t := v.limits.unproven(source, now)
	if t == nil {
		v.warn(ctx, tooManyTokens, "", source)
		return reviewed{result: Limited, detail: "there were too many wrong tokens from this address"}
	}
	got := a.ask(ctx, a.unproven, c, token, source)
	if got.result != Refused {
		t.undo()
	}
	return got
}

const wrongSignature = "the signature of the token is wrong"

// ask asks the API server about a token when it is the turn of an address.
func (a *Accounts) ask(ctx context.Context, of *turns, c claims, token, source string) (got reviewed) {
	inTime := of.do(ctx, pair{source: source}, func() {
		user, why, err := a.o.Reviewer.ReviewToken(ctx, token, a.o.Audience)
		now := time.Now()
		switch {
		case err != nil:
			got = reviewed{result: Unavailable, err: err}
		case user == c.Subject:
			got = a.accept(c, now)
		default:
			got = reviewed{result: Refused, detail: cmp.Or(why, "the API server does not accept the token"), until: now.Add(refusedFor)}
		}
	})
	if !inTime {
		return reviewed{result: Unavailable, err: errors.New("too many tokens wait to be checked")}
	}
	return got
}

// signed reports whether the signature of a token is right. known: its key is, so that a signature that is not right is wrong.
func (a *Accounts) signed(ctx context.Context, parsed *jwt.JSONWebToken) (right, known bool, err error) {
	id := ""
	if len(parsed.Headers) > 0 {
		id = parsed.Headers[0].KeyID
	}
	keys, err := a.o.Keys.Find(ctx, id)
	if err != nil {
		return false, false, err
	}
	right = slices.ContainsFunc(keys, func(k jose.JSONWebKey) bool { return parsed.Claims(k.Key, new(jwt.Claims)) == nil })
	return right, id != "" && len(keys) > 0, nil
}

// accept is the answer about a good token. It holds no longer than the token does.
func (a *Accounts) accept(c claims, now time.Time) reviewed {
	until := now.Add(acceptedFor)
	if end := c.Expiry.Time().Add(clockLeeway); end.Before(until) {
		until = end
	}
	return reviewed{who: c.who, result: Accepted, until: until}
}
