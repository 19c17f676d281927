package upstream

import (
	"net/url"
	"strings"
	"sync"

	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/header"
)

// way is how a registry lets people in, as its challenges say.
type way struct {
	realm   string // URL of the token service, checked; empty: Basic, to the registry itself
	service string
	scope   string // taken from the challenge where it is not of a repository, or of another than ours; else empty
}

// scopeOf is the one scope that a token for a repository is asked with.
func (w way) scopeOf(repo string) string {
	if w.scope != "" {
		return w.scope
	}
	return "repository:" + repo + ":pull"
}

const (
	// maxWays is how many repositories with a way of their own are remembered.
	maxWays = 4096
	// maxWay is how many bytes a realm and a service may have.
	maxWay = 4 << 10
)

// knowledge is what an endpoint's challenges have taught: one way for all repositories, and those that differ, as on
// an Artifactory, whose token services are one per repository.
type knowledge struct {
	mu    sync.Mutex // guards what follows
	known bool
	way   way
	repos map[string]way
}

// of is the way in for a repository. ok: there is one; sure: this repository has shown it, it's not inferred.
func (k *knowledge) of(repo string) (w way, sure, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w, ok = k.repos[repo]; ok {
		return w, true, true
	}
	return k.way, false, k.known
}

// learn takes in the way that a repository has shown, and reports whether that is news. Where it is the common one, it
// is kept for this repository only if sure.
func (k *knowledge) learn(repo string, w way, sure bool) (news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old, special := k.repos[repo]
	switch {
	case !k.known:
		k.known, k.way = true, w
		return true
	case special && old == w:
		return false
	case !special && k.way == w && !sure:
		return false
	}
	if k.repos == nil || len(k.repos) >= maxWays {
		k.repos = make(map[string]way)
	}
	k.repos[repo] = w
	return special || k.way != w
}

// choose reads a way out of challenges. sent says whether the request had an Authorization: Harbor then offers Basic
// to whom it otherwise offers Bearer. False: nothing that we can do.
func (ep *target) choose(repo string, all []header.Challenge, sent bool) (way, bool, error) {
	if c, ok := header.FindChallenge(all, "bearer"); ok {
		u, err := ep.Policy.Realm(ep.Origin, ep.URL, c.Params["realm"])
		if err != nil {
			return way{}, false, err
		}
		w := way{realm: u.String(), service: c.Params["service"]}
		if len(w.realm)+len(w.service) > maxWay {
			return way{}, false, endpoint.Malformed(c.Params["realm"], endpoint.Origin{Scheme: u.Scheme, Host: u.Hostname()})
		}
		w.scope = scopeFrom(c.Params["scope"], repo, u, ep.Origin)
		return w, true, nil
	}
	if _, ok := header.FindChallenge(all, "basic"); ok {
		if old, _, known := ep.known.of(repo); sent && known && old.realm != "" {
			return old, true, nil
		}
		return way{}, true, nil
	}
	return way{}, false, nil
}

// scopeFrom is the scope to take from a challenge instead of our own. One without a type is the registry's only one
// (public ECR says "aws"). One of another repository is believed only where the registry is its own token service: a
// shared service would hand a dishonest endpoint our token for whatever repository it likes.
func scopeFrom(scope, repo string, realm *url.URL, shown endpoint.Origin) string {
	to, _ := endpoint.OriginOf(realm)
	switch {
	case scope == "", len(scope) > 1<<10, scope == way{}.scopeOf(repo):
		return ""
	case !strings.Contains(scope, ":"), to == shown:
		return scope
	}
	return ""
}
