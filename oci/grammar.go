package oci

import (
	"regexp"
	"strings"

	"github.com/distribution/reference"
)

// The limits of the grammar, in bytes.
const (
	maxName      = 255
	maxTag       = 128
	maxNamespace = 255
)

// domain is reference's own rule for a host with an optional port. It runs only for components that are not
// ordinary, so that the common request never runs a regular expression.
var domain = regexp.MustCompile(`^(?:` + reference.DomainRegexp.String() + `)$`)

// isComponent reports whether s is one component of a repository name: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*. A fuzz
// test holds it against reference's regular expression.
func isComponent(s string) bool {
	if s == "" || !isLowerAlnum(s[0]) || !isLowerAlnum(s[len(s)-1]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case isLowerAlnum(c):
		case c == '.':
			if !isLowerAlnum(s[i-1]) {
				return false
			}
		case c == '_':
			if isLowerAlnum(s[i-1]) || s[i-1] == '_' && isLowerAlnum(s[i-2]) {
				continue
			}
			return false
		case c == '-':
			if !isLowerAlnum(s[i-1]) && s[i-1] != '-' {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// LooksLikeHost reports whether the first component of a name is one that image references read as a registry: it
// has a dot or a colon, or is "localhost".
func LooksLikeHost(component string) bool {
	return component == "localhost" || strings.IndexByte(component, '.') >= 0 || strings.IndexByte(component, ':') >= 0
}

// IsRepository reports whether a name can be that of a repository, or the beginning of one: components
// between slashes, without a host.
func IsRepository(name string) bool {
	_, ok := checkName(name, false)
	return ok && len(name) <= maxName
}

// checkName reports the component that keeps name from being a repository name, and whether there is one. Where
// hostFirst is set, the first of several components may be a host with a port.
func checkName(name string, hostFirst bool) (bad string, ok bool) {
	for first, rest, more := true, name, true; more; first = false {
		var c string
		c, rest, more = strings.Cut(rest, "/")
		if isComponent(c) {
			continue
		}
		if first && more && hostFirst && LooksLikeHost(c) && domain.MatchString(c) {
			continue
		}
		return c, false
	}
	return "", true
}

// IsTag reports whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func IsTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLowerAlnum(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// IsHostText reports whether s has only bytes of a host with a port. It filters names that are shown and looked up;
// it is not a grammar, since names are keys into the operator's list.
func IsHostText(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLowerAlnum(c) && (c < 'A' || c > 'Z') && strings.IndexByte("._-:[]", c) < 0 {
			return false
		}
	}
	return true
}
