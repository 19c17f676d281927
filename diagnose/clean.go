package diagnose

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText is the most that any text of a Finding holds, in bytes: enough for a sentence, too little for a page.
const maxText = 400

// Clean makes s one line of printable characters: what is not printable becomes a space, spaces are joined, and the
// query, fragment and user of every URL in it are cut, since that is where signatures, tokens and passwords are.
// At most 400 bytes are kept.
func Clean(s string) string {
	var b strings.Builder
	for i, f := range strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(withoutSecrets(f))
		if b.Len() > maxText {
			break
		}
	}
	return Cut(strings.ToValidUTF8(b.String(), "?"), maxText)
}

// withoutSecrets cuts user, query and fragment of a URL in a word.
func withoutSecrets(word string) string {
	scheme := strings.Index(word, "://")
	rest := word
	if scheme >= 0 {
		rest = word[scheme+3:]
	} else if !strings.ContainsRune(word, '/') {
		// No URL and no path: a question mark ends a question. What comes before a host may still be a password.
		user, host, ok := strings.Cut(word, "@")
		if ok && strings.Contains(user, ":") && !strings.HasPrefix(host, "sha") {
			return host
		}
		return word
	}
	tail := ""
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		// What closes a quote or bracket around the URL stays, so that what was a pair is one.
		if end := len(strings.TrimRight(rest, "\"'>)]},;:.")); end > i {
			tail = rest[end:]
		}
		rest = rest[:i]
	}
	if scheme >= 0 {
		host, path, found := strings.Cut(rest, "/")
		if i := strings.LastIndexByte(host, '@'); i >= 0 {
			host = host[i+1:]
		}
		rest = word[:scheme+3] + host
		if found {
			rest += "/" + path
		}
	}
	return rest + tail
}

// Cut shortens s to at most limit bytes, at the last space if there is one near, and marks the cut with "...".
func Cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const mark = "..."
	if limit <= len(mark) {
		return mark[:max(limit, 0)]
	}
	s = s[:limit-len(mark)+1]
	if i := strings.LastIndexByte(s, ' '); i > limit/2 {
		return strings.TrimRight(s[:i], " ,;:") + mark
	}
	s = s[:limit-len(mark)]
	for !utf8.ValidString(s) && len(s) > 0 {
		s = s[:len(s)-1]
	}
	return s + mark
}
