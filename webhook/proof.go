package webhook

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxSkew is how far the time of a signed report may be from ours.
const maxSkew = 5 * time.Minute

// place is where a request may show the secret itself. It returns what stands there; empty: nothing.
type place func(r *http.Request, rest string) string

// inPath is the part of the path behind the hook's name, for senders that can set nothing but a URL.
func inPath(_ *http.Request, rest string) string { return rest }

// inGitLabToken is GitLab's header.
func inGitLabToken(r *http.Request, _ string) string { return r.Header.Get("X-Gitlab-Token") }

// inAuthorization is the header Authorization: a bearer token, the password of a Basic login, or the text as it is.
func inAuthorization(r *http.Request, _ string) string {
	text := r.Header.Get("Authorization")
	scheme, rest, ok := strings.Cut(text, " ")
	switch {
	case ok && strings.EqualFold(scheme, "Bearer"):
		return strings.TrimSpace(rest)
	case ok && strings.EqualFold(scheme, "Basic"):
		_, password, _ := r.BasicAuth()
		return password
	}
	return text
}

// scheme is a way to sign.
type scheme struct {
	header string // has the signature
	// check reports whether one of the secrets has signed the report just now, and identifies it; empty: it can't be told from
	// another.
	check func(k secrets, h http.Header, body []byte, now time.Time) (id string, ok bool)
}

// hubSignature is GitHub's: the hexadecimal HMAC of the body. CI can make it with openssl.
var hubSignature = scheme{"X-Hub-Signature-256", func(k secrets, h http.Header, body []byte, _ time.Time) (string, bool) {
	encoded, ok := strings.CutPrefix(h.Get("X-Hub-Signature-256"), "sha256=")
	return delivery(h.Get("X-GitHub-Delivery"), encoded), ok && signedHex(k, encoded, body)
}}

// giteaSignature is that of Gitea and Forgejo: as GitHub's, without a prefix.
var giteaSignature = scheme{"X-Gitea-Signature", func(k secrets, h http.Header, body []byte, _ time.Time) (string, bool) {
	encoded := h.Get("X-Gitea-Signature")
	return delivery(h.Get("X-Gitea-Delivery"), encoded), signedHex(k, encoded, body)
}}

// delivery identifies a report whose signature covers neither an id nor a time. Two pushes may have equal bodies, and so equal
// signatures: without an id of its delivery it is not identified.
func delivery(id, signature string) string {
	if id == "" {
		return ""
	}
	return id + "\n" + signature
}

func signedHex(k secrets, encoded string, body []byte) bool {
	mac, err := hex.DecodeString(encoded)
	return err == nil && k.anySigned(mac, body)
}

// standardSignature is that of the Standard Webhooks specification, which GitLab has, too: the HMAC of id, time and body in
// base64. There may be several, by several keys.
var standardSignature = scheme{"Webhook-Signature", func(k secrets, h http.Header, body []byte, now time.Time) (string, bool) {
	id, at := h.Get("Webhook-Id"), h.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || id == "" || now.Sub(time.Unix(seconds, 0)).Abs() > maxSkew {
		return "", false
	}
	const most = 8
	found := false
	for i, text := range strings.Fields(h.Get("Webhook-Signature")) {
		encoded, ok := strings.CutPrefix(text, "v1,")
		mac, err := base64.StdEncoding.DecodeString(encoded)
		if i >= most || !ok || err != nil {
			continue
		}
		found = k.anySigned(mac, []byte(id), []byte("."), []byte(at), []byte("."), body) || found
	}
	return id, found
}}
