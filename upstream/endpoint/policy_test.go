package endpoint_test

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

func TestAddressClass(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"93.184.216.34": "public", "8.8.8.8": "public", "2606:2800:220:1::1": "public", "172.32.0.1": "public",
		"10.0.0.1": "private", "172.16.5.4": "private", "192.168.1.1": "private", "100.64.0.1": "private",
		"198.18.0.1": "private", "fd12:3456::1": "private", "fec0::1": "private",
		"127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback",
		"0.0.0.0": "never", "0.1.2.3": "never", "::": "never", "169.254.169.254": "never", "fe80::1": "never",
		"224.0.0.1": "never", "ff02::1": "never", "255.255.255.255": "never", "240.0.0.1": "never",
		"100.100.100.200": "never", "168.63.129.16": "never", "fd00:ec2::254": "never", "192.0.0.192": "never",
		// An address that stands for an IPv4 address is judged as that one.
		"::ffff:10.0.0.1": "private", "::ffff:127.0.0.1": "loopback", "::ffff:169.254.169.254": "never",
		"::ffff:8.8.8.8": "public", "64:ff9b::10.0.0.1": "private", "64:ff9b::169.254.169.254": "never",
		"64:ff9b::8.8.8.8": "public", "64:ff9b:1::7f00:1": "loopback", "2002:7f00:1::": "loopback",
		"2002:a9fe:a9fe::": "never", "::127.0.0.1": "loopback", "::169.254.169.254": "never", "2001::1": "never",
		// RFC 2765 and RFC 7915 (SIIT), RFC 6052 under the prefix of RFC 8215 with each length, RFC 5214 (ISATAP).
		"::ffff:0:10.0.0.1": "private", "::ffff:0:a9fe:a9fe": "never", "::ffff:0:127.0.0.1": "loopback",
		"::ffff:0:8.8.8.8": "public", "64:ff9b:1::": "private", "64:ff9b:1::8.8.8.8": "private",
		"64:ff9b:1:a9fe:a9:fe00::": "never", "64:ff9b:1:a9:fea9:fe00::": "never", "64:ff9b:1:a9:fe:a9fe::": "never",
		"64:ff9b:1:0:a9:fea9:fe00:0": "never", "64:ff9b:1:7f00:0:100::": "loopback", "64:ff9b:1:a00:0:100::": "private",
		"64:ff9b:1:ffff:ffff:ffff:808:808": "never", "64:ff9b:2::8.8.8.8": "never", "64:ff9b::1:8.8.8.8": "never",
		"2606:2800::5efe:10.0.0.1": "private", "2606:2800::200:5efe:127.0.0.1": "loopback",
		"2606:2800::5efe:a9fe:a9fe": "never", "2606:2800::300:5efe:a9fe:a9fe": "never",
		"2606:2800::5efe:8.8.8.8": "public", "fd12::5efe:169.254.169.254": "never", "fe80::5efe:8.8.8.8": "never",
		"2002:808:808::": "public", "2002:808:808::5efe:10.0.0.1": "private", "2002:a00:1::5efe:8.8.8.8": "private",
		"2001:0:0a00:1::": "never",
		// IANA's registries of special-purpose addresses, IPv4: those not globally reachable, and anycast of relays.
		"100.127.255.255": "private", "169.254.0.1": "never", "192.0.0.1": "never", "192.0.0.8": "never",
		"192.0.0.9": "never", "192.0.0.10": "never", "192.0.0.170": "never", "192.0.2.1": "private",
		"192.88.99.1": "never", "198.19.255.255": "private", "198.51.100.1": "private", "203.0.113.1": "private",
		"172.31.255.255": "private", "192.31.196.1": "public", "192.52.193.1": "public", "192.175.48.1": "public",
		"223.255.255.255": "public", "239.255.255.255": "never",
		// And IPv6.
		"::2": "never", "100::1": "private", "100:0:0:1::1": "never", "2001:1::1": "never", "2001:2::1": "never",
		"2001:3::1": "never", "2001:4:112::1": "never", "2001:10::1": "never", "2001:20::1": "never",
		"2001:30::1": "never", "2001:1ff:ffff::1": "never", "2001:200::1": "public", "2001:db8::1": "private",
		"2620:4f:8000::1": "public", "3fff::1": "private", "5f00::1": "never", "fc00::1": "private",
		"fdff:ffff::1": "private", "fd00:ec2::23": "never", "fd20:ce::254": "never", "febf::1": "never",
		"feff::1": "private", "200::1": "never", "400::1": "never", "4000::1": "never", "9000::1": "never",
		"f000::1": "never", "ff0e::1": "never",
	} {
		if got := endpoint.Class(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if got := endpoint.Class(netip.Addr{}); got != "never" {
		t.Errorf("no address: %s", got)
	}
}

func parse(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestRealmPolicy(t *testing.T) {
	t.Parallel()
	p, err := endpoint.NewPolicy([]string{"auth.example", "tokens.example:8443", "*.wild.example", "[fd00::1]:5000"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ registry, realm, want string }{
		{"https://reg.example", "https://reg.example/token", "https://reg.example/token"},
		{"https://reg.example", "https://REG.example:443/token", "https://REG.example:443/token"},
		{"https://reg.example", "/v2/token", "https://reg.example/v2/token"},
		{"https://reg.example", "https://auth.example/token", "https://auth.example/token"},
		{"https://reg.example", "https://auth.example:9000/token?a=b#frag", "https://auth.example:9000/token?a=b"},
		{"https://reg.example", "https://tokens.example:8443/", "https://tokens.example:8443/"},
		{"https://reg.example", "https://a.wild.example/", "https://a.wild.example/"},
		{"https://reg.example", "https://[fd00::1]:5000/t", "https://[fd00::1]:5000/t"},
		{"http://reg.example:5000", "http://reg.example:5000/token", "http://reg.example:5000/token"},
		{"http://reg.example:5000", "http://auth.example/token", "http://auth.example/token"},
		{"http://reg.example:5000", "https://auth.example/token", "https://auth.example/token"},
		// Never:
		{"https://reg.example", "http://reg.example/token", ""},
		{"https://reg.example", "http://reg.example:443/token", ""},
		{"https://reg.example", "https://reg.example:8443/token", ""},
		{"https://reg.example", "https://evil.example/token", ""},
		{"https://reg.example", "https://auth.example.evil.example/token", ""},
		{"https://reg.example", "https://auth.example@evil.example/token", ""},
		{"https://reg.example", "https://evil.example\\@auth.example/token", ""},
		{"https://reg.example", "https://user:pw@auth.example/token", ""},
		{"https://reg.example", "http://auth.example/token", ""},
		{"https://reg.example", "https://tokens.example/", ""},
		{"https://reg.example", "https://a.b.wild.example/", ""},
		{"https://reg.example", "https://wild.example/", ""},
		{"https://reg.example", "https://auth.example./token", ""},
		{"https://reg.example", "//evil.example/token", ""},
		{"https://reg.example", "https:auth.example", ""},
		{"https://reg.example", "https://", ""},
		{"https://reg.example", "file:///etc/passwd", ""},
		{"https://reg.example", "https://auth.example:0/", ""},
		{"https://reg.example", "https://auth.example:99999/", ""},
		{"https://reg.example", "https://auth%2eexample/", ""},
		{"https://reg.example", "https://127.0.0.1/token", ""},
		{"https://reg.example", "https://0.0.0.0/token", ""},
		{"http://127.0.0.1:5000", "http://127.1:5000/token", ""},
		{"http://127.0.0.1:5000", "http://localhost:5000/token", ""},
		{"http://127.0.0.1:5000", "http://127.0.0.1:5001/token", ""},
	} {
		u, err := p.Realm(parse(t, tt.registry), tt.realm)
		got := ""
		if u != nil {
			got = u.String()
		}
		if got != tt.want {
			t.Errorf("realm %s of %s: %q, want %q", tt.realm, tt.registry, got, tt.want)
		}
		if _, ok := errors.AsType[*fault.RealmError](err); ok != (tt.want == "") {
			t.Errorf("realm %s of %s: error %v", tt.realm, tt.registry, err)
		}
	}
}

func TestRedirectPolicy(t *testing.T) {
	t.Parallel()
	p, err := endpoint.NewPolicy(nil, []string{"s3.corp", "10.9.9.9", "minio.corp:9000"})
	if err != nil {
		t.Fatal(err)
	}
	const public, private, loopback = "93.184.216.34:443", "10.0.0.7:443", "127.0.0.1:5000"
	for _, tt := range []struct {
		name, from, location, addr string
		proxied                    bool
		want, why                  string
	}{
		{"CDN", "https://reg.example/x", "https://cdn.example/y?sig=1", public, false, "https://cdn.example/y?sig=1", ""},
		{"relative", "https://reg.example/v2/x", "/down/y", public, false, "https://reg.example/down/y any", ""},
		{
			"same origin", "https://reg.example/v2/x", "https://REG.example:443/y", public, false,
			"https://REG.example:443/y any", "",
		},
		{"named", "https://reg.example/x", "https://s3.corp/y", public, false, "https://s3.corp/y any", ""},
		{
			"named address", "https://reg.example/x", "https://10.9.9.9:9000/y", public, false, "https://10.9.9.9:9000/y any",
			"",
		},
		{
			"named port", "https://reg.example/x", "https://minio.corp:9000/y", public, false, "https://minio.corp:9000/y any",
			"",
		},
		{
			"other port is to be checked", "https://reg.example/x", "https://minio.corp:9001/y", public, false,
			"https://minio.corp:9001/y", "",
		},
		{
			"user info goes", "https://reg.example/x", "https://u:p@cdn.example/y#f", public, false, "https://cdn.example/y",
			"",
		},
		{"http to https", "http://reg.example/x", "https://cdn.example/y", public, false, "https://cdn.example/y", ""},
		{"private from private", "https://10.0.0.7/x", "https://10.0.0.8/y", private, false, "https://10.0.0.8/y", ""},
		{
			"this machine from this machine", "http://127.0.0.1:5000/x", "http://127.0.0.1:9000/y", loopback, false,
			"http://127.0.0.1:9000/y", "",
		},
		{
			"public address behind a proxy", "https://reg.example/x", "https://8.8.8.8/y", public, true, "https://8.8.8.8/y",
			"",
		},
		{"named behind a proxy", "https://reg.example/x", "https://s3.corp/y", public, true, "https://s3.corp/y any", ""},

		{"downgrade", "https://reg.example/x", "http://cdn.example/y", public, false, "", "to http from https"},
		{
			"downgrade on the same host", "https://reg.example/x", "http://reg.example/y", public, false, "",
			"to http from https",
		},
		{"missing", "https://reg.example/x", "", public, false, "", "no Location"},
		{"malformed", "https://reg.example/x", "https://a b/", public, false, "", "malformed Location"},
		{"no host", "https://reg.example/x", "https:///y", public, false, "", "malformed Location"},
		{"file", "https://reg.example/x", "file:///etc/passwd", public, false, "", "malformed Location"},
		{"ftp", "https://reg.example/x", "ftp://cdn.example/y", public, false, "", "malformed Location"},
		{"private from public", "https://reg.example/x", "https://10.0.0.8/y", public, false, "", "to a private address"},
		{"loopback from public", "https://reg.example/x", "https://127.0.0.1/y", public, false, "", "to a private address"},
		{"loopback from private", "https://reg.example/x", "https://127.0.0.1/y", private, false, "", "to a private address"},
		{
			"metadata from private", "http://10.0.0.7/x", "http://169.254.169.254/latest", private, false, "",
			"to a private address",
		},
		{
			"metadata from loopback", "http://127.0.0.1/x", "http://169.254.169.254/latest", loopback, false, "",
			"to a private address",
		},
		{"mapped", "https://reg.example/x", "https://[::ffff:10.0.0.8]/y", public, false, "", "to a private address"},
		{"unknown address", "https://reg.example/x", "https://10.0.0.8/y", "pipe", false, "", "to a private address"},
		{"private behind a proxy", "https://reg.example/x", "https://10.0.0.8/y", public, true, "", "to a private address"},
		{
			"unnamed behind a proxy", "https://reg.example/x", "https://intranet.corp/y", public, true, "",
			"behind a proxy, and not in redirectHosts",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			registry := parse(t, tt.from)
			registry.Path = ""
			u, anywhere, err := p.Redirect(registry, parse(t, tt.from), tt.location, tt.addr, tt.proxied)
			got, why := "", ""
			if u != nil {
				got = u.String()
			}
			if anywhere {
				got += " any"
			}
			if e, ok := errors.AsType[*fault.RedirectError](err); ok {
				why = e.Why
			}
			if got != tt.want || why != tt.why || (err == nil) != (tt.why == "") {
				t.Errorf("got %q, %v; want %q, %q", got, err, tt.want, tt.why)
			}
		})
	}
}

func TestNamesOfTheOperator(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "https://auth.example", "auth.example/path", "auth.example:http", "auth.example:0",
		"user@auth.example", "a b", "auth.example:70000", "**.example", "a*.example",
	} {
		if _, err := endpoint.NewPolicy([]string{bad}, nil); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestBlobTransportCarriesNoCredentials(t *testing.T) {
	t.Parallel()
	sent := 0
	rt := endpoint.BareTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
		sent++
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
	}))
	for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://cdn.example/", nil)
		req.Header.Set(name, "x")
		if resp, err := rt.RoundTrip(req); err == nil {
			resp.Body.Close()
			t.Errorf("a request with %s passed", name)
		}
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://cdn.example/", nil)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if sent != 1 {
		t.Errorf("%d requests passed, want 1", sent)
	}
}

