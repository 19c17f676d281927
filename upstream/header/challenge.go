package header

import "strings"

// Challenge is one scheme that a WWW-Authenticate header offers (RFC 9110, section 11.6.1).
type Challenge struct {
	Scheme string            // in lower case
	Params map[string]string // names in lower case; of two with one name the first
}

// The most of a header that is looked at.
const (
	maxChallengeBytes = 8 << 10
	maxChallenges     = 16
)

// ParseChallenges reads every challenge of every value. It accepts the mistakes that registries make: unquoted URLs, no space
// after commas, a quote that never ends. Parts that it cannot read are left out.
func ParseChallenges(values []string) []Challenge {
	var all []Challenge
	for _, v := range values {
		all = append(all, parseChallenge(v[:min(len(v), maxChallengeBytes)])...)
		if len(all) >= maxChallenges {
			return all[:maxChallenges]
		}
	}
	return all
}

func parseChallenge(s string) (all []Challenge) {
	for {
		s = strings.TrimLeft(s, " \t,")
		word := s[:tokenLen(s)]
		if word == "" {
			if s == "" {
				return all
			}
			s = s[1:] // a challenge begins with a token
			continue
		}
		s = s[len(word):]
		rest := strings.TrimLeft(s, " \t")
		if !strings.HasPrefix(rest, "=") {
			all = append(all, Challenge{Scheme: strings.ToLower(word), Params: make(map[string]string)})
			continue
		}
		if after := strings.TrimLeft(rest, "="); after == "" || after[0] == ',' {
			s = after // the padding of a token68, as in "Negotiate YQ=="
			continue
		}
		value, after := parseValue(strings.TrimLeft(rest[1:], " \t"))
		s = after
		if len(all) == 0 {
			continue // a parameter without a challenge
		}
		if name := strings.ToLower(word); all[len(all)-1].Params[name] == "" {
			all[len(all)-1].Params[name] = value
		}
	}
}

// parseValue reads a quoted string or a bare word. rest follows it.
func parseValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		if i := strings.IndexAny(s, ", \t"); i >= 0 {
			return s[:i], s[i:]
		}
		return s, ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}

// tokenLen is the length of the token (RFC 9110, section 5.6.2) that s begins with.
func tokenLen(s string) int {
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return i
		}
	}
	return len(s)
}

// FindChallenge is the first challenge of a scheme, of Bearer the first one with a realm.
func FindChallenge(all []Challenge, scheme string) (Challenge, bool) {
	for _, c := range all {
		if c.Scheme == scheme && (scheme != "bearer" || c.Params["realm"] != "") {
			return c, true
		}
	}
	return Challenge{}, false
}
