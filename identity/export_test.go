package identity

import "time"

// Try takes a try of a user from an address, as before a password is compared.
func (v *Verifier) Try(user, source string) bool {
	return v.limits.begin(user, source, time.Now()) != nil
}

// Held is how many entries the counts of wrong passwords have.
func (v *Verifier) Held() int {
	l := v.limits
	return l.pairs.Len() + l.users.Len() + l.sources.Len() + l.seen.Len()
}

// MaxHeld is the most of it.
const MaxHeld = 4 * maxLimits
