package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/internal/glob"
	"github.com/registrymirror/mirror/oci"
)

// maxKey is the longest name of an upstream in bytes.
const maxKey = 255

// Table is the operator's list, ready for look-up. It is immutable and safe for concurrent use. The zero Table knows
// no upstream.
type Table struct {
	byKey    map[string]*Upstream // names and aliases in lower case: hosts have no case
	patterns []*Upstream          // the more specific go first
	fallback *Upstream            // for requests that name no upstream; may be nil
	names    []string             // canonical, sorted; shared with every UnknownError
}

// New makes a table of the upstreams. A request that names none of them goes to the one called defaultName, a name or
// alias; if that is empty, to none. Names and aliases are hosts with an optional port, and aliases short words too.
// Its error lists everything that is wrong: a name that is empty or not of that form, a name or alias that two
// upstreams share, a default that is not in the list.
func New(upstreams []Upstream, defaultName string) (*Table, error) {
	t := &Table{byKey: make(map[string]*Upstream, len(upstreams))}
	var errs []error
	for _, u := range upstreams {
		t.names = append(t.names, u.Name)
		if u.Fits != nil {
			t.patterns = append(t.patterns, &u)
			continue
		}
		errs = append(errs, t.add(&u, u.Name, true))
		for _, alias := range u.Aliases {
			errs = append(errs, t.add(&u, alias, false))
		}
	}
	slices.Sort(t.names)
	slices.SortStableFunc(t.patterns, func(a, b *Upstream) int { return glob.Literal(b.Name) - glob.Literal(a.Name) })
	if defaultName != "" {
		if t.fallback = t.byKey[strings.ToLower(defaultName)]; t.fallback == nil {
			errs = append(errs, fmt.Errorf("default upstream %q is not in the list (%s); add it or name one of them",
				defaultName, listed(t.names)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return t, nil
}

// add enters a key. An upstream may have the same key twice, where the operator's aliases repeat the built-in ones.
func (t *Table) add(u *Upstream, name string, canonical bool) error {
	if name == "" || len(name) > maxKey || !oci.IsHostText(name) {
		return fmt.Errorf("upstream %q: %q is not HOST, HOST:PORT or a word of letters, digits, dots and dashes",
			u.Name, name)
	}
	key := strings.ToLower(name)
	other, taken := t.byKey[key]
	switch {
	case taken && canonical && strings.EqualFold(other.Name, name):
		return fmt.Errorf("upstream %q is in the list twice; remove one", name)
	case taken && other != u:
		return fmt.Errorf("%q names both upstream %q and upstream %q; remove it from one", name, other.Name, u.Name)
	}
	t.byKey[key] = u
	return nil
}

// Resolve returns the repository that the request means. In order: the ns parameter; the first of several path components, where it
// names an upstream; the default. With ns the path is the repository, but for a first component that leads to the same
// upstream: clients whose mirror endpoint has a path (http://mirror/v2/ghcr.io) send both. Without ns a first component
// that looks like a host is never taken for part of a repository, so that no registry is asked for "ghcr.io/acme/app" in
// the name of another. The error is an *UnknownError, or NAME_INVALID for a name that is not one at that upstream. For a
// ping it is the zero Target.
//
// A repository never begins with a host of its own upstream: however often a client repeats it, what is left is the name that is judged
// by deny, only and rules, and that goes to the registry.
func (t *Table) Resolve(r oci.Request) (Target, error) {
	if r.Kind == oci.KindPing {
		return Target{}, nil
	}
	if r.Namespace != "" {
		u, host := t.find(r.Namespace)
		if u == nil {
			return Target{}, t.unknown(r.Namespace, ViaNamespace)
		}
		name := r.Name
		if first, rest, more := strings.Cut(name, "/"); more {
			if same, at := t.find(first); same == u && at == host {
				name = rest
			}
		}
		name = t.withoutHost(u, host, name)
		if err := oci.CheckRepository(name); err != nil {
			return Target{}, err
		}
		return u.target(host, name, ViaNamespace), nil
	}
	if first, rest, more := strings.Cut(r.Name, "/"); more {
		if u, host := t.find(first); u != nil {
			return u.target(host, t.withoutHost(u, host, rest), ViaPrefix), nil
		}
		if oci.LooksLikeHost(first) {
			return Target{}, t.unknown(first, ViaPrefix)
		}
	}
	if t.fallback == nil {
		return Target{}, t.unknown(r.Name, ViaDefault)
	}
	return t.fallback.target(t.fallback.Name, r.Name, ViaDefault), nil
}

// Entry is the name of the list's entry for an upstream: its own, or that of the pattern which it fits; empty for none.
func (t *Table) Entry(host string) string {
	if u, _ := t.find(host); u != nil {
		return u.Name
	}
	return ""
}

// find returns the entry that a key means, and the upstream's name.
func (t *Table) find(key string) (u *Upstream, host string) {
	key = strings.ToLower(key)
	if u := t.byKey[key]; u != nil {
		return u, u.Name
	}
	for _, u := range t.patterns {
		if u.Fits(key) {
			return u, key
		}
	}
	return nil, ""
}

// withoutHost is a repository of an upstream without hosts of it in front. A short word stays: it may be a project that is called like
// an alias.
func (t *Table) withoutHost(u *Upstream, host, name string) string {
	for {
		first, rest, more := strings.Cut(name, "/")
		if !more || !oci.LooksLikeHost(first) {
			return name
		}
		if same, at := t.find(first); same != u || at != host {
			return name
		}
		name = rest
	}
}

func (u *Upstream) target(host, name string, via Via) Target {
	if u.Library && !strings.Contains(name, "/") {
		name = "library/" + name
	}
	t := Target{Repo: oci.Repo{Host: host, Name: name}, Via: via}
	if u.Fits != nil {
		t.Pattern = u.Name
	}
	return t
}

func (t *Table) unknown(key string, via Via) error {
	return &UnknownError{Key: key[:min(len(key), maxKey)], Via: via, Have: t.names}
}
