package login

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

func TokenLife(value, expiresIn string, now time.Time) time.Duration {
	return tokenLife(value, expiresIn, now)
}

// Authorize attaches credentials that are bound to a URL's origin.
func Authorize(req *http.Request, bound string) error {
	u, err := url.Parse(bound)
	if err != nil {
		return err
	}
	o, _ := endpoint.OriginOf(u)
	return authorize(req, o, auth.NewSecret("Basic x"))
}

// MaxTokens is how many tokens are kept.
const MaxTokens = maxTokens

// Tokens is the cache of tokens. Its tokens live for an hour.
type Tokens struct{ t *tokens }

func NewTokens() Tokens {
	return Tokens{newTokens(slog.New(slog.DiscardHandler), func(func(context.Context)) bool { return false })}
}

// Get gets the token of a repository, and reports whether it was fetched for that.
func (t Tokens) Get(ctx context.Context, repository string) (fetchedNow bool) {
	_, fetchedNow = t.Since(ctx, repository, time.Time{}, 0)
	return fetchedNow
}

// Since is Get of a token that was asked for at a time at the earliest, where the service takes a time to answer. It returns when the
// token was asked for.
func (t Tokens) Since(ctx context.Context, repository string, since time.Time, takes time.Duration) (at time.Time, fetchedNow bool) {
	out, fetchedNow := t.t.get(ctx, tokenKey{scheme: scheme{scope: repository}}, since, func(context.Context) fetched {
		began := time.Now()
		time.Sleep(takes)
		return fetched{token: newToken("t", time.Hour, began)}
	})
	return out.token.fetched, fetchedNow
}

// Held is how many tokens are kept.
func (t Tokens) Held() int {
	t.t.mu.Lock()
	defer t.t.mu.Unlock()
	return len(t.t.have)
}
