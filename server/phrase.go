package server

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/text"
)

const (
	maxPhrase  = 160 // bytes of a reason phrase, the standard words included
	maxMessage = 300 // bytes of a message
)

// printable is s in printable ASCII on one line and in at most limit bytes: a header or a status line can carry it.
func printable(s string, limit int) string {
	if len(s) <= limit && isPrintable(s) {
		return s // without a copy, for each request
	}
	ascii := strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, text.Line(s, utf8.UTFMax*max(limit, 0)))
	return text.Cut(ascii, limit)
}

// isPrintable reports whether printable would leave s as it is.
func isPrintable(s string) bool {
	space := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == ' ' && space {
			return false
		}
		space = s[i] == ' '
	}
	return s == "" || !space
}

// sentence is the summary and the remedy in printable ASCII. The summary goes first, with as many clauses of the remedy as
// there is room for.
func sentence(f diagnose.Finding, limit int) string {
	s := printable(f.Summary, limit)
	rest := printable(f.Remedy, maxMessage)
	for rest != "" && len(s)+2+len(rest) > limit {
		i := strings.LastIndexAny(rest, ",;")
		if i < 0 {
			return s
		}
		rest = strings.TrimSpace(rest[:i])
	}
	switch {
	case rest == "":
		return s
	case s == "":
		return printable(rest, limit)
	}
	return s + "; " + rest
}

// phrase is the reason phrase of an answer: the standard words, for programs that parse them, then the explanation and the
// failure's id.
func phrase(status int, f diagnose.Finding, id string) string {
	before, after := http.StatusText(status)+" (mirror: ", " ["+printable(id, 16)+"])"
	limit := maxPhrase - len(before) - len(after)
	if f.Short != "" && len(f.Summary)+2+len(f.Remedy) > limit { // the remedy is worth more than the image's name
		f.Summary = f.Short
	}
	f.Summary = strings.TrimPrefix(f.Summary, "the mirror ") // the phrase has just named it
	return before + sentence(f, limit) + after
}

// warning is the value of a Warning header. 299 is the code of a persistent warning without a code of its own; containers/image
// logs its text, and containerd reads it.
func warning(text string) string {
	text = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(printable(text, maxMessage))
	return `299 - "` + text + `"`
}
