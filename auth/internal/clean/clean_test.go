package clean_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/registrymirror/mirror/auth/internal/clean"
)

func TestLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		secrets    []string
		want       string
	}{
		{"plain", "vault is sealed", nil, "vault is sealed"},
		{"first that says something", "\n \t\r\n  no key \nmore", nil, "no key"},
		{"control characters", "a\x1b[31mb\x00c\u202ed", nil, "a [31mb c d"},
		{"secret", "token s3cr3t-x is bad", []string{"s3cr3t-x"}, "token *** is bad"},
		{"escaped as in a URL", "at ?t=a%2Fb%2Bc&x=1", []string{"a/b+c"}, "at ?t=***&x=1"},
		{"one within another", "longer-secret", []string{"secret", "longer-secret"}, "***"},
		{"over two lines", "one\ntwo", []string{"one\ntwo"}, "***"},
		{"too short to be one", "the end", []string{"", "e", "the"}, "the end"},
		{"cut through a secret", strings.Repeat("x", 235) + "s3cr3t-x", []string{"s3cr3t-x"}, strings.Repeat("x", 235) + "***"},
		{"long", strings.Repeat("é", 200), nil, strings.Repeat("é", 120) + "..."},
		{"cut through a letter", "x" + strings.Repeat("é", 200), nil, "x" + strings.Repeat("é", 119) + "..."},
		{"not UTF-8", "a\xffb", nil, "a b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := clean.Line(tt.text, tt.secrets...); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzLine(f *testing.F) {
	f.Add("x secret y\nz", "secret")
	f.Add("a%20b", "a b")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := clean.Line(text, secret)
		if len(got) > 250 || strings.ContainsAny(got, "\r\n\x00\x1b") || !utf8.ValidString(got) {
			t.Errorf("%q", got)
		}
		if len(secret) >= 4 && !strings.Contains("***...", secret) && strings.Contains(clean.Redact(text, secret), secret) {
			t.Errorf("%q is in %q", secret, clean.Redact(text, secret))
		}
	})
}
