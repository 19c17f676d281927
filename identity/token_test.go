package identity_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/identity"
)

func TestParseTokens(t *testing.T) {
	t.Parallel()
	token, hash := identity.NewToken()
	if sum := sha256.Sum256([]byte(token)); hex.EncodeToString(sum[:]) != hash || !strings.HasPrefix(token, "mirror_") || len(token) < 59 {
		t.Fatalf("%s, %s", token, hash)
	}
	if again, _ := identity.NewToken(); again == token {
		t.Fatal("the same token twice")
	}
	other := strings.Repeat("0", 64)
	for _, tt := range []struct{ name, text, want string }{
		{"as it is written", "tokens:\n" + identity.TokenEntry{Name: "ci", SHA256: hash}.Line(), ""},
		{"with an end", "tokens:\n" + identity.TokenEntry{Name: "ci", SHA256: hash, Expires: "2027-01-31T00:00:00Z"}.Line(), ""},
		{"a name that YAML takes for something else", "tokens:\n" + identity.TokenEntry{Name: "1e3", SHA256: other}.Line(), ""},
		{"two of a name", "tokens: [{name: ci, sha256: " + hash + "}, {name: ci, sha256: '" + other + "'}]", ""},
		{"capital digits", "tokens: [{name: ci, sha256: " + strings.ToUpper(hash) + "}]", ""},

		{"nothing", "", "the file has no token (make one with mirror token new NAME)"},
		{"no list", "tokens: ci", "tokens"},
		{"a value", "0", "t.yaml:1:1:"},
		{"a list", "[a]", "t.yaml:1:1:"},
		{"the token itself", "tokens: [{name: ci, token: " + token + "}]", "the token itself does not go here"},
		{"the token as hash", "tokens: [{name: ci, sha256: " + token + "}]", "it is not 64 hexadecimal digits"},
		{"a short hash", "tokens: [{name: ci, sha256: abcd}]", "it is not 64 hexadecimal digits"},
		{"no name", "tokens: [{sha256: " + hash + "}]", "a user has no name (write one)"},
		{"the name of a node", "tokens: [{name: 'node:a', sha256: " + hash + "}]", `"node:a" is not the name of a user`},
		{"an end that is not a time", "tokens: [{name: ci, sha256: " + hash + ", expires: tomorrow}]", "it is not a time (as in 2027-"},
		{"the same twice", "tokens: [{name: a, sha256: " + hash + "}, {name: b, sha256: " + hash + "}]", "tokens[1].sha256: this token is there already"},
		{"two mistakes", "tokens: [{name: '', sha256: x}]", "and 1 more"},
		{"not YAML", "{", "t.yaml:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := identity.ParseTokens("t.yaml", []byte(tt.text))
			if tt.want == "" && (err != nil || got == nil) {
				t.Fatal(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), token) {
				t.Errorf("the token shows: %v", err)
			}
		})
	}
}

func FuzzParseTokens(f *testing.F) {
	_, hash := identity.NewToken()
	for _, text := range []string{"", "tokens: []", "tokens:\n  - {name: a, sha256: " + hash + "}", "tokens: [{expires: x}]", "a: &a [*a]"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := identity.ParseTokens("t.yaml", text); (got == nil) == (err == nil) {
			t.Errorf("%v, %v", got, err)
		}
	})
}
