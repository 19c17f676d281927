// Package clean makes what others say fit for a log: one line, short, and without the secrets that they were told.
// Whoever has seen a secret can repeat it to us.
package clean

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// maxLine is the longest line in bytes.
const maxLine = 240

// minSecret is the shortest text that is taken for a secret: a shorter one would blacken words, and protects nothing.
const minSecret = 4

// Line is the first line of text that says something, without control characters, at most 240 bytes, and with "***" for
// each of the secrets, also where it is escaped as in a URL.
func Line(text string, secrets ...string) string {
	text = Redact(text, secrets...)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Cf, r) {
				return ' '
			}
			return r
		}, line))
		if line == "" {
			continue
		}
		if len(line) > maxLine {
			line = strings.ToValidUTF8(line[:maxLine], "") + "..."
		}
		return line
	}
	return ""
}

// Redact puts "***" in the place of each secret. Longer ones go first, since one may be a part of another.
func Redact(text string, secrets ...string) string {
	all := make([]string, 0, 2*len(secrets))
	for _, s := range secrets {
		if len(s) < minSecret {
			continue
		}
		all = append(all, s)
		if escaped := url.QueryEscape(s); escaped != s {
			all = append(all, escaped)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	for _, s := range all {
		text = strings.ReplaceAll(text, s, "***")
	}
	return text
}
