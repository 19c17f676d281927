package upstream

import (
	"encoding/base64"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/registrymirror/mirror/auth"
)

// The most that is kept of what an upstream says, in bytes.
const (
	maxMessage   = 300
	maxChallenge = 600
)

// What upstreams are known to put into messages that is nobody else's business. Docker Hub names the user and the
// token that has reached its limit; object stores repeat signed URLs.
var redactions = []struct {
	find *regexp.Regexp
	put  string
}{
	{regexp.MustCompile(`\bas '[^']*'`), "as '***'"},
	{regexp.MustCompile(`\bdckr_(jti|pat|oat)_[A-Za-z0-9_=-]+`), "dckr_${1}_***"},
	{regexp.MustCompile(`\b(gh[opsur]_|github_pat_|glpat-|glptt-)[A-Za-z0-9_-]+`), "${1}***"},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{6,}(\.[A-Za-z0-9_-]*){0,4}={0,2}`), "***"},
	{regexp.MustCompile(`(?i)\b(basic|bearer) [A-Za-z0-9+/=._~-]{12,}`), "${1} ***"},
	{regexp.MustCompile(`(?i)\b(https?://[^\s?"'<>]*)\?[^\s"'<>]*`), "${1}?***"},
	{regexp.MustCompile(`(?i)\b(https?://)[^\s/?#"'<>@]*@`), "${1}***@"},
	{
		regexp.MustCompile(`(?i)\b(X-Amz-[A-Za-z-]+|Signature|AWSAccessKeyId|sig|password|(?:access|refresh)_token)=` +
			`[^\s&"'<>]+`),
		"${1}=***",
	},
}

// redact takes what may be secret out of a text of an upstream: what looks like it, and what we know to be.
func redact(s string, known ...auth.Credential) string {
	for _, c := range known {
		for _, secret := range secretTexts(c) {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	for _, r := range redactions {
		s = r.find.ReplaceAllString(s, r.put)
	}
	return s
}

// tidy is a text of an upstream as it may be shown: one line of at most n bytes without secrets.
func tidy(s string, n int, known ...auth.Credential) string {
	return oneLine(redact(oneLine(s, maxErrorBody), known...), n)
}

// secretTexts are the forms in which an upstream could repeat our credential.
func secretTexts(c auth.Credential) []string {
	var texts []string
	for _, s := range []auth.Secret{c.Password, c.Identity} {
		if text := s.Reveal(); len(text) >= 4 { // a shorter one would blank out half of every message
			texts = append(texts, text)
		}
	}
	if !c.Password.IsZero() {
		texts = append(texts, base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password.Reveal())))
	}
	return texts
}

// oneLine makes a text one printable line of at most n bytes.
func oneLine(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), r == utf8.RuneError:
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= n {
		return s
	}
	s = s[:n-3]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "..."
}
