package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// tokenPrefix begins each token, so that one is recognised where it should not be.
const tokenPrefix = "mirror_"

// NewToken makes a token of 256 random bits or more, and the hash that stands for it in a file.
func NewToken() (token, hash string) {
	token = tokenPrefix + rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(sum[:])
}

// TokenFile is the file of tokens: their hashes.
type TokenFile struct {
	// Tokens are the tokens. Several may have the same name: a new one is added before the old one is removed.
	Tokens []TokenEntry `yaml:"tokens"`
}

// TokenEntry is one token.
type TokenEntry struct {
	// Name is the user that the token identifies.
	Name string `yaml:"name"`
	// SHA256 is the hash of the token, in hexadecimal.
	SHA256 string `yaml:"sha256"`
	// Expires is when the token ends, as 2027-01-31T00:00:00Z. Empty: it does not.
	Expires string `yaml:"expires,omitzero"`
}

// Line is the entry as a line of a file.
func (e TokenEntry) Line() string {
	if e.Expires != "" {
		return fmt.Sprintf("  - {name: %q, sha256: %q, expires: %q}\n", e.Name, e.SHA256, e.Expires)
	}
	return fmt.Sprintf("  - {name: %q, sha256: %q}\n", e.Name, e.SHA256)
}

var tokenSchema = strictyaml.New(TokenFile{}, strictyaml.Options{
	Hints: map[string]map[string]string{"tokens.*": {
		"token": hashHint, "secret": hashHint, "password": hashHint, "hash": `did you mean "sha256"?`, "user": `did you mean "name"?`,
	}},
})

const hashHint = "the token itself does not go here: mirror token new prints the hash of a new one"

// Tokens are the names of clients by the hashes of their tokens. They are immutable.
type Tokens struct {
	entries map[[sha256.Size]byte]tokenEntry
}

type tokenEntry struct {
	sum     [sha256.Size]byte
	name    string
	expires time.Time // zero: never
}

// ParseTokens reads a file of tokens; file is its name, for messages. They show no hash.
func ParseTokens(file string, text []byte) (*Tokens, error) {
	var in TokenFile
	doc := tokenSchema.Decode(file, text, nil, &in)
	t := &Tokens{entries: make(map[[sha256.Size]byte]tokenEntry)}
	if doc.Readable {
		doc.Report(t.take(in)...)
	}
	if err := doc.Err(); err != nil {
		return nil, firstProblem(err)
	}
	return t, nil
}

// firstProblem is the first of the mistakes of a file, and how many more there are.
func firstProblem(err error) error {
	invalid, ok := errors.AsType[*strictyaml.Invalid](err)
	switch {
	case !ok:
		return err
	case len(invalid.Problems) == 1:
		return errors.New(invalid.Problems[0].String())
	}
	return fmt.Errorf("%s; and %d more", invalid.Problems[0], len(invalid.Problems)-1)
}

// take takes the entries of a file, and returns what is wrong with them.
func (t *Tokens) take(in TokenFile) (wrong []strictyaml.Mistake) {
	add := func(path, message, hint string) {
		wrong = append(wrong, strictyaml.Mistake{Path: path, Message: message, Hint: hint})
	}
	if len(in.Tokens) == 0 {
		add("tokens", "the file has no token", "make one with mirror token new NAME")
	}
	if len(in.Tokens) > maxEntries {
		add("tokens", fmt.Sprintf("the file has more than %d tokens", maxEntries), "remove some")
		return wrong
	}
	for i, e := range in.Tokens {
		at := strictyaml.Index("tokens", i)
		if err := CheckName(e.Name); err != nil {
			message, hint, _ := strings.Cut(err.Error(), "; ")
			add(at+".name", message, hint)
		}
		entry := tokenEntry{name: e.Name}
		b, err := hex.DecodeString(e.SHA256)
		if err != nil || len(b) != sha256.Size {
			add(at+".sha256", "it is not 64 hexadecimal digits", "make a token with mirror token new "+e.Name+", which prints its hash")
			continue
		}
		entry.sum = [sha256.Size]byte(b)
		if e.Expires != "" {
			if entry.expires, err = time.Parse(time.RFC3339, e.Expires); err != nil {
				add(at+".expires", "it is not a time", "as in 2027-01-31T00:00:00Z")
			}
		}
		if _, twice := t.entries[entry.sum]; twice {
			add(at+".sha256", "this token is there already", "remove one")
		}
		t.entries[entry.sum] = entry
	}
	return wrong
}

// Endless are the names of the tokens that have no end, sorted.
func (t *Tokens) Endless() (list []string) {
	if t == nil {
		return nil
	}
	for _, e := range t.entries {
		if e.expires.IsZero() {
			list = append(list, e.name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Has reports whether there is a token of a name, which may have ended. Nil Tokens have none.
func (t *Tokens) Has(name string) bool {
	if t == nil {
		return false
	}
	for _, e := range t.entries {
		if e.name == name {
			return true
		}
	}
	return false
}

// Name is the name of a token; empty: it is unknown. expired: it has ended. Nil Tokens have none.
//
// The lookup is by the hash of what a client sends: time that depends on it tells nothing of another token's hash that would help to
// guess that token.
func (t *Tokens) Name(token string, now time.Time) (name string, expired bool) {
	if t == nil || token == "" {
		return "", false
	}
	sum := sha256.Sum256([]byte(token))
	e, ok := t.entries[sum]
	if !ok || subtle.ConstantTimeCompare(e.sum[:], sum[:]) != 1 {
		return "", false
	}
	return e.name, !e.expires.IsZero() && !now.Before(e.expires)
}
