package header_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/upstream/header"
)

func TestParseChallenges(t *testing.T) {
	t.Parallel()
	type ch = header.Challenge
	type params = map[string]string
	for _, tt := range []struct {
		name   string
		values []string
		want   []ch
	}{
		{"none", nil, nil},
		{
			"docker hub",
			[]string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",` +
				`scope="repository:library/nginx:pull",error="invalid_token"`},
			[]ch{{"bearer", params{
				"realm": "https://auth.docker.io/token", "service": "registry.docker.io",
				"scope": "repository:library/nginx:pull", "error": "invalid_token",
			}}},
		},
		{
			"basic",
			[]string{`Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"`},
			[]ch{{"basic", params{"realm": "https://1.dkr.ecr.eu-west-1.amazonaws.com/", "service": "ecr.amazonaws.com"}}},
		},
		{
			"two values",
			[]string{`Basic realm="a"`, `Bearer realm="b"`},
			[]ch{{"basic", params{"realm": "a"}}, {"bearer", params{"realm": "b"}}},
		},
		{
			"two in one",
			[]string{`Basic realm="a", Bearer realm="b",service="c", Negotiate`},
			[]ch{{"basic", params{"realm": "a"}}, {"bearer", params{"realm": "b", "service": "c"}}, {"negotiate", params{}}},
		},
		{
			"comma in quotes",
			[]string{`Bearer realm="b",scope="repository:a:pull,push",service="s"`},
			[]ch{{"bearer", params{"realm": "b", "scope": "repository:a:pull,push", "service": "s"}}},
		},
		{"escapes", []string{`Bearer realm="a\"b\\c"`}, []ch{{"bearer", params{"realm": `a"b\c`}}}},
		{
			"unquoted",
			[]string{`Bearer realm=https://x/token, service=s`},
			[]ch{{"bearer", params{"realm": "https://x/token", "service": "s"}}},
		},
		{
			"spaces",
			[]string{`  BEARER   Realm = "a" ,  SERVICE = "b"  `},
			[]ch{{"bearer", params{"realm": "a", "service": "b"}}},
		},
		{
			"token68",
			[]string{`Negotiate YWJj==, Basic realm="a"`},
			[]ch{{"negotiate", params{}}, {"basic", params{"realm": "a"}}},
		},
		{"open quote", []string{`Bearer realm="a`}, []ch{{"bearer", params{"realm": "a"}}}},
		{"first of two realms", []string{`Bearer realm="a",realm="b"`}, []ch{{"bearer", params{"realm": "a"}}}},
		{"parameter of nothing", []string{`realm="a"`}, nil},
		{"empty", []string{"", " , ,", `""`}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, header.ParseChallenges(tt.values)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParseContentRange(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]string{
		"bytes 0-99/200": "0 100 200 true", "bytes 5-5/*": "5 6 -1 true", "Bytes 0-0/1": "0 1 1 true",
		"": "", "bytes": "", "bytes */200": "", "bytes 5-4/200": "", "bytes 0-200/200": "", "bytes 0-99": "",
		"bytes=0-99/200": "", "items 0-9/20": "", "bytes -1-9/20": "", "bytes +1-9/20": "", "bytes 0x0-9/20": "",
		"bytes 0-9/20 ": "", "bytes  0-9/20": "", "bytes 0-9/": "", "bytes 0-9223372036854775807/*": "",
		"bytes 0-99999999999999999999/*": "", "bytes 0-9/20, bytes 0-1/20": "",
	} {
		if want == "" {
			want = "0 0 0 false"
		}
		r, ok := header.ParseRange(v)
		if got := fmt.Sprint(r.From, r.End, r.Size, ok); got != want {
			t.Errorf("%q: %s, want %s", v, got, want)
		}
	}
}

func TestNextLink(t *testing.T) {
	t.Parallel()
	at, _ := url.Parse("https://reg.example/v2/a/tags/list?n=2")
	for _, tt := range []struct{ link, want string }{
		{`</v2/a/tags/list?last=b&n=2>; rel="next"`, "https://reg.example/v2/a/tags/list?last=b&n=2"},
		{`<https://reg.example/v2/a/tags/list?last=b>; rel=next`, "https://reg.example/v2/a/tags/list?last=b"},
		{`</first>; rel="first", </next?x=1>; title="a"; rel="prev next"`, "https://reg.example/next?x=1"},
		{`<?last=b>;rel="NEXT"`, "https://reg.example/v2/a/tags/list?last=b"},
		{`</v2/>; rel="prev"`, ""},
		{`</v2/`, ""},
		{`nothing`, ""},
		{``, ""},
		{`<:>; rel=next`, ""},
	} {
		got := ""
		if u, _ := header.NextLink([]string{tt.link}, at); u != nil {
			got = u.String()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.link, got, tt.want)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push"`,
		`Basic realm="a", Bearer realm=b,x="\"`, `Negotiate abc==, Digest a="b`, `=,=,"`, `a = b c`, "\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range header.ParseChallenges([]string{s, s}) {
			if c.Scheme == "" || c.Scheme != strings.ToLower(c.Scheme) || strings.ContainsAny(c.Scheme, " ,=\"") {
				t.Errorf("scheme %q", c.Scheme)
			}
			for name := range c.Params {
				if name == "" || name != strings.ToLower(name) {
					t.Errorf("parameter %q", name)
				}
			}
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{
		"bytes 0-99/200", "bytes 5-5/*", "bytes */7", "bytes -1-2/3",
		"bytes 0-9223372036854775807/*",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := header.ParseRange(s)
		if ok && (r.From < 0 || r.End <= r.From || r.Size != -1 && r.Size < r.End) {
			t.Errorf("%q: %+v", s, r)
		}
	})
}

func FuzzLink(f *testing.F) {
	for _, s := range []string{`</v2/a/tags/list?last=b>; rel="next"`, `<a>;rel=next,<b>;rel=prev`, `<<>>`, `<`} {
		f.Add(s)
	}
	at := &url.URL{Scheme: "https", Host: "reg.example", Path: "/v2/a/tags/list"}
	f.Fuzz(func(t *testing.T, s string) {
		if u, _ := header.NextLink([]string{s}, at); u != nil && !strings.Contains(strings.ToLower(s), "next") {
			t.Errorf("%q gave %s", s, u)
		}
	})
}
