package identity

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	// maxFile is how many bytes a file of passwords or tokens may have, and maxEntries how many entries.
	maxFile    = 4 << 20
	maxEntries = 50_000
	// maxCost is the highest cost of bcrypt that is accepted: each step doubles the time, and 14 is about a second.
	maxCost = 14
	// maxPassword is how many bytes of a password, or a token, are looked at.
	maxPassword = 16 << 10
)

// Passwords are users with their bcrypt hashes. They are immutable, but for what they measure.
type Passwords struct {
	hashes map[string][]byte // by user
	// costly is the hash with the highest cost: the password of an unknown user takes as long as a comparison with it.
	costly []byte
	pace   pace
	bcrypt func(hash, password []byte) error
}

// pace is how long a comparison with the costliest hash takes on this machine now.
type pace struct {
	begun atomic.Bool
	known chan struct{} // closed after the first measurement
	took  atomic.Int64  // in nanoseconds
	at    atomic.Int64  // when it was measured last, in nanoseconds since 1970
}

// measureShare is which part of the time one measurement may take.
const measureShare = 20

// ParsePasswords reads a file as htpasswd -B writes it: USER:HASH in each line. Empty lines and those that begin with # are left
// out. Its errors name the line, and never show a hash.
func ParsePasswords(text []byte) (*Passwords, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("it has more than %d MiB", maxFile>>20)
	}
	p := &Passwords{hashes: make(map[string][]byte), bcrypt: bcrypt.CompareHashAndPassword, pace: pace{known: make(chan struct{})}}
	highest := 0
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line) // and the carriage return of Windows
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, found := strings.Cut(line, ":")
		if !found || hash == "" {
			return nil, fmt.Errorf("line %d is not USER:HASH; write it with htpasswd -B -C 10", i+1)
		}
		if err := CheckName(user); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		hash, _, _ = strings.Cut(hash, ":") // Apache allows further fields
		cost, err := costOf(hash)
		if err != nil {
			return nil, fmt.Errorf("line %d, user %q: %w", i+1, user, err)
		}
		if p.hashes[user] != nil {
			return nil, fmt.Errorf("line %d: user %q is there already; remove one", i+1, user)
		}
		if len(p.hashes) == maxEntries {
			return nil, fmt.Errorf("it has more than %d users", maxEntries)
		}
		p.hashes[user] = []byte(hash)
		if cost > highest {
			highest, p.costly = cost, p.hashes[user]
		}
	}
	if len(p.hashes) == 0 {
		return nil, fmt.Errorf("it has no user; add one with htpasswd -B -C 10 FILE USER")
	}
	return p, nil
}

// otherHashes are the beginnings of hashes that are not bcrypt, by what they are.
var otherHashes = []struct{ prefix, name string }{
	{"$apr1$", "MD5"},
	{"$1$", "MD5"},
	{"{SHA}", "SHA-1"},
	{"$5$", "SHA-256"},
	{"$6$", "SHA-512"},
	{"$2x$", "a faulty form of bcrypt"},
	{"$argon2", "Argon2"},
	{"$y$", "yescrypt"},
	{"{SSHA}", "SSHA"},
	{"{PLAIN}", "the password itself"},
}

// costOf checks that a hash is of bcrypt, and returns its cost.
func costOf(hash string) (int, error) {
	const remedy = "make the line again with htpasswd -B -C 10"
	for _, o := range otherHashes {
		if strings.HasPrefix(hash, o.prefix) {
			return 0, fmt.Errorf("the hash is %s, and only bcrypt is accepted; %s", o.name, remedy)
		}
	}
	isBcrypt := strings.HasPrefix(hash, "$2a$") || strings.HasPrefix(hash, "$2b$") || strings.HasPrefix(hash, "$2y$")
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case !isBcrypt || err != nil || len(hash) != 60 || strings.Trim(hash[7:], bcryptChars) != "":
		return 0, fmt.Errorf("it has no bcrypt hash; %s", remedy)
	case cost > maxCost:
		return 0, fmt.Errorf("the cost %d takes seconds for each login; write at most %d, as with htpasswd -B -C 10", cost, maxCost)
	}
	return cost, nil
}

const bcryptChars = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// Has reports whether there is a user of a name. Nil Passwords have none.
func (p *Passwords) Has(user string) bool { return p.hash(user) != "" }

// hash is the hash of a user; empty for an unknown one.
func (p *Passwords) hash(user string) string {
	if p == nil {
		return ""
	}
	return string(p.hashes[user])
}

// compare reports whether a password is that of a hash.
func (p *Passwords) compare(hash, password string) bool {
	return p.bcrypt([]byte(hash), []byte(password)) == nil
}

// pretend takes as long as compare does, for an unknown user. It computes once in a while alone, to measure that time: so a flood of
// made-up names costs a twentieth of a processor, and holds up no user.
func (p *Passwords) pretend(ctx context.Context, password string) {
	if p.pace.begun.CompareAndSwap(false, true) {
		p.measure(password)
		close(p.pace.known)
		return
	}
	select {
	case <-p.pace.known:
	case <-ctx.Done():
		return
	}
	took, at, now := p.pace.took.Load(), p.pace.at.Load(), time.Now().UnixNano()
	if now-at >= measureShare*took && p.pace.at.CompareAndSwap(at, now) {
		p.measure(password)
		return
	}
	wait := time.NewTimer(time.Duration(took))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

func (p *Passwords) measure(password string) {
	began := time.Now()
	p.compare(string(p.costly), password)
	end := time.Now()
	p.pace.took.Store(int64(end.Sub(began)))
	p.pace.at.Store(end.UnixNano())
}

// Costs are the lowest and the highest cost of the hashes.
func (p *Passwords) Costs() (least, most int) {
	for _, hash := range p.hashes {
		cost, _ := bcrypt.Cost(hash)
		if most = max(most, cost); least == 0 || cost < least {
			least = cost
		}
	}
	return least, most
}

// CheckName says what is wrong with the name of a user. It is shown in logs and written in rules, where a colon stands behind the
// kind of an identity and * is a pattern.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a user has no name; write one")
	case len(name) > 128:
		return fmt.Errorf("the name of a user has more than 128 characters; write a shorter one")
	case name == "anonymous":
		return fmt.Errorf("a user can't be called anonymous, which is each client in rules; write another name")
	case strings.ContainsFunc(name, func(c rune) bool { return !strings.ContainsRune(nameChars, c) }):
		return fmt.Errorf("%q is not the name of a user; write letters, digits and . _ @ + -", name)
	}
	return nil
}

const nameChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@+-"
