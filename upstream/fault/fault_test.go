package fault_test

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/upstream/fault"
)

func TestReadErrorBody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body, contentType string
		kind                    fault.BodyKind
		code, message           string
	}{
		{
			"spec", `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}`,
			"application/json",
			fault.BodyErrors, "MANIFEST_UNKNOWN", "manifest unknown",
		},
		{
			"spec as text", `{"errors":[{"code":"DENIED","message":"denied"}]}`, "text/plain", fault.BodyErrors, "DENIED",
			"denied",
		},
		{
			"detail only", `{"errors":[{"code":"UNKNOWN","message":"","detail":"upstream said 429"}]}`, "",
			fault.BodyErrors, "UNKNOWN", "upstream said 429",
		},
		{
			"artifactory", `{"errors":[{"status":403,"message":"blocked by Xray"}]}`, "", fault.BodyErrors, "",
			"blocked by Xray",
		},
		{"numeric code", `{"errors":[{"code":403,"message":"no"}]}`, "", fault.BodyErrors, "403", "no"},
		{
			"docker hub token", `{"details":"incorrect username or password"}`, "", fault.BodyDetails, "",
			"incorrect username or password",
		},
		{"message", `{"message":"rate limited","code":1}`, "", fault.BodyMessage, "", "rate limited"},
		{
			"oauth", `{"error":"invalid_grant","error_description":"refresh token expired"}`, "", fault.BodyMessage, "",
			"invalid_grant refresh token expired",
		},
		{"text", "Not Authorized\n", "text/plain", fault.BodyText, "", "Not Authorized"},
		{"broken JSON", `{"errors":[`, "application/json", fault.BodyText, "", `{"errors":[`},
		{
			"html", `<html><head><TITLE>502 Bad Gateway</TITLE></head><body>x</body></html>`, "text/html", fault.BodyHTML,
			"", "502 Bad Gateway",
		},
		{
			"html without type", "<!DOCTYPE html>\n<body><script>x()</script><h1>Blocked &amp; logged</h1></body>", "",
			fault.BodyHTML, "", "Blocked & logged",
		},
		{
			"xml", `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`,
			"application/xml",
			fault.BodyXML, "AccessDenied", "Request has expired",
		},
		{"empty", " \n", "text/html", fault.BodyNone, "", ""},
		{"other JSON", `{"a":1}`, "application/json", fault.BodyText, "", `{"a":1}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kind, code, message := fault.ReadErrorBody([]byte(tt.body), tt.contentType)
			message = text.Line(message, 300)
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
		if got := fault.Redact(tt.in, cred); got != tt.want {
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
		if got := fault.Redact("you sent "+in+" to us", cred); got != "you sent *** to us" {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func FuzzErrorBody(f *testing.F) {
	for _, s := range []string{
		`{"errors":[{"code":"A","message":"b"}]}`, "<html><title>x</title>",
		"<Error><Code>A</Code></Error>", "hun\x00ter22", "{", "<",
	} {
		f.Add([]byte(s), "text/html")
	}
	cred := auth.Credential{Username: "bot", Password: auth.NewSecret("hunter22")}
	f.Fuzz(func(t *testing.T, b []byte, contentType string) {
		_, code, message := fault.ReadErrorBody(b, contentType)
		for _, s := range []string{code, message} {
			s = fault.Tidy(s, 300, cred)
			if len(s) > 300 || !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\t\x00\x1b") || strings.Contains(s,
				"hunter22") {
				t.Errorf("%q", s)
			}
		}
	})
}
