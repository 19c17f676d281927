package upstream_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream"
)

func TestParseChallenges(t *testing.T) {
	t.Parallel()
	type ch = upstream.Challenge
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
			if diff := cmp.Diff(tt.want, upstream.ParseChallenges(tt.values...)); diff != "" {
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
		from, end, size, ok := upstream.ParseContentRange(v)
		if got := fmt.Sprint(from, end, size, ok); got != want {
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
		if u := upstream.NextLink([]string{tt.link}, at); u != nil {
			got = u.String()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.link, got, tt.want)
		}
	}
}

func TestReadErrorBody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body, contentType string
		kind                    upstream.BodyKind
		code, message           string
	}{
		{
			"spec", `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}`,
			"application/json",
			upstream.BodyErrors, "MANIFEST_UNKNOWN", "manifest unknown",
		},
		{
			"spec as text", `{"errors":[{"code":"DENIED","message":"denied"}]}`, "text/plain", upstream.BodyErrors, "DENIED",
			"denied",
		},
		{
			"detail only", `{"errors":[{"code":"UNKNOWN","message":"","detail":"upstream said 429"}]}`, "",
			upstream.BodyErrors, "UNKNOWN", "upstream said 429",
		},
		{
			"artifactory", `{"errors":[{"status":403,"message":"blocked by Xray"}]}`, "", upstream.BodyErrors, "",
			"blocked by Xray",
		},
		{"numeric code", `{"errors":[{"code":403,"message":"no"}]}`, "", upstream.BodyErrors, "403", "no"},
		{
			"docker hub token", `{"details":"incorrect username or password"}`, "", upstream.BodyDetails, "",
			"incorrect username or password",
		},
		{"message", `{"message":"rate limited","code":1}`, "", upstream.BodyMessage, "", "rate limited"},
		{
			"oauth", `{"error":"invalid_grant","error_description":"refresh token expired"}`, "", upstream.BodyMessage, "",
			"invalid_grant refresh token expired",
		},
		{"text", "Not Authorized\n", "text/plain", upstream.BodyText, "", "Not Authorized"},
		{"broken JSON", `{"errors":[`, "application/json", upstream.BodyText, "", `{"errors":[`},
		{
			"html", `<html><head><TITLE>502 Bad Gateway</TITLE></head><body>x</body></html>`, "text/html", upstream.BodyHTML,
			"", "502 Bad Gateway",
		},
		{
			"html without type", "<!DOCTYPE html>\n<body><script>x()</script><h1>Blocked &amp; logged</h1></body>", "",
			upstream.BodyHTML, "", "Blocked & logged",
		},
		{
			"xml", `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`,
			"application/xml",
			upstream.BodyXML, "AccessDenied", "Request has expired",
		},
		{"empty", " \n", "text/html", upstream.BodyNone, "", ""},
		{"other JSON", `{"a":1}`, "application/json", upstream.BodyText, "", `{"a":1}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kind, code, message := upstream.ReadErrorBody([]byte(tt.body), tt.contentType)
			message = upstream.OneLine(message, 300)
			if kind != tt.kind || code != tt.code || message != tt.message {
				t.Errorf("got %q %q %q, want %q %q %q", kind, code, message, tt.kind, tt.code, tt.message)
			}
		})
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	cred := auth.Credential{Username: "bot", Password: auth.NewSecret("hunter22"), Identity: auth.NewSecret("refresh-1")}
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJib3QifQ.c2lnbmF0dXJl"
	for _, tt := range []struct{ in, want string }{
		{
			"You have reached your pull rate limit as 'alice': dckr_jti_9Lg3-x_Y=. Upgrade.",
			"You have reached your pull rate limit as '***': dckr_jti_***. Upgrade.",
		},
		{"token " + jwt + " is bad", "token *** is bad"},
		{
			"see https://bucket.s3.amazonaws.com/sha256/aa?X-Amz-Signature=abc&X-Amz-Date=1 now",
			"see https://bucket.s3.amazonaws.com/sha256/aa?*** now",
		},
		{"https://user:pw@host/x", "https://***@host/x"},
		{"wrong password hunter22", "wrong password ***"},
		{"refresh-1 has expired", "*** has expired"},
		{"got Basic Ym90Omh1bnRlcjIy", "got Basic ***"},
		{"got Ym90Omh1bnRlcjIy", "got ***"},
		{"Bearer abcdefghijklmnop", "Bearer ***"},
		{"ghp_abcdefgh123 and dckr_pat_abc-DEF", "ghp_*** and dckr_pat_***"},
		{"manifest for as 'is' unknown", "manifest for as '***' unknown"},
		{"nothing to hide: repository:library/nginx:pull", "nothing to hide: repository:library/nginx:pull"},
	} {
		if got := upstream.Redact(tt.in, cred); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
	// In each form in which a secret is sent, or written where it was sent to.
	cred = auth.Credential{Username: "bot", Password: auth.NewSecret("p/w+1=<")}
	login := base64.StdEncoding.EncodeToString([]byte("bot:p/w+1=<"))
	for _, in := range []string{
		"p/w+1=<", url.QueryEscape("p/w+1=<"), url.PathEscape("p/w+1=<"), "p/w+1=&lt;", login, url.QueryEscape(login),
		strings.TrimRight(login, "="), base64.URLEncoding.EncodeToString([]byte("bot:p/w+1=<")),
		base64.StdEncoding.EncodeToString([]byte("p/w+1=<")),
	} {
		if got := upstream.Redact("you sent "+in+" to us", cred); got != "you sent *** to us" {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		n    int
		want string
	}{
		{"a\r\nb\tc\x00\x1b[31m", 50, "a b c[31m"},
		{"  x  ", 50, "x"},
		{"abcdefghij", 8, "abcde..."},
		{"ééééé", 8, "éé..."},
		{"bad \xff byte", 50, "bad byte"},
	} {
		if got := upstream.OneLine(tt.in, tt.n); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestTokenLife(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	jwt := func(claims string) string { return "e30." + strings.TrimRight(b64(claims), "=") + ".c2ln" }
	for _, tt := range []struct {
		name, value, expiresIn string
		want                   time.Duration
	}{
		{"said", "opaque", "300", 5 * time.Minute},
		{"said as text", "opaque", `"300"`, 5 * time.Minute},
		{"said wins over the token", jwt(`{"exp":1003600}`), "300", 5 * time.Minute},
		{"JWT", jwt(`{"exp":1003600}`), "", time.Hour},
		{"JWT of another clock", jwt(`{"iat":500000,"exp":503600}`), "", time.Hour},
		{"JWT that is over", jwt(`{"exp":999000}`), "", time.Minute},
		{"nobody says", "opaque", "", time.Minute},
		{"nonsense", "a.b.c", "null", time.Minute},
		{"negative", "opaque", "-5", time.Minute},
		{"for ever", "opaque", "1e300", 24 * time.Hour},
		{"JWT for ever", jwt(`{"exp":1e18}`), "", 24 * time.Hour},
	} {
		if got := upstream.LifeOf(tt.value, tt.expiresIn, now); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
