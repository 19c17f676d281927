package upstream_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream"
)

func FuzzChallenge(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push"`,
		`Basic realm="a", Bearer realm=b,x="\"`, `Negotiate abc==, Digest a="b`, `=,=,"`, `a = b c`, "\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range upstream.ParseChallenges(s, s) {
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

// FuzzRealm holds whatever realm a challenge names against the set that the operator named.
func FuzzRealm(f *testing.F) {
	for _, s := range []string{
		"https://auth.example/token", "/token", "//evil.example/", "https://auth.example@evil.example/",
		"https:/\\evil.example",
		"https://auth.example:8443/x?y#z", "HTTPS://AUTH.EXAMPLE", "http://auth.example", "https://[::1]/",
		"https://auth.example%00.evil/",
		"https://tokens.example:9/", "\thttps://evil.example", "https://auth.example\t.evil.example",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	p, err := upstream.NewPolicy([]string{"auth.example", "tokens.example:9"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, realm string, secure bool) {
		endpoint := &url.URL{Scheme: "http", Host: "reg.example:5000"}
		if secure {
			endpoint.Scheme = "https"
		}
		u, err := p.Realm(endpoint, realm)
		if err != nil {
			if u != nil {
				t.Errorf("%q: a URL and an error", realm)
			}
			return
		}
		// As the HTTP client reads it, which is what counts.
		req, err := http.NewRequest(http.MethodGet, u.String(), nil)
		if err != nil {
			t.Fatalf("%q: accepted, and no request can be made: %v", realm, err)
		}
		host, port := strings.ToLower(req.URL.Hostname()), req.URL.Port()
		ok := host == "reg.example" && port == "5000" || host == "auth.example" || host == "tokens.example" && port == "9"
		if !ok || req.URL.User != nil || req.URL.Scheme != "https" && (secure || req.URL.Scheme != "http") {
			t.Errorf("realm %q was accepted as %s", realm, u)
		}
	})
}

// FuzzRedirect holds whatever Location a server sends against the rules.
func FuzzRedirect(f *testing.F) {
	for _, s := range []string{
		"https://cdn.example/x?sig=1", "/x", "//cdn.example/", "http://cdn.example/", "https://10.0.0.1/",
		"https://[::ffff:127.0.0.1]/",
		"https://s3.corp/", "https://user@cdn.example/", "file:///x", "https://0x7f.1/", "https://127.1/",
		"https://169.254.169.254/", "",
		"https://[fe80::1%25eth0]/", "https://2130706433/",
	} {
		f.Add(s, "93.184.216.34:443", false)
		f.Add(s, "10.0.0.1:443", true)
	}
	p, err := upstream.NewPolicy(nil, []string{"s3.corp"})
	if err != nil {
		f.Fatal(err)
	}
	endpoint := &url.URL{Scheme: "https", Host: "reg.example"}
	from := &url.URL{Scheme: "https", Host: "reg.example", Path: "/v2/a/blobs/sha256:0"}
	f.Fuzz(func(t *testing.T, location, addr string, proxied bool) {
		u, anywhere, err := p.Redirect(endpoint, from, location, addr, proxied)
		if err != nil {
			if u != nil {
				t.Errorf("%q: a URL and an error", location)
			}
			return
		}
		req, err := http.NewRequest(http.MethodGet, u.String(), nil)
		if err != nil {
			t.Fatalf("%q: accepted, and no request can be made: %v", location, err)
		}
		host := strings.ToLower(req.URL.Hostname())
		named := host == "s3.corp" || host == "reg.example" && (req.URL.Port() == "" || req.URL.Port() == "443")
		if req.URL.Scheme != "https" || req.URL.User != nil || anywhere != named {
			t.Errorf("Location %q was accepted as %s, anywhere %t", location, u, anywhere)
		}
		ip, err := netip.ParseAddr(host)
		if proxied && !named && err != nil {
			t.Errorf("Location %q was accepted behind a proxy", location)
		}
		if err == nil && upstream.Class(ip) != "public" {
			near, err := netip.ParseAddrPort(addr)
			if err != nil || upstream.Class(near.Addr()) == "public" || upstream.Class(ip) == "never" ||
				upstream.Class(ip) == "loopback" && upstream.Class(near.Addr()) != "loopback" {
				t.Errorf("Location %q was accepted from %s", location, addr)
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
		from, end, size, ok := upstream.ParseContentRange(s)
		if ok && (from < 0 || end <= from || size != -1 && size < end) {
			t.Errorf("%q: %d %d %d", s, from, end, size)
		}
	})
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
		_, code, message := upstream.ReadErrorBody(b, contentType)
		for _, s := range []string{code, message} {
			s = upstream.Tidy(s, 300, cred)
			if len(s) > 300 || !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\t\x00\x1b") || strings.Contains(s,
				"hunter22") {
				t.Errorf("%q", s)
			}
		}
	})
}

func FuzzLink(f *testing.F) {
	for _, s := range []string{`</v2/a/tags/list?last=b>; rel="next"`, `<a>;rel=next,<b>;rel=prev`, `<<>>`, `<`} {
		f.Add(s)
	}
	at := &url.URL{Scheme: "https", Host: "reg.example", Path: "/v2/a/tags/list"}
	f.Fuzz(func(t *testing.T, s string) {
		if u := upstream.NextLink([]string{s}, at); u != nil && !strings.Contains(strings.ToLower(s), "next") {
			t.Errorf("%q gave %s", s, u)
		}
	})
}
