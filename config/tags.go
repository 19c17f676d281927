package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/strictyaml"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
)

// Tags says how fresh a tag must be, and which digest it is served with.
type Tags struct {
	// MaxAge is the age up to which a tag is served without asking the registry, and a list of tags or referrers.
	MaxAge time.Duration `yaml:"maxAge"`
	// StaleIfError is the age up to which a tag is served where the registry does not answer.
	StaleIfError time.Duration `yaml:"staleIfError"`
	// Wait is how long a pull waits for the registry to confirm a tag of which there is a copy, at most 25s.
	Wait time.Duration `yaml:"wait"`
	// MinAge is how long the mirror must have known a new digest of a tag before it serves the tag with it. Until then the
	// tag is served with the previous digest. Pulls by digest are never held back.
	MinAge time.Duration `yaml:"minAge"`
	// MinAgeUnknown is what happens to a tag under minAge of which the mirror knows no digest that is old enough: serve (the
	// tag is served, with a warning) or hold (the pull is refused until the digest is old enough).
	MinAgeUnknown string `yaml:"minAgeUnknown" enum:"serve,hold"`
	// Deleted is keep (a tag that the registry deleted is served up to staleIfError) or drop (it is not).
	Deleted string `yaml:"deleted" enum:"keep,drop"`
	// ServeStaleFirst serves a copy older than maxAge at once, and asks the registry meanwhile.
	ServeStaleFirst bool `yaml:"serveStaleFirst"`
	// Immutable are regular expressions of tags that never move: such a tag is served with the first digest that the mirror
	// has seen, at once, and is checked once a day. A move is logged as a warning.
	Immutable []string `yaml:"immutable"`
	// Patterns refine the policy for some tags. The first one that matches a tag counts.
	Patterns []TagPattern `yaml:"patterns"`
}

// TagPattern refines the policy for the tags that it matches. What it does not set is as the upstream's tags have it.
type TagPattern struct {
	// Match is a glob of REPOSITORY:TAG. In the repository, * is one segment or a part of one, and ** any number of segments;
	// in the tag, * is any characters.
	Match string `yaml:"match"`
	// MaxAge is the age up to which such a tag is served without asking the registry.
	MaxAge *time.Duration `yaml:"maxAge,omitzero"`
	// StaleIfError is the age up to which such a tag is served where the registry does not answer.
	StaleIfError *time.Duration `yaml:"staleIfError,omitzero"`
	// Wait is how long a pull waits for the registry to confirm such a tag, at most 25s.
	Wait *time.Duration `yaml:"wait,omitzero"`
	// MinAge is how long the mirror must have known a new digest of such a tag before it serves the tag with it.
	MinAge *time.Duration `yaml:"minAge,omitzero"`
	// MinAgeUnknown is serve or hold.
	MinAgeUnknown string `yaml:"minAgeUnknown,omitzero" enum:"serve,hold"`
	// Deleted is keep or drop.
	Deleted string `yaml:"deleted,omitzero" enum:"keep,drop"`
	// ServeStaleFirst serves a copy older than maxAge at once, and asks the registry meanwhile.
	ServeStaleFirst *bool `yaml:"serveStaleFirst,omitzero"`
}

func newTags() Tags {
	return Tags{
		MaxAge: time.Minute, StaleIfError: 168 * time.Hour, Wait: 5 * time.Second, MinAgeUnknown: "serve", Deleted: "keep",
	}
}

// For is the policy of the tags that a pattern matches: the pattern's, with the upstream's where it sets nothing.
func (t Tags) For(p TagPattern) Tags {
	set := func(to *time.Duration, from *time.Duration) {
		if from != nil {
			*to = *from
		}
	}
	set(&t.MaxAge, p.MaxAge)
	set(&t.StaleIfError, p.StaleIfError)
	set(&t.Wait, p.Wait)
	set(&t.MinAge, p.MinAge)
	if p.MinAgeUnknown != "" {
		t.MinAgeUnknown = p.MinAgeUnknown
	}
	if p.Deleted != "" {
		t.Deleted = p.Deleted
	}
	if p.ServeStaleFirst != nil {
		t.ServeStaleFirst = *p.ServeStaleFirst
	}
	return t
}

