package access

import (
	"fmt"
	"strings"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/oci"
)

// Rules say which repositories everybody may read. They are immutable.
type Rules struct{ globs []glob }

// glob is a glob of an upstream and its repositories, whose labels are separated as segments are.
type glob struct{ host, name string }

// NewRules makes rules of globs: UPSTREAM/REPOSITORY, in which * is one segment of the path, one label of the upstream,
// or a part of either, and ** any number. * as the whole upstream is every upstream.
func NewRules(globs ...string) *Rules {
	r := new(Rules)
	for _, text := range globs {
		host, name, _ := strings.Cut(text, "/")
		switch {
		case text == "**":
			host, name = "**", "**"
		case host == "*":
			host = "**"
		}
		r.globs = append(r.globs, glob{labels(host), name})
	}
	return r
}

func labels(host string) string { return strings.ReplaceAll(host, ".", "/") }

// Allow reports whether a repository may be read.
func (r *Rules) Allow(repo oci.Repo) bool {
	if r == nil {
		return false
	}
	host := labels(repo.Host)
	for _, g := range r.globs {
		if auth.MatchRepository(g.name, repo.Name) && auth.MatchRepository(g.host, host) {
			return true
		}
	}
	return false
}

// ForbiddenError says that no rule lets the client read a repository. Nobody has looked whether there is one.
type ForbiddenError struct {
	Repo oci.Repo
	// Mirrored says that the client takes us for a mirror of a registry that it names beside: it can go on to that, and
	// a challenge would make it send us what is meant for that.
	Mirrored bool
}

func (e *ForbiddenError) Error() string { return fmt.Sprintf("no rule lets clients pull %s", e.Repo) }
