package fault

import (
	"encoding/base64"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/registrymirror/mirror/auth"
)

// The most that is kept of what an upstream says, in bytes.
const (
	MaxMessage   = 300
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
	{tokenMember, "${1}${2}***"},
	{regexp.MustCompile(`(?i)(\b(?:[a-z]+_)?token["']?\s*[:=]\s*)[A-Za-z0-9+/=._~-]{16,}`), "${1}***"},
}

// tokenMember is a member of JSON, or of what looks like it, that has a token or a secret: its name, the quote, the value.
var tokenMember = regexp.MustCompile(`(?i)(["'](?:(?:access|refresh|id)_?token|token|password|client_secret|authorization)\\?["']\s*[:=]\s*\\?)(["'])` +
	`((?:[^"'\\]|\\[^"'])*)`)

// tokensIn are the values that a document has as tokens: no other part of it may repeat them.
func TokensIn(b []byte) []auth.Credential {
	const shortest, most = 8, 16
	var all []auth.Credential
	for _, m := range tokenMember.FindAllSubmatch(b, most) {
		if len(m[3]) >= shortest {
			all = append(all, auth.Credential{Identity: auth.NewSecret(string(m[3]))})
		}
	}
	return all
}

var (
	opaqueWord = regexp.MustCompile(`[A-Za-z0-9_~=+-]{20,}`)
	uuid       = regexp.MustCompile(`^(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// withoutOpaque is a text of a token service without words that could be a token: long ones with letters and digits. An id by
// which its operator finds the request stays.
func withoutOpaque(s string) string {
	return opaqueWord.ReplaceAllStringFunc(s, func(word string) string {
		if uuid.MatchString(word) || !strings.ContainsAny(word, "0123456789") ||
			!strings.ContainsFunc(word, unicode.IsLetter) {
			return word
		}
		return "***"
	})
}

// redact takes what may be secret out of a text of an upstream: what looks like it, and what we know to be.
func redact(s string, known ...auth.Credential) string {
	var texts []string
	for _, c := range known {
		texts = append(texts, secretTexts(c)...)
	}
	// Longer ones first, since one may be a part of another.
	slices.SortFunc(texts, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range texts {
		s = strings.ReplaceAll(s, secret, "***")
	}
	for _, r := range redactions {
		s = r.find.ReplaceAllString(s, r.put)
	}
	return s
}

// tidy is a text of an upstream as it may be shown: one line of at most n bytes without secrets.
func Tidy(s string, n int, known ...auth.Credential) string {
	return OneLine(redact(OneLine(s, MaxErrorBody), known...), n)
}

// secretTexts are the forms in which an upstream could repeat our credential: as it is, as it was sent, and as either is
// written in a URL, a form or a page.
func secretTexts(c auth.Credential) []string {
	var texts []string
	for _, s := range []auth.Secret{c.Password, c.Identity} {
		text := s.Reveal()
		if len(text) < 4 { // a shorter one would blank out half of every message
			continue
		}
		texts = append(texts, text, base64.StdEncoding.EncodeToString([]byte(text)), html.EscapeString(text))
	}
	if !c.Password.IsZero() {
		login := []byte(c.Username + ":" + c.Password.Reveal())
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			texts = append(texts, e.EncodeToString(login))
		}
	}
	for _, text := range slices.Clone(texts) {
		texts = append(texts, url.QueryEscape(text), url.PathEscape(text))
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// oneLine makes a text one printable line of at most n bytes.
func OneLine(s string, n int) string {
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
