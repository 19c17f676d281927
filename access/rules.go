package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/internal/glob"
	"github.com/registrymirror/mirror/oci"
)

// Rule lets some clients read some repositories.
type Rule struct {
	// Who: the clients. The name of a user, node:NAME, sa:NAMESPACE/NAME, or anonymous or * for every client, with an
	// identity and without. In the name of a user * is any characters; in that of a node one label, or the whole name; in a
	// service account one part, or a part of it.
	Who []string
	// Pull are UPSTREAM/REPOSITORY: * is one segment of the path, one label of the upstream, or a part of either, and ** any
	// number. * as the whole upstream is every upstream.
	Pull []string
}

// Rules say which clients may read which repositories. They are immutable.
type Rules struct{ rules []rule }

// rule is a Rule as it is matched.
type rule struct {
	all  bool // every client
	who  []string
	pull []pattern
}

// pattern is one of upstreams, and one of their repositories.
type pattern struct{ host, name string }

// NewRules makes rules that have been checked.
func NewRules(list ...Rule) *Rules {
	r := new(Rules)
	for _, from := range list {
		to := rule{who: from.Who}
		to.all = slices.Contains(from.Who, "*") || slices.Contains(from.Who, "anonymous")
		to.pull = patterns(from.Pull)
		r.rules = append(r.rules, to)
	}
	return r
}

// patterns are UPSTREAM/REPOSITORY as they are matched.
func patterns(list []string) (all []pattern) {
	for _, text := range list {
		host, name, _ := strings.Cut(text, "/")
		switch {
		case text == "**":
			host, name = "**", "**"
		case host == "*":
			host = "**"
		}
		all = append(all, pattern{host, name})
	}
	return all
}

// fitsOne reports whether a repository fits one of the patterns.
func fitsOne(list []pattern, repo oci.Repo) bool {
	return slices.ContainsFunc(list, func(p pattern) bool { return glob.Path(p.name, repo.Name) && glob.Host(p.host, repo.Host) })
}

// Allow reports whether a client may read a repository.
func (r *Rules) Allow(who client.Identity, repo oci.Repo) bool {
	return r.some(repo, func(rule rule) bool { return rule.all || rule.names(who) })
}

// Name reports whether some client may read a repository: only then the mirror asks its registry by itself.
func (r *Rules) Name(repo oci.Repo) bool { return r.some(repo, func(rule) bool { return true }) }

// Anonymous reports whether there is something that a client without an identity may read.
func (r *Rules) Anonymous() bool {
	return r != nil && slices.ContainsFunc(r.rules, func(rule rule) bool { return rule.all })
}

// some reports whether one of the rules that fit names a repository.
func (r *Rules) some(repo oci.Repo, fits func(rule) bool) bool {
	if r == nil {
		return false
	}
	for _, rule := range r.rules {
		if fits(rule) && fitsOne(rule.pull, repo) {
			return true
		}
	}
	return false
}

// names reports whether a rule names an identity. A pattern of one kind never fits a name of another.
func (r rule) names(who client.Identity) bool {
	kind, name := who.Kind()
	return kind != "" && slices.ContainsFunc(r.who, func(text string) bool {
		of, pattern := client.Identity(text).Kind()
		return of == kind && fits(kind, pattern, name)
	})
}

func fits(kind, pattern, name string) bool {
	switch {
	case pattern == "*" || pattern == "**":
		return true
	case kind == "node":
		return glob.Host(pattern, name)
	case kind == "sa":
		return glob.Path(pattern, name)
	}
	return glob.Text(pattern, name)
}

// ForbiddenError says that no rule lets the client read a repository, whether there is one or not.
type ForbiddenError struct {
	Repo oci.Repo
	// Mirrored says that the client takes the mirror for one of a registry that it names: it can go on to that registry, and
	// a challenge would make it send the mirror a login that is meant for the registry.
	Mirrored bool
	// Who: the client's identity. Empty: it is anonymous, or the mirror asks by itself.
	Who client.Identity
	// Note says why a login or a certificate that the client has sent is not one of the mirror's. Empty: it has sent none.
	Note string
	// Logins and Certificates say by what clients may identify themselves at the mirror.
	Logins, Certificates bool
}

func (e *ForbiddenError) Error() string {
	who := "clients"
	if e.Who != "" {
		who = string(e.Who)
	}
	return fmt.Sprintf("no rule lets %s pull %s", who, e.Repo)
}
