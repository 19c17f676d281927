package images

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/internal/text"
)

var (
	// structure matches the first line of a text that is not a plain list: YAML or JSON.
	structure = regexp.MustCompile(`^(---|[-?](\s|$)|[{\[%&!|>"']|.*:(\s|$))`)
	number    = regexp.MustCompile(`^\d+$`)
)

// isList reports whether a text is a plain list of images, by the first line that has more than a comment.
func isList(data []byte) bool {
	for row := range bytes.Lines(data) {
		if words := wordsOf(string(row)); len(words) > 0 {
			return !structure.Match(bytes.TrimSpace(row))
		}
	}
	return false
}

// list reads a plain list: a name a line, with comments, or several names that can't be mistaken.
func (c *collector) list(data []byte) {
	c.document = 1
	line, first := 0, true
	for row := range strings.Lines(string(data)) {
		line++
		words := wordsOf(row)
		switch prose := slices.ContainsFunc(words, isWord); {
		case len(words) == 0:
			continue
		case first && prose && c.inFolder: // a license, a list of something else
			return
		case first && prose && len(words) > 1:
			c.problem(line, "", fmt.Sprintf("neither YAML, nor JSON, nor a list of images: %q", text.Line(row, 60)))
			return
		case prose && len(words) > 1:
			c.problem(line, "", fmt.Sprintf("%q has several words; write one image a line", text.Line(row, 60)))
		default:
			for _, w := range words {
				c.name(line, "", w)
			}
		}
		first = false
	}
}

// wordsOf are the words of a line without its comment, and without the number of times that uniq counted a name.
func wordsOf(row string) []string {
	words := strings.Fields(row)
	if i := slices.IndexFunc(words, func(w string) bool { return w[0] == '#' }); i >= 0 {
		words = words[:i]
	}
	if len(words) == 2 && number.MatchString(words[0]) {
		words = words[1:]
	}
	return words
}

// isWord reports whether a text may be a word, and not the name of an image: it has no registry, tag or digest.
func isWord(s string) bool {
	_, ok := unmistakable(s)
	return !ok && !hasHost(s)
}
