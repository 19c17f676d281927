package upstream

import (
	"fmt"
	"hash"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/login"
)

// Login is a client's own login at the registry, as the client has sent it. The zero value is none. It shows itself in no message.
type Login struct{ credential auth.Credential }

// NewLogin makes a Login of a user and a password. Without one of them it is none.
func NewLogin(user, password string) Login {
	if user == "" || password == "" {
		return Login{}
	}
	return Login{auth.Credential{Username: user, Password: auth.NewSecret(password)}}
}

// IsZero reports whether there is no login.
func (l Login) IsZero() bool { return l.credential.IsAnonymous() }

// User is the name of the user, which is the client's word.
func (l Login) User() string { return l.credential.Username }

// Write adds the login to a hash.
func (l Login) Write(h hash.Hash) {
	password := l.credential.Password.Reveal()
	fmt.Fprintf(h, "%d:%s%d:%s", len(l.credential.Username), l.credential.Username, len(password), password)
}

// For is the same registry asked with a client's own login alone: where that is refused, the refusal is the error, and neither another
// login nor none is tried. Endpoints that are mirrors of the registry are not asked, since what they answer says nothing of the
// client's rights. Connections and tokens are shared, each token stays with the login that got it.
func (r *Registry) For(l Login) *Registry {
	return &Registry{core: r.core, identity: &login.Identity{Source: l.credential, Client: true}}
}
