package gar

import (
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
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/internal/ask"
)

// scope is the scope of a token. A narrower one does not let Artifact Registry be read.
const scope = "https://www.googleapis.com/auth/cloud-platform"

// skewed is how far our clock may be from Google's.
const skewed = 4 * time.Minute

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
	if doc.TokenURI == "" {
		doc.TokenURI = "https://oauth2.googleapis.com/token"
	}
	u, err := url.Parse(doc.TokenURI)
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
	var ahead time.Duration // of Google's clock
	try := func() (*ask.Answer, error) {
		assertion, err := account.assertion(time.Now().Add(ahead))
		if err != nil {
			return nil, err
		}
		form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, account.tokens.String(), strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return ask.Do(ctx, c.far, req, serviceLimit, assertion)
	}
	a, err := ask.Patiently(ctx, try)
	if e, ok := errors.AsType[*ask.Error](err); ok && !e.Date.IsZero() && time.Until(e.Date).Abs() > skewed {
		ahead = time.Until(e.Date)
		off := -ahead.Round(time.Second)
		again, e := ask.Patiently(ctx, try)
		if e != nil {
			return auth.Grant{}, fmt.Errorf("log in as %s: %w (the clock of this machine is off by %s)", account.email, err, off)
		}
		c.log.WarnContext(ctx, "local clock differs from Google's; using Google's time", "clock_skew", off)
		a, err = again, nil
	}
	if err != nil {
		return auth.Grant{}, fmt.Errorf("log in as %s: %w", account.email, err)
	}
	return read(a, account.tokens.Host)
}
