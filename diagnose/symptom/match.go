package symptom

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// phrases are patterns of lower case text; one match is enough. A pattern runs only on a text that has a word which all its
// matches have: looking for a word is cheap, running a hundred patterns over each line of a log is not.
type phrases []phrase

type phrase struct {
	word string // in each match; empty: the pattern has none
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

// in reports whether a text in lower case matches one of them.
func (list phrases) in(text string) bool {
	return slices.ContainsFunc(list, func(p phrase) bool { return strings.Contains(text, p.word) && p.text.MatchString(text) })
}

// has reports whether a text has one of some words.
func has(text string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// word is the longest text that every match of a pattern has.
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
