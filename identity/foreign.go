package identity

import (
	"net/http"
	"strings"
	"time"

	"github.com/registrymirror/mirror/client"
)

// IdentifyBeside is Identify for a request that may carry a login of the client at a registry. foreign says that it has one that may
// be shown to that registry: a user and password that are not the mirror's, and whose user is not one of the mirror's either, so
// that no mistyped password for the mirror leaves it. No token for the mirror does either, whatever is wrong with it. The error is a
// *RefusedError for a login that is the mirror's and wrong, or that could not be checked.
func (v *Verifier) IdentifyBeside(r *http.Request, source string) (who client.Identity, foreign bool, note string, err error) {
	s := v.settings.Load()
	l, sent := loginOf(r)
	if !sent || l.bad {
		who, note, err = v.Identify(r, source, true)
		return who, false, note, err
	}
	if s.Logins() {
		if s.Passwords.Has(l.user) || s.isOurs(l.secret) {
			who, err = v.login(r.Context(), s, l, source)
			return who, false, "", err
		}
		// It is not counted as a wrong password: the clients of an address may share one user of their registry, with many passwords.
		note = "the request has a login that is not one of the mirror's: there is no such user or token"
	}
	bare := *r
	bare.Header = r.Header.Clone()
	bare.Header.Del("Authorization")
	who, more, err := v.Identify(&bare, source, true)
	if more != "" {
		note = more
	}
	return who, l.user != "", note, err
}

// isOurs reports whether a secret is a token for the mirror: one of its list, which may have ended; one that
// was made as these are, which may be mistyped; or that of a service account with the mirror's audience.
func (s *Settings) isOurs(secret string) bool {
	secret = strings.TrimSpace(secret) // a line end comes with a file easily
	name, _ := s.Tokens.Name(secret, time.Now())
	made := strings.HasPrefix(secret, tokenPrefix) && len(secret) > len(tokenPrefix)+minToken
	return name != "" || made || s.Accounts != nil && s.Accounts.isMeant(secret)
}

// minToken is the length from which a text behind tokenPrefix is a token, or a good part of one, rather than a password.
const minToken = 26

// isMeant reports whether a text is a token that names the mirror's audience, valid or not.
func (a *Accounts) isMeant(token string) bool {
	if !isJWT(token) {
		return false
	}
	_, said, err := parse(token)
	return err == nil && said.Audience.Contains(a.o.Audience)
}
