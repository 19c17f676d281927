package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

// ends counts why connections ended.
type ends struct {
	mu   sync.Mutex
	seen map[server.ConnEnd]int
}

func (e *ends) add(why server.ConnEnd) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil {
		e.seen = make(map[server.ConnEnd]int)
	}
	e.seen[why]++
}

func (e *ends) of(why server.ConnEnd) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[why]
}

// watchedTLS serves over TLS with HTTP/2, and counts why connections end.
func watchedTLS(t *testing.T, s *server.Server, log *testlog.Log) (*httptest.Server, *ends) {
	t.Helper()
	var seen ends
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = s.HTTPServer(nil, true)
	ts.Listener = server.Listen(ts.Listener, server.ListenOptions{Ended: seen.add, Log: slog.New(slog.NewTextHandler(log, nil))})
	ts.EnableHTTP2 = true
	ts.StartTLS()
	t.Cleanup(ts.Close)
	return ts, &seen
}

// attacker is a client that writes HTTP/2 frames.
type attacker struct {
	t     *testing.T
	conn  net.Conn
	frame *http2.Framer
	path  string
	next  uint32 // stream
	head  bytes.Buffer
	coder *hpack.Encoder
	read  chan struct{}             // closed when the connection has ended
	reset chan http2.RSTStreamFrame // the first reset of a stream by the server
}

func attack(t *testing.T, ts *httptest.Server) *attacker {
	t.Helper()
	pool := ts.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c, err := tls.Dial("tcp", ts.Listener.Addr().String(), &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}, ServerName: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	a := &attacker{t: t, conn: c, frame: http2.NewFramer(c, c), path: "/v2/a/manifests/b", next: 1, read: make(chan struct{}), reset: make(chan http2.RSTStreamFrame, 1)}
	a.coder = hpack.NewEncoder(&a.head)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := a.frame.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(a.read)
		for { // acknowledgements: a client that reads none of them is ended by net/http
			f, err := a.frame.ReadFrame()
			if err != nil {
				return
			}
			if f, ok := f.(*http2.RSTStreamFrame); ok {
				select {
				case a.reset <- *f:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-a.read
	})
	return a
}

// request begins a request, with all of its header or without its end.
func (a *attacker) request(whole bool) (stream uint32, err error) {
	a.head.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "m"}, {":path", a.path}} {
		if err := a.coder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return 0, err
		}
	}
	stream = a.next
	a.next += 2
	return stream, a.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: a.head.Bytes(), EndStream: true, EndHeaders: whole})
}

// waiting answers a manifest when its client has left, and says when a request has come.
type waiting struct {
	*puller
	begun, ended chan struct{}
}

func (w *waiting) Manifest(ctx context.Context, _ pull.Ask) (*pull.Content, error) {
	w.begun <- struct{}{}
	<-ctx.Done()
	w.ended <- struct{}{}
	return nil, context.Cause(ctx)
}

// Frames that cost the client nothing end its connection, which is counted and logged, and so do requests that are reset at once. A
// connection beside it is served.
func TestHTTP2Floods(t *testing.T) {
	t.Parallel()
	const frames = 4_000 // far more than are taken
	for name, send := range map[string]func(a *attacker, w *waiting, i int) error{
		"PING":          func(a *attacker, _ *waiting, i int) error { return a.frame.WritePing(false, [8]byte{byte(i)}) },
		"SETTINGS":      func(a *attacker, _ *waiting, _ int) error { return a.frame.WriteSettings() },
		"WINDOW_UPDATE": func(a *attacker, _ *waiting, i int) error { return a.frame.WriteWindowUpdate(0, 1) },
		"PRIORITY": func(a *attacker, _ *waiting, i int) error {
			return a.frame.WritePriority(3, http2.PriorityParam{StreamDep: 1})
		},
		"frames of no known kind":      func(a *attacker, _ *waiting, _ int) error { return a.frame.WriteRawFrame(0xfa, 0, 0, nil) },
		"CONTINUATION without content": func(a *attacker, _ *waiting, i int) error { return a.continuation(i, nil) },
		"CONTINUATION": func(a *attacker, _ *waiting, i int) error {
			return a.continuation(i, []byte("\x00\x01a\x7f\x00"+strings.Repeat("x", 127)))
		},
		"requests that are reset": func(a *attacker, w *waiting, _ int) error {
			stream, err := a.request(true)
			if err != nil {
				return err
			}
			select { // one at a time: net/http alone ends a connection whose requests wait to begin
			case <-w.begun:
			case <-a.read:
				return io.EOF
			}
			err = a.frame.WriteRSTStream(stream, http2.ErrCodeCancel)
			<-w.ended
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &waiting{puller: &puller{}, begun: make(chan struct{}), ended: make(chan struct{})}
			o := options(&puller{})
			o.Puller = w
			var log testlog.Log
			ts, seen := watchedTLS(t, server.New(o), &log)
			a := attack(t, ts)
			sent := 0
			for i := range frames {
				if err := send(a, w, i); err != nil {
					break
				}
				sent++
			}
			select {
			case <-a.read:
			case <-time.After(10 * time.Second):
				t.Fatalf("the connection is open after %d of them", sent)
			}
			if name == "CONTINUATION" { // net/http ends that one: the header is too large
				return
			}
			if n := seen.of(server.ByFlood); n != 1 {
				t.Errorf("%d connections were counted, after %d", n, sent)
			}
			if text := log.Take(); !strings.Contains(text, "floods it with HTTP/2 frames") {
				t.Errorf("logged: %q", text)
			}
			resp, err := ts.Client().Get(ts.URL + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		})
	}
}

