package symptom

import (
	"regexp"
	"regexp/syntax"
	"strings"
)

// phrases are patterns of lower case text, of which one is enough. A pattern is asked only where a word is that all its
// matches have: to look for a word costs next to nothing, to run a hundred patterns over each line of a log does not.
type phrases []phrase

type phrase struct {
	word string // empty: there is none
	text *regexp.Regexp
}

func phrasesOf(patterns ...string) phrases {
	list := make(phrases, len(patterns))
	for i, p := range patterns {
		tree, err := syntax.Parse(p, syntax.Perl)
		if err != nil {
			panic(err) // they are constants
		}
		list[i] = phrase{word(tree), regexp.MustCompile(p)}
	}
	return list
}

// in reports whether a text, in lower case, has one of them.
func (list phrases) in(text string) bool {
	for _, p := range list {
		if strings.Contains(text, p.word) && p.text.MatchString(text) {
			return true
		}
	}
	return false
}

// word is the longest one that every match of a pattern has for certain.
func word(p *syntax.Regexp) string {
	switch {
	case p.Op == syntax.OpLiteral && p.Flags&syntax.FoldCase == 0:
		return string(p.Rune)
	case p.Op == syntax.OpCapture, p.Op == syntax.OpPlus, p.Op == syntax.OpRepeat && p.Min > 0:
		return word(p.Sub[0])
	case p.Op != syntax.OpConcat:
		return ""
	}
	longest := ""
	for _, sub := range p.Sub {
		if w := word(sub); len(w) > len(longest) {
			longest = w
		}
	}
	return longest
}
