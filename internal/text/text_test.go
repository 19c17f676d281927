package text_test

import (
	"encoding/base64"
	"html"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/registrymirror/mirror/internal/text"
)

func TestLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"a b", 50, "a b"},
		{"a\r\nb\tc\x00\x1b[31m", 50, "a b c[31m"},
		{"  x  ", 50, "x"},
		{"a\u2028b\u00a0c\u202ed", 50, "a b cd"},
		{"bad \xff byte", 50, "bad byte"},
		{"bad\ufffdbyte", 50, "bad byte"},
		{"hun\x00ter\u200b22", 50, "hunter22"},
		{"abcdefghij", 8, "abcde..."},
		{"ééééé", 8, "éé..."},
		{"\x00", 8, ""},
	} {
		if got := text.Line(tt.in, tt.limit); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestFirstLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		secrets    []string
		want       string
	}{
		{"plain", "vault is sealed", nil, "vault is sealed"},
		{"first that says something", "\n \t\r\n\x00\n  no key \nmore", nil, "no key"},
		{"secret", "token s3cr3t-x is bad", []string{"s3cr3t-x"}, "token *** is bad"},
		{"secret in pieces", "token s3c\x00r3t\u200b-x is bad", []string{"s3cr3t-x"}, "token *** is bad"},
		{"secret of two lines", "one\ntwo", []string{"one\ntwo"}, "***"},
		{"cut through a secret", strings.Repeat("x", 35) + "s3cr3t-x", []string{"s3cr3t-x"}, strings.Repeat("x", 35) + "***"},
		{"long", strings.Repeat("é", 50), nil, strings.Repeat("é", 18) + "..."},
	} {
		if got := text.FirstLine(tt.text, 40, tt.secrets...); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"short", 10, "short"},
		{"one two three", 10, "one two..."},
		{"one, two three four", 13, "one, two..."},
		{"abcdefghijkl", 8, "abcde..."},
		{"ääääää", 8, "ää..."},
		{"abc", 2, ".."},
		{"abc", 0, ""},
	} {
		if got := text.Cut(tt.in, tt.limit); got != tt.want {
			t.Errorf("%q to %d: %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
}

func TestHide(t *testing.T) {
	t.Parallel()
	const secret = "p/w+1=<"
	for _, form := range []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret),
		base64.StdEncoding.EncodeToString([]byte(secret)),
	} {
		if got := text.Hide("you sent "+form+" to us", "", secret); got != "you sent *** to us" {
			t.Errorf("%q: %q", form, got)
		}
	}
	for in, want := range map[string]string{
		"the end":       "the end", // too short to be one
		"longer-secret": "***",     // one within another
		"a secret":      "a ***",
	} {
		if got := text.Hide(in, "e", "the", "secret", "longer-secret"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("x secret y\nz", "secret", 20)
	f.Add("a%20b", "a b", 3)
	f.Add("\xff\u202e é", "hunter22", -1)
	f.Fuzz(func(t *testing.T, s, secret string, limit int) {
		limit %= 1000
		for _, got := range []string{text.Line(s, limit), text.FirstLine(s, limit, secret)} {
			if len(got) > max(limit, 0) || !utf8.ValidString(got) {
				t.Errorf("%q to %d: %q", s, limit, got)
			}
			if strings.ContainsFunc(got, func(r rune) bool { return r != ' ' && (unicode.IsSpace(r) || !unicode.IsPrint(r)) }) {
				t.Errorf("%q: %q", s, got)
			}
		}
		if utf8.ValidString(s) && !utf8.ValidString(text.Cut(s, limit)) {
			t.Errorf("%q cut to %d: %q", s, limit, text.Cut(s, limit))
		}
		if len(secret) >= 4 && !strings.Contains(secret, "*") && strings.Contains(text.Hide(s, secret), secret) {
			t.Errorf("%q is in %q", secret, text.Hide(s, secret))
		}
	})
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 5 << 20: "5 MiB", 3 << 40: "3 TiB", 5000 << 40: "4.9 PiB",
	} {
		if got := text.Size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour: "1h", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s",
		168 * time.Hour: "168h", 10 * time.Second: "10s", 1500 * time.Millisecond: "1.5s",
	} {
		if got := text.Duration(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}
