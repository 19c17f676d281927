package identity

import (
	"sync/atomic"
	"time"
)

// Try takes a try of an unknown user from an address, as before a password is compared.
func (v *Verifier) Try(user, source string) bool {
	return v.limits.begin(user, source, false, time.Now()) != nil
}

// Held is how many entries the counts of wrong passwords have.
func (v *Verifier) Held() int {
	l := v.limits
	n := l.sources.Len() + l.firsts.Len() + l.forged.Len() + l.seen.Len()
	for _, of := range []names{l.existing, l.madeUp} {
		n += of.pairs.Len() + of.users.Len()
	}
	return n
}

// MaxHeld is the most of it.
const MaxHeld = 8 * maxLimits

// Slow makes each comparison take a time, of a bubble, and gives the number of comparisons.
func (p *Passwords) Slow(took time.Duration) *atomic.Int64 {
	n, really := new(atomic.Int64), p.bcrypt
	p.bcrypt = func(hash, password []byte) error {
		n.Add(1)
		time.Sleep(took)
		return really(hash, password)
	}
	return n
}