// tagPattern is what the tag of a pattern may be.
var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_*][A-Za-z0-9._*-]{0,127}$`)

// checkTags checks the policy of an upstream's tags.
func (u *Upstream) checkTags(found *mistakes, path string) {
	checkTagWait(found, u.Tags.Wait, path+".wait")
	for i, text := range u.Tags.Immutable {
		if _, err := regexp.Compile(text); err != nil || text == "" {
			found.add(strictyaml.Index(path+".immutable", i), quoted(text)+" is not a regular expression of tags",
				`as in '^v?\d+\.\d+\.\d+$', between single quotes`)
		}
	}
	var globs []string
	for i, p := range u.Tags.Patterns {
		at := strictyaml.Index(path+".patterns", i)
		if p.Wait != nil {
			checkTagWait(found, *p.Wait, at+".wait")
		}
		switch message, hint := u.checkMatch(p.Match); {
		case p.Match == "":
			found.add(at, "matches no tags: it has no match", "add match, as in match: "+u.example("latest"))
		case message != "":
			found.add(at+".match", message, hint)
		case slices.Contains(globs, p.Match):
			found.add(at+".match", "another pattern matches the same, and the first one counts", "remove one of the two")
		case p == TagPattern{Match: p.Match}:
			found.add(at, "changes nothing", "add a setting of tags, as in maxAge: 0s, or remove it")
		}
		globs = append(globs, p.Match)
	}
}

func checkTagWait(found *mistakes, wait time.Duration, at string) {
	if wait > maxWait {
		found.add(at, fmt.Sprintf("%s is too long: clients give up", text.Duration(wait)),
			"write at most "+text.Duration(maxWait))
	}
}

// checkMatch says what is wrong with a glob of REPOSITORY:TAG. One that matches nothing is a mistake: the operator relies
// on it.
func (u *Upstream) checkMatch(glob string) (message, hint string) {
	name, tag, found := strings.Cut(glob, ":")
	switch {
	case strings.Contains(glob, "://"):
		return quoted(glob) + " has a scheme", "write REPOSITORY:TAG, as in " + u.example("latest")
	case strings.Contains(glob, "@"):
		return quoted(glob) + " names a digest, and no policy holds for these", "write REPOSITORY:TAG, as in " + u.example("latest")
	case !found && globPattern.MatchString(name):
		return quoted(glob) + " names no tag", "write " + name + ":* for all of its tags"
	case u.namesItself(glob):
		return quoted(glob) + " begins with the registry", "write the repository without it: " + u.withoutName(glob)
	case !globPattern.MatchString(name):
		return quoted(name) + " is not a glob of repositories", "as in acme/** or library/nginx, in lower case"
	case !tagPattern.MatchString(tag):
		return quoted(tag) + " is not a glob of tags", "as in latest, v1.* or *"
	}
	return u.checkLibrary(name)
}

// checkLibrary says what is wrong with a repository of one segment, where there are none.
func (u *Upstream) checkLibrary(name string) (message, hint string) {
	k, _ := known(u.Name)
	if k.Library && !strings.Contains(name, "/") && name != "**" {
		return fmt.Sprintf("%q is not a repository of %s: they have at least two parts there", name, u.Name), "write library/" + name
	}
	return "", ""
}

// namesItself reports whether a name begins with the upstream, which names of its repositories do not.
func (u *Upstream) namesItself(name string) bool {
	host, _, more := strings.Cut(name, "/")
	return more && (host == u.Name || slices.Contains(u.Aliases, host) || canonical(host) == u.Name)
}

func (u *Upstream) withoutName(name string) string {
	_, rest, _ := strings.Cut(name, "/")
	return rest
}

// example is a tag as the upstream's repositories have it.
func (u *Upstream) example(tag string) string {
	if k, _ := known(u.Name); k.Library {
		return "library/nginx:" + tag
	}
	return "acme/app:" + tag
}

// checkPins checks the tags that are fixed to a digest.
func (u *Upstream) checkPins(found *mistakes, path string) {
	if u.IsPattern() && len(u.Pins) > 0 {
		found.add(path, "a pattern has none: a pin is for one registry", "name that registry in full as an upstream, with the pin")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(u.Pins)) {
		at, digest := strictyaml.Join(path, name), u.Pins[name]
		if message, hint := u.checkPinned(name); message != "" {
			found.add(at, message, hint)
			continue
		}
		if err := oci.Digest(digest).Validate(); err != nil {
			found.add(at, quoted(digest)+" is not a digest", "write all of it, sha256: and 64 hexadecimal digits; "+
				"crane digest "+u.Name+"/"+name+" prints the present one")
		}
	}
}

// checkPinned says what is wrong with the tag of a pin.
func (u *Upstream) checkPinned(text string) (message, hint string) {
	name, tag, found := strings.Cut(text, ":")
	switch {
	case strings.Contains(text, "*"):
		return quoted(text) + " is a glob, and a pin is for one tag", "write REPOSITORY:TAG, as in " + u.example("1.0")
	case u.namesItself(text):
		return quoted(text) + " begins with the registry", "write the repository without it: " + u.withoutName(text)
	case !found && oci.IsRepository(name):
		return quoted(text) + " names no tag", "write " + name + ":TAG"
	case !oci.IsRepository(name) || !oci.IsTag(tag):
		return quoted(text) + " is not a tag of a repository", "write REPOSITORY:TAG, as in " + u.example("1.0")
	}
	return u.checkLibrary(name)
}
