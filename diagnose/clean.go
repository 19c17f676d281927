package diagnose

import (
	"strings"

	"github.com/registrymirror/mirror/internal/text"
)

// maxText is the limit of each text of a Finding in bytes: enough for a sentence, too little for a page.
const maxText = 400

// Clean makes s one line of printable characters, see text.Line, and cuts user, query and fragment of every URL in it: these
// hold signatures, tokens and passwords. At most 400 bytes are kept.
func Clean(s string) string {
	words := strings.Split(text.Line(s, len(s)), " ")
	for i, w := range words {
		words[i] = withoutSecrets(w)
	}
	return text.Cut(strings.Join(words, " "), maxText)
}

// withoutSecrets cuts user, query and fragment of a URL in a word.
func withoutSecrets(word string) string {
	scheme := strings.Index(word, "://")
	rest := word
	if scheme >= 0 {
		rest = word[scheme+3:]
	} else if !strings.ContainsRune(word, '/') {
		// Neither a URL nor a path: a question mark ends a question. Before a host there may still be a password.
		user, host, ok := strings.Cut(word, "@")
		if ok && strings.Contains(user, ":") && !strings.HasPrefix(host, "sha") {
			return host
		}
		return word
	}
	tail := ""
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		// A quote or bracket that closes behind the URL stays.
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
