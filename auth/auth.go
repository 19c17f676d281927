// Package auth is who we are to upstreams: credentials, where they come from, and their state.
//
// Promise: a Secret never shows itself. It prints, marshals and logs as "***"; only Reveal gives its text, and
// internal/arch lists the packages that may import this one.
package auth

import (
	"context"
	"time"
)

// Secret is a password or token.
type Secret struct{ text string }

// Credential is what a Source yields. The zero value is anonymous.
type Credential struct {
	Name     string // the operator's name for it, shown to people
	Username string
	Password Secret
	Identity Secret    // an OAuth2 refresh token, instead of Username and Password
	Expires  time.Time // zero: not known to expire
}

// Source yields a credential. Implementations are safe for concurrent use; an error says what the operator can do.
type Source interface {
	Credential(ctx context.Context) (Credential, error)
}

// State is the health of a credential as operators see it.
type State string

// The states of a credential.
const (
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
	State       State
	Expires     time.Time
	LastRefresh time.Time
	LastError   string
}
