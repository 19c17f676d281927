// Package auth is who we are to upstreams: credentials, where they come from, and their state.
//
// Promise: a Secret never shows itself. It prints, marshals and logs as "***", even inside a structure of somebody
// else; only Reveal gives its text, and internal/arch lists the packages that may import this one.
//
// Sources here are the static ones: a fixed credential, a file that is read again when it changes, the environment. The
// others have a folder each below this one, and stand on Refreshed: what doesn't last is fetched ahead of its end, once at
// a time, and the old one stays in use until it really expires. The package itself speaks to no network.
//
// What a Source can do besides giving a credential is said by the interfaces Reporter, Renewer, Scoped and Runner, and
// used by way of the functions Describe, Renew, For and Run, which do the plain thing for a Source that can't.
package auth

import (
	"context"
	"time"
)

// Credential is what a Source yields. The zero value is anonymous.
type Credential struct {
	Name     string // the operator's name for it, shown to people
	Username string
	Password Secret
	Identity Secret    // an OAuth2 refresh token, instead of Username and Password
	Expires  time.Time // zero: not known to expire
}

// IsAnonymous reports whether the credential has nothing to prove who we are.
func (c Credential) IsAnonymous() bool {
	return c.Username == "" && c.Password.IsZero() && c.Identity.IsZero()
}

// Credential makes a credential a Source of itself.
func (c Credential) Credential(context.Context) (Credential, error) { return c, nil }

// Anonymous is the source of no credential at all.
var Anonymous Source = Credential{}

// Source yields a credential. Implementations are safe for concurrent use; an error says what the operator can do.
// It is asked for every request, so it answers from memory while nothing has changed.
type Source interface {
	Credential(ctx context.Context) (Credential, error)
}

// State is the health of a credential as operators see it.
type State string

// The states of a credential.
const (
	StateUnknown  State = "unknown" // it has not been asked for yet
	StateOK       State = "ok"
	StateExpiring State = "expiring"
	StateExpired  State = "expired"
	StateRejected State = "rejected"
	StateFailing  State = "failing"
)

// Reporter is a Source that knows more about its credential than the credential itself shows.
type Reporter interface {
	Source
	// Status asks neither a host nor a program: it says how the last attempt to get the credential went. A source that is
	// a file looks at it.
	Status() Status
}

// Describe is the status of a source, as far as it says one. The zero Status is anonymous.
func Describe(s Source) Status {
	switch s := s.(type) {
	case nil:
		return Status{}
	case Reporter:
		return s.Status()
	case Credential:
		if s.IsAnonymous() {
			return Status{}
		}
		st := Status{Name: s.Name, Kind: "static", State: StateOK, Expires: s.Expires}
		if !s.Expires.IsZero() && time.Now().After(s.Expires) {
			st.State = StateExpired
		}
		return st
	}
	return Status{Kind: "other", State: StateOK}
}

// Status describes a credential without its secret.
type Status struct {
	Name        string
	Kind        string
	For         string // what it is for: a host, with what else narrows it; empty where the source doesn't know
	State       State
	Since       time.Time // when the state became what it is; zero: not known
	Expires     time.Time
	LastRefresh time.Time
	LastError   string
	LastErrorAt time.Time // zero: not known
}
