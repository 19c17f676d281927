package identity_test

import (
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/registrymirror/mirror/identity"
)

// hashOf is a bcrypt hash at the lowest cost, in the form that htpasswd -B writes.
func hashOf(t testing.TB, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return "$2y$" + strings.TrimPrefix(string(b), "$2a$")
}

// Lines as htpasswd, editors of Windows and people write them.
func TestParsePasswords(t *testing.T) {
	t.Parallel()
	hash := hashOf(t, "secret")
	long := "$2y$15$" + hash[7:]
	for _, tt := range []struct{ name, text, want string }{
		{"one", "alice:" + hash + "\n", ""},
		{"without the last newline", "alice:" + hash, ""},
		{"comments and empty lines", "# users\n\n  \nalice:" + hash + "\n#bob:x\n", ""},
		{"lines of Windows", "\xef\xbb\xbfalice:" + hash + "\r\nbob:" + hash + "\r\n", ""},
		{"each form of bcrypt", "a:$2a$" + hash[4:] + "\nb:$2b$" + hash[4:] + "\nc:" + hash, ""},
		{"an address as name", "alice@example.com:" + hash, ""},
		{"further fields", "alice:" + hash + ":Alice\n", ""},

		{"nothing", "", "it has no user; add one with htpasswd -B -C 10 FILE USER"},
		{"comments alone", "# alice\n", "it has no user"},
		{"htpasswd -m", "alice:$apr1$8sXc1bLi$7H0r7l6o3oQY6xk8Wvk8s0\n", `line 1, user "alice": the hash is MD5, and only bcrypt is accepted; make the line again with htpasswd -B -C 10`},
		{"htpasswd -s", "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n", "the hash is SHA-1,"},
		{"htpasswd -5", "alice:$6$rounds=5000$abc$def\n", "the hash is SHA-512,"},
		{"htpasswd -d", "alice:rqXexS6ZhobKA\n", "it has no bcrypt hash; make the line again"},
		{"htpasswd -p", "alice:secret\n", "it has no bcrypt hash"},
		{"mkpasswd", "alice:$y$j9T$abc$def\n", "the hash is yescrypt,"},
		{"crypt_blowfish before 1.1", "alice:$2x$" + hash[4:], "the hash is a faulty form of bcrypt,"},
		{"cut off", "alice:" + hash[:59], "it has no bcrypt hash"},
		{"no hash", "alice\n", "line 1 is not USER:HASH; write it with htpasswd -B -C 10"},
		{"an empty hash", "bob:" + hash + "\nalice:\n", "line 2 is not USER:HASH"},
		{"no name", ":" + hash, "line 1: a user has no name"},
		{"a name of rules", "anonymous:" + hash, "a user can't be called anonymous"},
		{"a pattern as name", "*:" + hash, `"*" is not the name of a user; write letters`},
		{"a name with a space", "al ice:" + hash, "is not the name of a user"},
		{"twice", "alice:" + hash + "\nalice:" + hash, `line 2: user "alice" is there already; remove one`},
		{"too costly", "alice:" + long, "the cost 15 takes seconds for each login; write at most 14"},
		{"too large", strings.Repeat("#", 4<<20+1), "it has more than 4 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := identity.ParsePasswords([]byte(tt.text))
			if tt.want == "" && (err != nil || p == nil) {
				t.Fatal(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), hash[7:]) {
				t.Errorf("the hash shows: %v", err)
			}
		})
	}
}

func FuzzParsePasswords(f *testing.F) {
	hash := hashOf(f, "x")
	for _, text := range []string{"", "a:" + hash, "a:" + hash + "\r\nb:$2b$04$x", "#\n:", "a:$apr1$x$y", "\xef\xbb\xbf"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := identity.ParsePasswords(text); (p == nil) == (err == nil) {
			t.Errorf("%v, %v", p, err)
		}
	})
}
