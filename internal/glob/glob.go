// Package glob matches names against patterns: hosts, repositories and texts.
//
// A pattern has two wildcards. "*" stands for any characters of one part of the name, none included. "**", as a part of
// its own, stands for any number of parts, none included. A host has parts between dots, a path between slashes, and a
// text is one part. Everything else stands for itself: letters are compared as they are, a port belongs to the last part
// of its host, and "*" stands for no part that is empty.
//
// A match takes time in proportion to the product of both lengths at most, whatever the pattern is.
//
// It does not check patterns: a caller that takes them from a file says which of them are mistakes.
package glob

import "strings"

// Host reports whether a host fits a pattern, label by label: "*.example.com" fits "a.example.com", and neither
// "example.com" nor "a.b.example.com"; "**.example.com" fits all three.
func Host(pattern, host string) bool {
	return parts(strings.Split(pattern, "."), strings.Split(host, "."))
}

// Path reports whether a path fits a pattern, segment by segment: "acme/*" fits "acme/app", and "acme/**" fits "acme" and
// "acme/team/app" as well.
func Path(pattern, path string) bool {
	return parts(strings.Split(pattern, "/"), strings.Split(path, "/"))
}

// Literal is how much a pattern says: the number of its characters that stand for themselves.
func Literal(pattern string) int { return len(pattern) - strings.Count(pattern, "*") }

// Text reports whether a text fits a pattern in which "*" stands for any characters.
func Text(pattern, text string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	text, ok := strings.CutPrefix(text, first)
	if !ok || !star {
		return ok && text == ""
	}
	for {
		next, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(text, next)
		}
		// The first place will do: what is left for the rest of the pattern is longest then.
		_, after, found := strings.Cut(text, next)
		if !found {
			return false
		}
		text, rest = after, more
	}
}

// parts matches the parts of a name. After a mismatch the last "**" takes one part more; those before it need not be
// tried again, as in Text.
func parts(pattern, name []string) bool {
	p, n := 0, 0
	wide, taken := -1, 0 // the last "**", and the part at which its match ends
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			wide, taken = p, n
			p++
		case p < len(pattern) && part(pattern[p], name[n]):
			p++
			n++
		case wide >= 0:
			taken++
			p, n = wide+1, taken
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

func part(pattern, name string) bool {
	return pattern == name || name != "" && Text(pattern, name)
}
