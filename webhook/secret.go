package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// MinSecret is the least number of bytes of a secret: a shorter one could be guessed.
const MinSecret = 16

// keyPrefix begins a secret of the Standard Webhooks scheme: the rest is the key in base64.
const keyPrefix = "whsec_"

// secret is what a sender knows. Its fields are read by its methods alone, which take the same time whether they find it or
// not, so that the time of an answer shows nothing of it.
type secret struct {
	sum [sha256.Size]byte // of its text: hashes of one length hide how long it is
	key []byte            // for signatures
}

func newSecret(text string) secret {
	s := secret{sum: sha256.Sum256([]byte(text)), key: []byte(text)}
	if encoded, ok := strings.CutPrefix(text, keyPrefix); ok {
		if key, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			s.key = key
		}
	}
	return s
}

// is reports whether a text is the secret.
func (s secret) is(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(sum[:], s.sum[:]) == 1
}

// signed reports whether mac is the HMAC-SHA256 of some texts, one after the other.
func (s secret) signed(mac []byte, texts ...[]byte) bool {
	h := hmac.New(sha256.New, s.key)
	for _, text := range texts {
		h.Write(text)
	}
	return hmac.Equal(h.Sum(nil), mac)
}

// secrets are those of one hook: while one replaces another, both count.
type secrets []secret

// anyIs reports whether a text is one of the secrets. All of them are compared.
func (list secrets) anyIs(text string) bool {
	found := false
	for _, s := range list {
		found = s.is(text) || found
	}
	return found
}

// anySigned reports whether one of the secrets is the key of a signature. All of them are compared.
func (list secrets) anySigned(mac []byte, texts ...[]byte) bool {
	found := false
	for _, s := range list {
		found = s.signed(mac, texts...) || found
	}
	return found
}