// FuzzRealm compares each realm that a challenge names with the set that the operator named.
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
	p, err := endpoint.NewPolicy([]string{"auth.example", "tokens.example:9"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, realm string, secure bool) {
		registry := &url.URL{Scheme: "http", Host: "reg.example:5000"}
		if secure {
			registry.Scheme = "https"
		}
		u, err := p.Realm(registry, realm)
		if err != nil {
			if u != nil {
				t.Errorf("%q: a URL and an error", realm)
			}
			return
		}
		// As the HTTP client reads it, since that decides.
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

// FuzzRedirect compares each Location that a server sends with the rules.
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
	p, err := endpoint.NewPolicy(nil, []string{"s3.corp"})
	if err != nil {
		f.Fatal(err)
	}
	registry := &url.URL{Scheme: "https", Host: "reg.example"}
	from := &url.URL{Scheme: "https", Host: "reg.example", Path: "/v2/a/blobs/sha256:0"}
	f.Fuzz(func(t *testing.T, location, addr string, proxied bool) {
		u, anywhere, err := p.Redirect(registry, from, location, addr, proxied)
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
		if err == nil && endpoint.Class(ip) != "public" {
			near, err := netip.ParseAddrPort(addr)
			if err != nil || endpoint.Class(near.Addr()) == "public" || endpoint.Class(ip) == "never" ||
				endpoint.Class(ip) == "loopback" && endpoint.Class(near.Addr()) != "loopback" {
				t.Errorf("Location %q was accepted from %s", location, addr)
			}
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
