// Package auth has the credentials for upstreams, their sources, and their state.
//
// Promise: a Secret never shows itself. It prints, marshals and logs as "***", inside any structure; only Reveal gives its
// text, and internal/arch lists the packages that may import this one.
//
// Sources here are the static ones: a fixed credential, a file that is read again when it changes, the environment. The
// others have a folder each below this one, and use Refreshed: a credential that expires is fetched ahead of that, once at
// a time, and the old one stays in use until it really expires. The package itself speaks to no network.
//
// A Source may implement Reporter, Renewer, Scoped and Runner. Callers use the functions Describe, Renew, All and Run, which
// have a plain result for a Source that does not.
package auth

import (
	"context"
	"encoding/base64"
	"time"
)

// Credential is a login. The zero value is anonymous.
type Credential struct {
	Name     string // the operator's name for it, shown to people
	Username string
	Password Secret
	Identity Secret    // an OAuth2 refresh token, instead of Username and Password
	Expires  time.Time // zero: not known to expire
}

// IsAnonymous reports whether the credential has no secret and no user.
func (c Credential) IsAnonymous() bool {
	return c.Username == "" && c.Password.IsZero() && c.Identity.IsZero()
}

// Secrets are the texts that must be in no message: the secrets, and the login as it is sent.
func (c Credential) Secrets() []string {
	list := []string{c.Password.Reveal(), c.Identity.Reveal()}
	if !c.Password.IsZero() {
		login := []byte(c.Username + ":" + c.Password.Reveal())
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			list = append(list, e.EncodeToString(login))
		}
	}
	return list
}

// expired reports whether the credential has ended.
func (c Credential) expired(now time.Time) bool { return !c.Expires.IsZero() && !now.Before(c.Expires) }

// Credential makes a credential a Source of itself.
func (c Credential) Credential(context.Context) (Credential, error) { return c, nil }

// Anonymous is the source of no credential at all.
var Anonymous Source = Credential{}

// State is the health of a credential as operators see it.
type State string

// The states of a credential.
const (
	StateUnknown  State = "unknown" // it has not been fetched yet
	StateOK       State = "ok"
	StateExpiring State = "expiring"
	StateExpired  State = "expired"
	StateRejected State = "rejected"
	StateFailing  State = "failing"
)

// Status describes a credential without its secret.
type Status struct {
	Name        string
	Kind        string
	For         string // the host, or the repository, that it is for; empty: the source doesn't know
	State       State
	Since       time.Time // when the present state began; zero: not known
	Expires     time.Time
	LastRefresh time.Time
	LastError   string
	LastErrorAt time.Time // zero: not known
}
