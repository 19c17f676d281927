package server_test

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

// from requests a path over a new connection from an address, and returns the status.
func from(t *testing.T, addr, source, path string) int {
	t.Helper()
	c := idle(t, addr, source)
	defer c.Close()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Errorf("%s: %v", source, err)
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// One client opens as many connections as it can, and holds them: without a request, or each with one that does not end.
// Another client is served all the same, and so is the probe.
func TestOneClientsConnectionsLeaveRoom(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		hold func(t *testing.T, h *holder, addr, source string)
		says string
	}{
		"idle": {func(t *testing.T, _ *holder, addr, source string) { idle(t, addr, source) }, "closing idle connections for new ones"},
		"busy": {func(t *testing.T, h *holder, addr, source string) { h.busy(t, addr, source) }, "connection limit reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const limit = 32
			var log testlog.Log
			content := []byte(`{}`)
			o := options(&puller{manifest: &pull.Content{Digest: sum(content), Bytes: content, Size: 2, MediaType: "t"}})
			h := newHolder(o.Puller)
			o.Puller = h
			ts := serveOn(t, server.New(o), func(l net.Listener) net.Listener {
				return server.Listen(l, server.ListenOptions{Limit: limit, Log: slog.New(slog.NewTextHandler(&log, nil))})
			})
			t.Cleanup(func() { close(h.end) })
			addr := ts.Listener.Addr().String()
			for range 4 * limit {
				tt.hold(t, h, addr, "127.0.0.66")
			}
			for i := range 10 {
				for _, path := range []string{"/v2/a/manifests/b", "/healthz"} {
					if status := from(t, addr, "127.0.0."+string(rune('1'+i%3)), path); status != 200 {
						t.Errorf("%s for another client: %d", path, status)
					}
				}
				tt.hold(t, h, addr, "127.0.0.66")
			}
			if text := log.Take(); strings.Count(text, tt.says) != 1 || !strings.Contains(text, "LimitNOFILE") {
				t.Errorf("logged once: %q", text)
			}
		})
	}
}

// A single client has all of the limit, and keeps its connections up to near it.
func TestIdleConnectionsStay(t *testing.T) {
	t.Parallel()
	ts := serveOn(t, server.New(options(&puller{})), func(l net.Listener) net.Listener {
		return server.Listen(l, server.ListenOptions{Limit: 32})
	})
	addr := ts.Listener.Addr().String()
	var list []net.Conn
	for range 28 {
		list = append(list, idle(t, addr, "127.0.0.1"))
	}
	for i, c := range list {
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 200 {
			t.Fatalf("connection %d: %v, %v", i, res, err)
		}
	}
}

// exhausted is a listener that has no file descriptor left for some connections.
type exhausted struct {
	net.Listener
	left atomic.Int32
}

func (l *exhausted) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// The log says once that no connection can be accepted, with the remedy, and the listener recovers by itself.
func TestNoDescriptorIsLogged(t *testing.T) {
	t.Parallel()
	var log testlog.Log
	ts := serveOn(t, server.New(options(&puller{})), func(l net.Listener) net.Listener {
		x := &exhausted{Listener: l}
		x.left.Store(5)
		return server.Listen(x, server.ListenOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
	})
	if status := from(t, ts.Listener.Addr().String(), "127.0.0.1", "/healthz"); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
	text := log.Take()
	if strings.Count(text, "can't be accepted") != 1 || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "too many open files") ||
		!strings.Contains(text, "LimitNOFILE") {
		t.Errorf("%q", text)
	}
}
