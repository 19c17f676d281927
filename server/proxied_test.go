package server_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pires/go-proxyproto"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

func networks(list ...string) (p client.Proxies) {
	for _, text := range list {
		p = append(p, netip.MustParsePrefix(text))
	}
	return p
}

// Turns and bytes are shared out by the address, which a client can't choose.
func TestPeers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ from, forwarded, node, want string }{
		{from: "192.0.2.9:99", want: ""}, // as the client
		{from: "192.0.2.9:99", node: "node-7", want: "192.0.2.9"},
		{from: "192.0.2.9:99", forwarded: "192.0.2.1", node: "node-7", want: "192.0.2.9"},
		{from: "10.0.0.1:99", forwarded: "192.0.2.1", node: "node-7", want: "192.0.2.1"},
		{from: "[2001:db8:1:2:3::7]:99", want: "2001:db8:1:2::/64"},
		{from: "[2001:db8:1:2:3::8]:99", node: "node-8", want: "2001:db8:1:2::/64"},
		{from: "[::ffff:192.0.2.9]:99", node: "node-7", want: "192.0.2.9"},
	} {
		t.Run(tt.from+" "+tt.forwarded+" "+tt.node, func(t *testing.T) {
			t.Parallel()
			p := &puller{manifest: &pull.Content{Digest: sum([]byte("{}")), Bytes: []byte("{}"), Size: 2, MediaType: "t"}}
			o := options(p)
			o.Proxies = networks("10.0.0.0/8")
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/a/manifests/b", nil)
			r.RemoteAddr = tt.from
			if tt.forwarded != "" {
				r.Header.Add("X-Forwarded-For", tt.forwarded)
			}
			if tt.node != "" {
				r.Header.Set("Mirror-Node", tt.node)
			}
			server.New(o).ServeHTTP(httptest.NewRecorder(), r)
			if got := p.asks[0].Peer; got != tt.want {
				t.Errorf("peer %q, want %q", got, tt.want)
			}
		})
	}
}

// proxied sends a preface and a request, and returns the answer's status and body.
func proxied(t *testing.T, ts *httptest.Server, preface, path string) (int, []byte, error) {
	t.Helper()
	c, err := net.Dial("tcp", ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// In one piece: the bytes behind the preface must not be lost.
	if _, err := io.WriteString(c, preface+"GET "+path+" HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

func header(t *testing.T, version byte, command proxyproto.ProtocolVersionAndCommand, from, to string) string {
	t.Helper()
	src, dst := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(to))
	family := proxyproto.TCPv4
	if src.IP.To4() == nil {
		family = proxyproto.TCPv6
	}
	h := proxyproto.Header{Version: version, Command: command, TransportProtocol: family, SourceAddr: src, DestinationAddr: dst}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A trusted proxy names the client before the client's first byte, in both versions, or does not; sendfile works all the
// same. Other proxies are refused.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	content := pattern(9 << 20)
	const from, to = "192.0.2.1:4711", "192.0.2.2:443"
	v2 := header(t, 2, proxyproto.PROXY, from, to)
	for _, tt := range []struct {
		name, preface string
		proxies       client.Proxies
		status        int
		client, warns string
	}{
		{"version 1", header(t, 1, proxyproto.PROXY, from, to), networks("127.0.0.0/8"), 200, "192.0.2.1", ""},
		{"version 2", v2, networks("127.0.0.0/8"), 200, "192.0.2.1", ""},
		{"IPv6", header(t, 2, proxyproto.PROXY, "[2001:db8::7]:1", "[2001:db8::8]:2"), networks("127.0.0.0/8"), 200, "2001:db8::7", ""},
		{"a check of the proxy's own", header(t, 2, proxyproto.LOCAL, from, to), networks("127.0.0.0/8"), 200, "127.0.0.1", ""},
		{"an unknown client", "PROXY UNKNOWN\r\n", networks("127.0.0.0/8"), 200, "127.0.0.1", ""},
		{"none", "", networks("127.0.0.0/8"), 200, "127.0.0.1", ""},
		{"from an address that is not a proxy", v2, networks("10.0.0.0/8"), 400, "", "trustedProxies"},
		{"while there are no proxies", v2, nil, 400, "", "trustedProxies"},
		{"a broken one", "PROXY TCP4 192.0.2.1 nonsense\r\n", networks("127.0.0.0/8"), 400, "", ""},
		{"version 1, while there are no proxies", header(t, 1, proxyproto.PROXY, from, to), nil, 400, "", "trustedProxies"},
		{"one without an end", "PROXY " + strings.Repeat("x", 200), networks("127.0.0.0/8"), 400, "", ""},
		{"a broken one of version 2", v2[:12] + "\xff\xff\xff\xff", networks("127.0.0.0/8"), 400, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			open, read := onDisk(t, content)
			var seen records
			var log testlog.Log
			o := options(&puller{object: open, size: int64(len(content))})
			o.Observe, o.Proxies = seen.observe, tt.proxies
			s := server.New(o)
			ts := serveOn(t, s, func(l net.Listener) net.Listener {
				return server.Listen(l, server.ListenOptions{Proxies: tt.proxies, Log: slog.New(slog.NewTextHandler(&log, nil))})
			})
			status, body, err := proxied(t, ts, tt.preface, "/v2/a/blobs/"+string(sum(content)))
			if status != tt.status && (tt.status == 200 || err == nil) { // a refused connection may end before its answer is read
				t.Fatalf("%d, %v, want %d", status, err, tt.status)
			}
			if got := log.String(); (got != "") != (tt.warns != "") || !strings.Contains(got, tt.warns) {
				t.Errorf("log: %s", got)
			}
			if tt.status != 200 {
				return
			}
			if n := read.Load(); !bytes.Equal(body, content) || n > 512 {
				t.Errorf("%d bytes, of which %d were read by the process", len(body), n)
			}
			if err := s.Wait(t.Context()); err != nil { // the client has its bytes before the request is observed
				t.Fatal(err)
			}
			var clients []string
			for _, r := range seen.all() {
				clients = append(clients, r.Client)
			}
			if diff := cmp.Diff([]string{tt.client}, clients); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A connection that is kept alive names its client once.
func TestProxyProtocolOfAKeptConnection(t *testing.T) {
	t.Parallel()
	var seen records
	o := options(&puller{manifest: &pull.Content{Digest: sum([]byte("{}")), Bytes: []byte("{}"), Size: 2, MediaType: "t"}})
	o.Observe, o.Proxies = seen.observe, networks("127.0.0.0/8")
	ts := serveOn(t, server.New(o), func(l net.Listener) net.Listener { return server.Listen(l, server.ListenOptions{Proxies: o.Proxies}) })
	text := header(t, 2, proxyproto.PROXY, "192.0.2.1:4711", "192.0.2.2:443")
	for i := range 3 {
		end := "keep-alive"
		if i == 2 {
			end = "close"
		}
		text += fmt.Sprintf("GET /v2/a/manifests/%d HTTP/1.1\r\nHost: m\r\nConnection: %s\r\n\r\n", i, end)
	}
	if answers := raw(t, ts, text); strings.Count(answers, "HTTP/1.1 200 OK") != 3 {
		t.Errorf("%s", answers)
	}
	for _, r := range seen.all() {
		if r.Client != "192.0.2.1" {
			t.Errorf("%s", r.Client)
		}
	}
}
