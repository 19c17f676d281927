package strictyaml

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Problem is one mistake. It has a Line, or it has a Variable.
type Problem struct {
	File     string // as it was named; empty: the value came from the environment
	Line     int    // from 1
	Column   int    // from 1
	Variable string // the environment variable that is wrong
	Path     string // of the setting: servers.main.hosts[0]; empty: the file as a whole
	Message  string
	Hint     string // what to do
}

// String is the problem on one line: config.yaml:12:5: cache.size: "20 apples" is not a size (write ...).
func (p Problem) String() string {
	parts := []string{cmp.Or(p.Variable, fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)), p.Path, p.Message}
	text := strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
	if p.Hint != "" {
		text += " (" + p.Hint + ")"
	}
	return text
}

// userInfo is a user and password before a host in free text. Quoted values were redacted before, see Quoted.
var userInfo = regexp.MustCompile(`[^\s"'/.(]+:[^\s"'/]*@`)

// redacted returns the problem without the passwords of URLs: messages go into logs.
func (p Problem) redacted() Problem {
	for _, text := range []*string{&p.Path, &p.Message, &p.Hint} {
		*text = userInfo.ReplaceAllString(*text, "***@")
	}
	return p
}

// withoutUser is a value with *** for the part before an @.
func withoutUser(text string) string {
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return text
	}
	begin := 0
	if i := strings.Index(text[:at], "//"); i >= 0 {
		begin = i + 2
	}
	return text[:begin] + "***" + text[at:]
}

// Invalid is a document with mistakes: all of them, in the order of the document, those of the environment last.
type Invalid struct {
	File     string // as it was named; empty: there is only the environment
	Problems []Problem
}

// Error lists the problems, one a line, up to a hundred, and counts them in the last line.
func (e *Invalid) Error() string {
	const most = 100
	var lines []string
	for _, p := range e.Problems[:min(most, len(e.Problems))] {
		lines = append(lines, p.String())
	}
	if more := len(e.Problems) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	count := fmt.Sprintf("%s: %d problems", cmp.Or(e.File, "environment"), len(e.Problems))
	if len(e.Problems) == 1 {
		count = strings.TrimSuffix(count, "s")
	}
	return strings.Join(append(lines, count), "\n")
}

// order is that of the document, with the environment last.
func order(a, b Problem) int {
	return cmp.Or(
		cmp.Compare(a.Variable, b.Variable), // "" first: the file
		cmp.Compare(a.Line, b.Line),
		cmp.Compare(a.Column, b.Column),
		cmp.Compare(a.Path, b.Path),
	)
}

// Nearest returns the one of the words that word is probably a misspelling of, or "".
func Nearest(word string, words []string) string {
	best, least := "", max(1, len(word)/3)+1
	for _, w := range words {
		if strings.EqualFold(w, word) {
			return w
		}
		if diff := len(w) - len(word); max(diff, -diff) >= least {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(w)); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance is the number of bytes to insert, remove, change or swap with their neighbour to turn a into b.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// DidYouMean is a hint that names a word, empty for an empty one.
func DidYouMean(word string) string {
	if word == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", word)
}
