package client_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/registrymirror/mirror/client"
)

func networks(list ...string) (p client.Proxies) {
	for _, text := range list {
		p = append(p, netip.MustParsePrefix(text))
	}
	return p
}

func request(t *testing.T, from, node string, forwarded []string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/a/manifests/b", nil)
	r.RemoteAddr = from
	for _, line := range forwarded {
		r.Header.Add("X-Forwarded-For", line)
	}
	if node != "" {
		r.Header.Set(client.NodeHeader, node)
	}
	return r
}

func TestName(t *testing.T) {
	t.Parallel()
	trusted := networks("10.0.0.0/8", "fd00::/8", "127.0.0.1/32")
	for _, tt := range []struct {
		name, from string
		proxies    client.Proxies
		forwarded  []string
		node, want string
	}{
		{name: "no proxy is trusted", from: "10.0.0.1:99", forwarded: []string{"192.0.2.1"}, want: "10.0.0.1"},
		{name: "another address sends it", from: "192.0.2.9:99", proxies: trusted, forwarded: []string{"192.0.2.1"}, want: "192.0.2.9"},
		{name: "a trusted proxy sends it", from: "10.0.0.1:99", proxies: trusted, forwarded: []string{"192.0.2.1"}, want: "192.0.2.1"},
		{name: "a proxy without the header", from: "10.0.0.1:99", proxies: trusted, want: "10.0.0.1"},
		{name: "an address that the client made up", from: "10.0.0.1:99", proxies: trusted, forwarded: []string{"203.0.113.7, 192.0.2.1"}, want: "192.0.2.1"},
		{name: "two proxies", from: "10.0.0.1:99", proxies: trusted, forwarded: []string{"203.0.113.7, 192.0.2.1, 10.9.9.9"}, want: "192.0.2.1"},
		{name: "in two lines", from: "10.0.0.1:99", proxies: trusted, forwarded: []string{"203.0.113.7,192.0.2.1", "10.9.9.9"}, want: "192.0.2.1"},
		{name: "proxies alone", from: "10.0.0.1:99", proxies: trusted, forwarded: []string{"10.0.0.3, 10.0.0.2"}, want: "10.0.0.3"},
		{name: "with ports", from: "[fd00::1]:99", proxies: trusted, forwarded: []string{"[2001:db8::7]:4711, 10.0.0.2:80"}, want: "2001:db8::7"},
		{name: "in brackets", from: "[fd00::1]:99", proxies: trusted, forwarded: []string{"[2001:db8::7]"}, want: "2001:db8::7"},
		{name: "IPv4 in IPv6", from: "[::ffff:10.0.0.1]:99", proxies: trusted, forwarded: []string{"::ffff:192.0.2.1"}, want: "192.0.2.1"},
		{name: "no address", from: "10.0.0.1:99", proxies: trusted, forwarded: []string{"192.0.2.1, unknown"}, want: "10.0.0.1"},
		{name: "no address behind one", from: "10.0.0.1:99", proxies: trusted, forwarded: []string{"evil\x00, 10.0.0.2"}, want: "10.0.0.2"},
		{name: "the node's own name", from: "10.0.0.1:99", proxies: trusted, forwarded: []string{"192.0.2.1"}, node: "node-7", want: "node-7"},
		{name: "IPv6", from: "[2001:db8::1:2:3:4]:99", want: "2001:db8::1:2:3:4"},
		{name: "IPv6 with a zone", from: "[fe80::1%eth0]:99", want: "fe80::1%eth0"},
		{name: "a node's name with a control character", from: "192.0.2.9:99", node: "node\x1b7", want: "192.0.2.9"},
		{name: "a node's name like that of a user", from: "192.0.2.9:99", node: "user:alice", want: "192.0.2.9"},
		{name: "a node's name like that of a service account", from: "192.0.2.9:99", node: "sa:prod/deployer", want: "192.0.2.9"},
		{name: "a node's name of several words", from: "192.0.2.9:99", node: "node  7", want: "192.0.2.9"},
		{name: "not an address", from: "a\x00pipe", want: "a?pipe"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := client.Name(request(t, tt.from, tt.node, tt.forwarded), tt.proxies); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// The client chooses neither its source by a name that it gives, nor by the IPv6 address that it takes.
func TestSource(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, from string
		forwarded  []string
		want       string
		proxies    client.Proxies
	}{
		{name: "IPv4", from: "192.0.2.9:99", want: "192.0.2.9"},
		{name: "IPv6", from: "[2001:db8::1:2:3:4]:99", want: "2001:db8::/64"},
		{name: "IPv6 with a zone", from: "[fe80::1%eth0]:99", want: "fe80::/64"},
		{name: "IPv4 in IPv6", from: "[::ffff:192.0.2.9]:99", want: "192.0.2.9"},
		{name: "an untrusted proxy's header", from: "192.0.2.9:99", forwarded: []string{"203.0.113.7"}, want: "192.0.2.9"},
		{name: "a trusted proxy's header", from: "10.0.0.1:99", forwarded: []string{"2001:db8::7"}, proxies: networks("10.0.0.0/8"), want: "2001:db8::/64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := client.Source(request(t, tt.from, "node-7", tt.forwarded), tt.proxies); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestIsNode(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"node-7": true, "node-7.example.com": true, "": false, "10.0.0.1": false, "fd00::1": false, "Node": false, "a b": false,
	} {
		if got := client.IsNode(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
