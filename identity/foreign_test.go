package identity_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/identity"
)

// Beside a registry's login, nothing that is a secret of the mirror's is shown to that registry: not a token of its list under the
// wrong name, nor one that has ended, nor a mistyped one, nor a service account's token for the mirror.
func TestOwnSecretsAreNotForeign(t *testing.T) {
	t.Parallel()
	key := newKey(t, "a", jose.RS256)
	set, err := identity.ParseKeys(jwks(t, key))
	if err != nil {
		t.Fatal(err)
	}
	list, token := tokens(t, "ci", "old")
	v := newVerifier()
	v.Use(identity.Settings{
		Passwords: passwords(t, "alice"), Tokens: list,
		Accounts: identity.NewAccounts(identity.AccountOptions{Audience: "mirror", Issuer: issuer, Keys: set}),
	})
	ended := key.token(t, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})
	forged := newKey(t, "a", jose.RS256).token(t, nil)
	elsewhere := key.token(t, map[string]any{"aud": []string{"registry.example"}})
	for _, tt := range []struct {
		name, user, secret string
		who                client.Identity
		foreign            bool
	}{
		{"a login of the registry", "bob", "bob1", "", true},
		{"a token of the registry", "oauth2accesstoken", elsewhere, "", true},
		{"another token of the registry", "oauth2accesstoken", "eyJ.a.b", "", true},
		{"a user of the mirror", "alice", "alice1", "alice", false},
		{"a mistyped password", "alice", "alice2", "", false},
		{"a token", "ci", token["ci"], "ci", false},
		{"a token under another name", "bob", token["ci"], "", false},
		{"a token that has ended", "old", token["old"], "", false},
		{"a token that has ended, under another name", "bob", token["old"], "", false},
		{"a mistyped token", "bob", token["ci"] + "x", "", false},
		{"a token with a line end", "bob", token["ci"] + "\n", "", false},
		{"a part of a token", "bob", token["ci"][:40], "", false},
		{"a password that begins as tokens do", "bob", "mirror_pass", "", true},
		{"a service account", "any", key.token(t, nil), "sa:builds/kaniko", false},
		{"a service account's token that has ended", "any", ended, "", false},
		{"a service account's token with a wrong signature", "any", forged, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			who, foreign, _, err := v.IdentifyBeside(request(t, basic(tt.user, tt.secret)), tt.name)
			if who != tt.who || foreign != tt.foreign || err != nil && (foreign || who != "") || err == nil && !foreign && who == "" {
				t.Errorf("%q, foreign %v, %v", who, foreign, err)
			}
		})
	}
}

// Clients of one address may share a user of their registry, each with another password: none of these counts as a wrong password of the
// mirror's.
func TestForeignLoginsAreNotLimited(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	v.Use(identity.Settings{Passwords: passwords(t, "alice")})
	for i := range 50 {
		_, foreign, _, err := v.IdentifyBeside(request(t, basic("oauth2accesstoken", fmt.Sprint("token", i))), "a")
		if !foreign || err != nil {
			t.Fatalf("login %d: foreign %v, %v", i, foreign, err)
		}
	}
}
