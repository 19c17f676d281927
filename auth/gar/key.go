package gar

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/internal/ask"
)

// scope is the scope of a token. A narrower one does not let Artifact Registry be read.
const scope = "https://www.googleapis.com/auth/cloud-platform"

// serviceAccount is a service account with its key.
type serviceAccount struct {
	email, id string
	key       *rsa.PrivateKey
	tokens    *url.URL // of the service that trades its key for an access token
}

// parseKey reads a service account's key. An error quotes nothing of it.
func parseKey(text string) (serviceAccount, error) {
	var doc struct {
		Type         string `json:"type"`
		ClientEmail  string `json:"client_email"`
		PrivateKey   string `json:"private_key"`
		PrivateKeyID string `json:"private_key_id"`
		TokenURI     string `json:"token_uri"`
	}
	if json.Unmarshal([]byte(text), &doc) != nil {
		return serviceAccount{}, errors.New("is not JSON with a service account's key")
	}
	switch doc.Type {
	case "service_account":
	case "external_account", "authorized_user", "impersonated_service_account", "external_account_authorized_user":
		return serviceAccount{}, fmt.Errorf("is of type %s, and a service_account is needed", doc.Type)
	default:
		return serviceAccount{}, errors.New("is not a key of a service_account")
	}
	block, _ := pem.Decode([]byte(doc.PrivateKey))
	if block == nil || doc.ClientEmail == "" {
		return serviceAccount{}, errors.New("has no private_key or no client_email")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if err != nil || !ok {
		return serviceAccount{}, errors.New("has a private_key that is not RSA")
	}
	u, err := url.Parse(cmp.Or(doc.TokenURI, "https://oauth2.googleapis.com/token"))
	if err != nil || u.User != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u)) {
		return serviceAccount{}, errors.New("has a token_uri that is not https")
	}
	return serviceAccount{email: doc.ClientEmail, id: doc.PrivateKeyID, key: rsaKey, tokens: u}, nil
}

func loopback(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback()
}

// assertion is a signed JSON Web Token with the name of the account (RFC 7523).
func (a serviceAccount) assertion(now time.Time) (string, error) {
	part := func(v any) string {
		b, _ := json.Marshal(v) // maps of texts and numbers
		return base64.RawURLEncoding.EncodeToString(b)
	}
	header := map[string]string{"alg": "RS256", "typ": "JWT"}
	if a.id != "" {
		header["kid"] = a.id
	}
	text := part(header) + "." + part(map[string]any{
		"iss": a.email, "scope": scope, "aud": a.tokens.String(), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign with the key of %s: %w", a.email, err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// withKey trades a service account's key, read again each time, for an access token. Where our clock is wrong, it asks
// again by the clock of the answer.
func (c *client) withKey(ctx context.Context, file string) (auth.Grant, error) {
	text, err := ask.File(file)
	if err != nil {
		return auth.Grant{}, fmt.Errorf("service account's key: %w", err)
	}
	account, err := parseKey(text)
	if err != nil {
		return auth.Grant{}, fmt.Errorf("service account's key: %s %w", file, err)
	}
	const event = "local clock differs from Google's; using Google's time"
	a, err := ask.ByClock(ctx, c.log, event, func(now time.Time) (*ask.Answer, error) {
		assertion, err := account.assertion(now)
		if err != nil {
			return nil, err
		}
		form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
		return ask.Do(ctx, c.far, ask.Request{URL: account.tokens.String(), Form: form, Secrets: []string{assertion}})
	})
	if err != nil {
		return auth.Grant{}, fmt.Errorf("log in as %s: %w", account.email, err)
	}
	return read(a, account.tokens.Host)
}
