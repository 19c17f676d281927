package diagnose

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/text"
)

// Class answers the coarse question: whose problem is it?
type Class string

// The classes.
const (
	ClassNetwork   Class = "network"
	ClassTLS       Class = "tls"
	ClassAuth      Class = "auth"
	ClassMissing   Class = "missing"
	ClassUndecided Class = "undecided"
	ClassLimit     Class = "limit"
	ClassUpstream  Class = "upstream"
	ClassMirror    Class = "mirror"
	ClassClient    Class = "client"
	ClassUnknown   Class = "unknown"
)

// Finding is why a pull failed: cause, evidence, remedy.
type Finding struct {
	Reason   Reason
	Class    Class
	Summary  string   // one line that stands alone: the event, and the host
	Short    string   // Summary without the image, for a place that shows the image beside it; empty: Summary fits
	Remedy   string   // the next step
	Alone    string   // Remedy for clients that cannot go on to the registry; empty: Remedy fits
	Evidence []string // facts, one a line
	Declined bool     // a refusal that leaves the node free to go on to the registry itself

	Upstream   string        // canonical name; empty where no upstream was involved
	Host       string        // host[:port] at which the pull failed; may differ from the upstream: a token service, a CDN
	Stage      string        // upstream.StepName of the step that failed; may be empty
	Status     int           // HTTP status of the upstream; 0: none
	RetryAfter time.Duration // that the upstream asked for; 0: none
}

// ID is a fingerprint of a failure: 8 hex digits over the reason, the image and the host at which the pull failed.
// It is the same after a restart and on another machine, so that it can be quoted. image is canonical
// ("docker.io/library/nginx:1.27"), empty where none is known.
func (f Finding) ID(image string) string {
	sum := sha256.Sum256([]byte(string(f.Reason) + "\x00" + image + "\x00" + f.Host))
	return hex.EncodeToString(sum[:4])
}

// Error is an error whose finding is known where it arises. Explain returns that finding.
type Error struct{ Finding Finding }

// New makes an Error of a reason. summary and remedy are cleaned as every text of a Finding is.
func New(r Reason, summary, remedy string) *Error {
	return &Error{Finding: Finding{Reason: r, Class: r.Class(), Summary: Clean(summary), Remedy: Clean(remedy)}}
}

func (e *Error) Error() string { return string(e.Finding.Reason) + ": " + e.Finding.Summary }

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