// continuation adds to a header that does not end.
func (a *attacker) continuation(i int, fragment []byte) error {
	if i == 0 {
		_, err := a.request(false)
		return err
	}
	return a.frame.WriteContinuation(a.next-2, false, fragment)
}

// A client that pulls over HTTP/2 stays within what it may send: many requests, large blobs, some that it gives up.
func TestHTTP2FloodsSparePulls(t *testing.T) {
	t.Parallel()
	content, small := pattern(32<<20), []byte("{}")
	object, size := hold(content)
	var log testlog.Log
	ts, seen := watchedTLS(t, server.New(options(&puller{
		object: object, size: size, manifest: &pull.Content{Digest: sum(small), Bytes: small, Size: int64(len(small)), MediaType: "t"},
	})), &log)
	blob, manifest := ts.URL+"/v2/a/blobs/"+string(sum(content)), ts.URL+"/v2/a/manifests/b"
	get := func(url string, most int64) error {
		resp, err := ts.Client().Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(resp.Body, most))
		if err != nil || resp.StatusCode != 200 || resp.ProtoMajor != 2 || n != min(most, size) && url == blob {
			return fmt.Errorf("%s %s: %d bytes, %w", resp.Proto, resp.Status, n, err)
		}
		return nil
	}
	var errs []error
	for range 2000 {
		errs = append(errs, get(manifest, size))
	}
	for range 3 {
		errs = append(errs, get(blob, size))
	}
	for range 150 {
		errs = append(errs, get(blob, 1<<10)) // and leaves
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if n := seen.of(server.ByFlood); n != 0 {
		t.Errorf("%d connections were ended as floods", n)
	}
}

// A client whose header does not come is closed, and so is one that connects and says nothing, or begins a handshake; each is counted. One that
// is idle between requests is not counted.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing": "", "half a header": "GET /healthz HTTP/1.1\r\nHost: m\r\nX: ", "after a request": "GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n|GET /h",
		"idle": "GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen ends
			s := server.New(options(&puller{}))
			ts := httptest.NewUnstartedServer(nil)
			ts.Config = s.HTTPServer(nil, false)
			ts.Config.ReadHeaderTimeout /= 100 // of what there is
			ts.Config.IdleTimeout /= 1000
			ts.Listener = server.Listen(ts.Listener, server.ListenOptions{Ended: seen.add})
			ts.Start()
			t.Cleanup(ts.Close)
			c, err := net.Dial("tcp", ts.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			first, second, again := strings.Cut(text, "|")
			if _, err := io.WriteString(c, first); err != nil {
				t.Fatal(err)
			}
			if again {
				if _, err := c.Read(make([]byte, 1<<10)); err != nil { // the first answer
					t.Fatal(err)
				}
				if _, err := io.WriteString(c, second); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("the connection stays open: %v", err)
			}
			want := 1
			if name == "idle" {
				want = 0
			}
			if n := seen.of(server.BySlowHeader); n != want {
				t.Errorf("%d were counted", n)
			}
		})
	}
}
