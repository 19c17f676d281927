package fault

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/text"
)

// The most that is kept of what an upstream says, in bytes.
const (
	MaxMessage   = 300
	maxChallenge = 600
)

// redactions find secrets that upstreams are known to put into messages. Docker Hub names the user and the token that have
// reached a limit; object stores repeat signed URLs.
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

// tokenMember finds a member of JSON, or of text like JSON, that has a token or a secret: its name, the quote, the value.
var tokenMember = regexp.MustCompile(`(?i)(["'](?:(?:access|refresh|id)_?token|token|password|client_secret|authorization)\\?["']\s*[:=]\s*\\?)(["'])` +
	`((?:[^"'\\]|\\[^"'])*)`)

// TokensIn are the values that a document has as tokens. They must not be shown where another part of it repeats them.
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

// withoutOpaque is a text of a token service without words that could be a token: long ones with letters and digits. A UUID,
// by which the operator of the service finds the request, stays.
func withoutOpaque(s string) string {
	return opaqueWord.ReplaceAllStringFunc(s, func(word string) string {
		if uuid.MatchString(word) || !strings.ContainsAny(word, "0123456789") ||
			!strings.ContainsFunc(word, unicode.IsLetter) {
			return word
		}
		return "***"
	})
}

// redact takes out of a text of an upstream what looks like a secret, and what is known to be one.
func redact(s string, known ...auth.Credential) string {
	var secrets []string
	for _, c := range known {
		secrets = append(secrets, c.Secrets()...)
	}
	s = text.Hide(s, secrets...)
	for _, r := range redactions {
		s = r.find.ReplaceAllString(s, r.put)
	}
	return s
}

// Tidy is a text of an upstream as it may be shown: one line of at most n bytes without secrets.
func Tidy(s string, n int, known ...auth.Credential) string {
	return text.Line(redact(text.Line(s, MaxErrorBody), known...), n)
}
