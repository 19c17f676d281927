package access

import (
	"fmt"
	"strings"

	"github.com/registrymirror/mirror/internal/glob"
	"github.com/registrymirror/mirror/oci"
)

// Rules say which repositories every client may read. They are immutable.
type Rules struct{ rules []rule }

// rule is a pattern of upstreams, and one of their repositories.
type rule struct{ host, name string }

// NewRules makes rules of patterns: UPSTREAM/REPOSITORY, in which * is one segment of the path, one label of the upstream,
// or a part of either, and ** any number. * as the whole upstream is every upstream.
func NewRules(patterns ...string) *Rules {
	r := new(Rules)
	for _, text := range patterns {
		host, name, _ := strings.Cut(text, "/")
		switch {
		case text == "**":
			host, name = "**", "**"
		case host == "*":
			host = "**"
		}
		r.rules = append(r.rules, rule{host, name})
	}
	return r
}

// Allow reports whether a repository may be read.
func (r *Rules) Allow(repo oci.Repo) bool {
	if r == nil {
		return false
	}
	for _, rule := range r.rules {
		if glob.Path(rule.name, repo.Name) && glob.Host(rule.host, repo.Host) {
			return true
		}
	}
	return false
}

// ForbiddenError says that no rule lets the client read a repository, whether there is one or not.
type ForbiddenError struct {
	Repo oci.Repo
	// Mirrored says that the client takes the mirror for one of a registry that it names: it can go on to that registry, and
	// a challenge would make it send the mirror a login that is meant for the registry.
	Mirrored bool
}

func (e *ForbiddenError) Error() string { return fmt.Sprintf("no rule lets clients pull %s", e.Repo) }
