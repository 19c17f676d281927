package login

import (
	"net/url"
	"strings"
	"sync"

	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/header"
)

// scheme is what a registry's challenge asks for.
type scheme struct {
	realm   string // URL of the token service, checked; empty: a password, shown to the registry itself
	service string
	scope   string // as the challenge has it, where it is not of a repository, or of another one than ours; else empty
}

// scopeOf is the one scope that a token for a repository is asked with.
func (s scheme) scopeOf(repository string) string {
	if s.scope != "" {
		return s.scope
	}
	return "repository:" + repository + ":pull"
}

const (
	maxSchemes = 4096    // repositories with a scheme of their own that are remembered
	maxRealm   = 4 << 10 // bytes of a realm and a service together
	maxScope   = 1 << 10 // bytes of a scope that is taken from a challenge
)

// schemes are what an endpoint's challenges have taught: one scheme for all repositories, and those that differ, as on an
// Artifactory, which has a token service for each repository.
type schemes struct {
	mu     sync.Mutex // guards the following fields; a leaf
	known  bool
	common scheme
	own    map[string]scheme // by repository
}

// of is the scheme of a repository. Sure: the repository itself has shown it.
func (s *schemes) of(repository string) (_ scheme, sure, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own, ok := s.own[repository]; ok {
		return own, true, true
	}
	return s.common, false, s.known
}

// learn records the scheme that a repository has shown, and reports whether that is news. The common one is recorded for the
// repository only if sure.
func (s *schemes) learn(repository string, sc scheme, sure bool) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, has := s.own[repository]
	switch {
	case !s.known:
		s.known, s.common = true, sc
		return true
	case has && own == sc, !has && s.common == sc && !sure:
		return false
	}
	bounded.Put(&s.own, repository, sc, maxSchemes)
	return has || s.common != sc
}

// choose reads a scheme from challenges. Sent says whether the request had an Authorization: Harbor then offers Basic where it
// otherwise offers Bearer. False: there is none that we can answer.
func (e *Known) choose(repository string, all []header.Challenge, sent bool) (scheme, bool, error) {
	if c, ok := header.FindChallenge(all, "bearer"); ok {
		u, err := e.Policy.Realm(e.Origin, e.URL, c.Params["realm"])
		if err != nil {
			return scheme{}, false, err
		}
		sc := scheme{realm: u.String(), service: c.Params["service"]}
		if len(sc.realm)+len(sc.service) > maxRealm {
			at := endpoint.Origin{Scheme: u.Scheme, Host: u.Hostname()}
			return scheme{}, false, endpoint.Malformed(c.Params["realm"], at)
		}
		sc.scope = scopeFrom(c.Params["scope"], repository, u, e.Origin)
		return sc, true, nil
	}
	if _, ok := header.FindChallenge(all, "basic"); ok {
		if old, _, known := e.schemes.of(repository); sent && known && old.realm != "" {
			return old, true, nil
		}
		return scheme{}, true, nil
	}
	return scheme{}, false, nil
}

// scopeFrom is the scope to take from a challenge instead of our own. One without a type is the registry's only one
// (public ECR says "aws"). One of another repository is believed only where the registry is its own token service: a
// shared service would hand a dishonest endpoint our token for any repository.
func scopeFrom(scope, repository string, realm *url.URL, registry endpoint.Origin) string {
	to, _ := endpoint.OriginOf(realm)
	switch {
	case scope == "", len(scope) > maxScope, scope == scheme{}.scopeOf(repository):
		return ""
	case !strings.Contains(scope, ":"), to == registry:
		return scope
	}
	return ""
}
