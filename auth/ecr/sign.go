package ecr

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
)

// keys are credentials of AWS itself, with which requests are signed.
type keys struct {
	id     string
	secret auth.Secret
	token  auth.Secret // of a session; zero for a user's own keys
	source string      // the place where they were found, for people
}

// secrets are the texts that must not be in messages.
func (k keys) secrets() []string { return []string{k.secret.Reveal(), k.token.Reveal()} }

// The words of Signature Version 4.
const (
	algorithm  = "AWS4-HMAC-SHA256"
	timeFormat = "20060102T150405Z"
	terminator = "aws4_request"
)

// sign signs a request with all the headers that it has, by Signature Version 4.
func sign(req *http.Request, body []byte, k keys, region, service string, now time.Time) {
	at := now.UTC().Format(timeFormat)
	req.Header.Set("X-Amz-Date", at)
	if !k.token.IsZero() {
		req.Header.Set("X-Amz-Security-Token", k.token.Reveal())
	}
	names, headers := canonicalHeaders(req)
	canonical := strings.Join([]string{
		req.Method, canonicalPath(req.URL.Path), canonicalQuery(req.URL.RawQuery), headers, names, hash(body),
	}, "\n")
	scope := strings.Join([]string{at[:8], region, service, terminator}, "/")
	text := strings.Join([]string{algorithm, at, scope, hash([]byte(canonical))}, "\n")
	key := []byte("AWS4" + k.secret.Reveal())
	for _, part := range []string{at[:8], region, service, terminator} {
		key = mac(key, part)
	}
	req.Header.Set("Authorization", algorithm+" Credential="+k.id+"/"+scope+", SignedHeaders="+names+
		", Signature="+hex.EncodeToString(mac(key, text)))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func canonicalHeaders(req *http.Request) (names, headers string) {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	lines := map[string]string{"host": host}
	for name, values := range req.Header {
		trimmed := make([]string, len(values))
		for i, v := range values {
			trimmed[i] = strings.Join(strings.Fields(v), " ")
		}
		lines[strings.ToLower(name)] = strings.Join(trimmed, ",")
	}
	var list []string
	for name := range lines {
		list = append(list, name)
	}
	slices.Sort(list)
	var b strings.Builder
	for _, name := range list {
		b.WriteString(name + ":" + lines[name] + "\n")
	}
	return strings.Join(list, ";"), b.String()
}

func canonicalPath(p string) string {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return escape(clean, true)
}

func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	type pair struct{ name, value string }
	var pairs []pair
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		pairs = append(pairs, pair{escape(unescape(name), false), escape(unescape(value), false)})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.name + "=" + p.value)
	}
	return b.String()
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil { // a + stays one
		return u
	}
	return s
}

// escape writes all but the unreserved letters as %XX.
func escape(s string, slash bool) string {
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case strings.IndexByte(unreserved, c) >= 0, slash && c == '/':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}
