package ecr

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"maps"
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
	list := slices.Sorted(maps.Keys(lines))
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
	return strings.ReplaceAll(escape(clean), "%2F", "/")
}

func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	type pair struct{ name, value string }
	var pairs []pair
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		pairs = append(pairs, pair{escape(unescape(name)), escape(unescape(value))})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.value, b.value))
	})
	var list []string
	for _, p := range pairs {
		list = append(list, p.name+"="+p.value)
	}
	return strings.Join(list, "&")
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil { // a + stays one
		return u
	}
	return s
}

// escape writes all but the unreserved letters as %XX.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
