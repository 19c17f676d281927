package server_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/share"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

func serveTLS(t *testing.T, s *server.Server, http2 bool) *httptest.Server {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = s.HTTPServer(nil, http2)
	ts.Listener = server.Listen(ts.Listener, server.ListenOptions{})
	ts.EnableHTTP2 = http2
	ts.StartTLS()
	t.Cleanup(ts.Close)
	return ts
}

// file is the object of a disk store: it embeds *os.File. It counts the bytes of Read, which sendfile does not use.
type file struct {
	*os.File
	size int64
	read *atomic.Int64
}

func (f file) Size() int64 { return f.size }

func (f file) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.read.Add(int64(n))
	return n, err
}

// plain is a file that the kernel can't send: net reads it, ahead of the written bytes.
type plain struct{ file }

func (plain) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

func onDisk(t *testing.T, content []byte) (open func() cache.Object, read *atomic.Int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	read = new(atomic.Int64)
	return func() cache.Object {
		f, err := os.Open(path)
		if err != nil {
			panic(err)
		}
		return file{f, int64(len(content)), read}
	}, read
}

// A blob on disk goes from the page cache to the socket: its bytes never pass through the process. net/http copies the
// first 512 itself, to have them in one packet with the header.
func TestSendfile(t *testing.T) {
	t.Parallel()
	content := pattern(9 << 20)
	open, read := onDisk(t, content)
	s := server.New(options(&puller{object: open, size: int64(len(content))}))
	ts := serve(t, s)
	for _, c := range []struct {
		name, ranges string
		want         []byte
		status       int
		limits       *share.Limits
	}{
		{"whole", "", content, 200, nil},
		{"range", "bytes=1000000-8000000", content[1000000:8000001], 206, nil},
		{"tail", "bytes=-5000000", content[4437184:], 206, nil},
		{"whole, in the pieces of a client's share", "", content, 200, share.New(share.Settings{Bandwidth: 1 << 40, Total: 1 << 40}, nil)},
	} {
		read.Store(0)
		s.Limit(server.ClientLimits{Limits: c.limits, ByAddress: true})
		res, body := do(t, ts, "GET", "/v2/a/blobs/"+string(sum(content)), "Range", c.ranges)
		if res.StatusCode != c.status || !bytes.Equal(body, c.want) {
			t.Errorf("%s: %s, %d bytes", c.name, res.Status, len(body))
		}
		if n := read.Load(); n > 512 {
			t.Errorf("%s: %d of %d bytes were read by the process: sendfile is lost", c.name, n, len(body))
		}
	}
}

// countingListener counts the bytes that net/http hands to a connection as a file.
type countingListener struct {
	net.Listener
	files *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c.(*net.TCPConn), l.files}, nil
}

type countingConn struct {
	*net.TCPConn
	files *atomic.Int64
}

func (c countingConn) ReadFrom(src io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(src)
	if lr, ok := src.(*io.LimitedReader); ok {
		if _, ok := lr.R.(file); ok {
			c.files.Add(n)
		}
	}
	return n, err
}

// The same without Listen: the handler keeps io.ReaderFrom of any connection.
func TestHandlerKeepsReaderFrom(t *testing.T) {
	t.Parallel()
	content := pattern(1 << 20)
	open, _ := onDisk(t, content)
	var files atomic.Int64
	s := server.New(options(&puller{object: open, size: int64(len(content))}))
	ts := serveOn(t, s, func(l net.Listener) net.Listener { return countingListener{l, &files} })
	if _, body := do(t, ts, "GET", "/v2/a/blobs/"+string(sum(content))); !bytes.Equal(body, content) {
		t.Fatalf("%d bytes, want %d", len(body), len(content))
	}
	if err := s.Wait(t.Context()); err != nil { // the client has its bytes before they are counted
		t.Fatal(err)
	}
	if n := files.Load(); n < int64(len(content))-512 {
		t.Errorf("%d bytes went out as a file, want all but the first 512 of %d", n, len(content))
	}
}

// get sends a request over a connection with small buffers, and reads the header of the answer.
func get(t *testing.T, ts *httptest.Server, path string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	t.Helper()
	nc, err := net.Dial("tcp", ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	c := nc.(*net.TCPConn)
	if err := c.SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", path)
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, br, res
}

func TestStuckClientEnds(t *testing.T) {
	t.Parallel()
	content := pattern(32 << 20)
	open, _ := onDisk(t, content)
	inMemory, _ := hold(content)
	for name, object := range map[string]func() cache.Object{"file": open, "memory": inMemory} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen records
			o := options(&puller{object: object, size: int64(len(content))})
			o.Observe = seen.observe
			s := server.New(o)
			var ended ends
			ts := serveOn(t, s, func(l net.Listener) net.Listener {
				return server.ListenWith(l, server.ListenOptions{Ended: ended.add}, 200*time.Millisecond)
			})
			get(t, ts, "/v2/a/blobs/"+string(sum(content))) // and reads no more
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := s.Wait(ctx); err != nil {
				t.Fatalf("the client that takes nothing is still served: %v", err)
			}
			q := seen.all()
			if len(q) != 1 || !q[0].Aborted || q[0].Finding != nil || q[0].Bytes >= int64(len(content)) {
				t.Errorf("observed %+v: want an aborted answer without a failure", q)
			}
			if n := ended.of(server.ByStall); n != 1 {
				t.Errorf("%d connections were counted", n)
			}
		})
	}
}

func TestSlowClientIsServed(t *testing.T) {
	t.Parallel()
	content := pattern(16 << 20)
	open, _ := onDisk(t, content)
	inMemory, _ := hold(content)
	unsendable := func() cache.Object { return plain{open().(file)} }
	const stall = 5 * time.Second // longer than a busy machine delays a test
	for name, object := range map[string]func() cache.Object{"file": open, "plain": unsendable, "memory": inMemory} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := server.New(options(&puller{object: object, size: int64(len(content))}))
			ts := serveOn(t, s, func(l net.Listener) net.Listener { return server.ListenStall(l, 0, stall) })
			_, _, res := get(t, ts, "/v2/a/blobs/"+string(sum(content)))
			// It takes longer than a client may stall.
			tick := time.NewTicker(stall / 20)
			defer tick.Stop()
			var got bytes.Buffer
			for range 30 {
				<-tick.C
				if _, err := io.CopyN(&got, res.Body, 256<<10); err != nil {
					t.Fatalf("after %d bytes: %v", got.Len(), err)
				}
			}
			if _, err := io.Copy(&got, res.Body); err != nil || !bytes.Equal(got.Bytes(), content) {
				t.Errorf("%d bytes: %v", got.Len(), err)
			}
		})
	}
}

// A client that reads a little at a time blocks writes for long; its progress shows in the queued bytes.
func TestPace(t *testing.T) {
	t.Parallel()
	type tick struct {
		n      int64
		queued int
		on     bool
	}
	for name, ticks := range map[string][]tick{
		"stands still":   {{5, 900, true}, {0, 900, true}, {0, 900, false}},
		"from the start": {{0, 900, true}, {0, 900, false}},
		"drains": {{0, 900, true}, {0, 899, true}, {0, 800, true}, {0, 800, true}, {0, 799, true}, {
			0, 799,
			true,
		}, {0, 799, false}},
		"takes something":     {{0, 900, true}, {1, 900, true}, {0, 900, true}, {1, 900, true}},
		"can't be told":       {{1, -1, true}, {0, -1, true}, {0, -1, false}},
		"can't be told again": {{0, 900, true}, {0, -1, false}},
	} {
		var p server.Pace
		for i, c := range ticks {
			if got := p.Progresses(c.n, c.queued); got != c.on {
				t.Errorf("%s: tick %d goes on: %v, want %v", name, i, got, c.on)
			}
		}
	}
}

// Deadlines of callers hold: closing a TLS connection sets one for the last record.
func TestEarlierDeadlineHolds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wrapped := server.Listen(l, server.ListenOptions{})
	defer wrapped.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, err := wrapped.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, set := range map[string]func(time.Time) error{"write": c.SetWriteDeadline, "both": c.SetDeadline} {
		began := time.Now()
		if err := set(began.Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: the write ended after %s", name, took)
		}
	}
}

func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	content := []byte(`{}`)
	o := options(&puller{manifest: &pull.Content{Digest: sum(content), Bytes: content, Size: 2, MediaType: "t"}})
	h := newHolder(o.Puller)
	o.Puller = h
	ts := serveOn(t, server.New(o), func(l net.Listener) net.Listener { return server.Listen(l, server.ListenOptions{Limit: 1}) })
	const path = "/v2/a/manifests/b"
	c := h.busy(t, ts.Listener.Addr().String(), "127.0.0.1")
	over, body := do(t, ts, "GET", path)
	if over.StatusCode != 503 || over.Header.Get("Retry-After") != "5" || !strings.Contains(string(body), "UNAVAILABLE") ||
		!strings.HasPrefix(over.Header.Get("Mirror-Reason"), "overloaded") {
		t.Errorf("%s %v\n%s", over.Status, over.Header, body)
	}
	if res, _ := do(t, ts, "GET", "/healthz"); res.StatusCode != 200 {
		t.Errorf("the probe of a full mirror: %s", res.Status)
	}
	// The seat of a closed connection goes to another one.
	close(h.end)
	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if res, _ := do(t, ts, "GET", path); res.StatusCode == 200 {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			t.Fatal("the seat was not freed")
		}
	}
}

// holder answers as another puller, but requests for the repository held last until it ends.
type holder struct {
	server.Puller
	began, end chan struct{}
}

func newHolder(p server.Puller) *holder {
	return &holder{Puller: p, began: make(chan struct{}), end: make(chan struct{})}
}

func (h *holder) Manifest(ctx context.Context, a pull.Ask) (*pull.Content, error) {
	if a.Request.Name == "held" {
		h.began <- struct{}{}
		<-h.end
	}
	return h.Puller.Manifest(ctx, a)
}

// busy is a connection from an address with a request under way.
func (h *holder) busy(t *testing.T, addr, from string) net.Conn {
	t.Helper()
	c := idle(t, addr, from)
	if _, err := io.WriteString(c, "GET /v2/held/manifests/b HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-h.began:
	case <-closed(c): // it was refused
	}
	return c
}

// closed is closed when the other side has sent a byte, or has closed the connection.
func closed(c net.Conn) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Read(make([]byte, 1))
	}()
	return done
}

// idle is a connection without a request, from an address.
func idle(t *testing.T, addr, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A header as large as those of clients is accepted; one that does not end is refused, and costs no more than its limit.
func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	content := []byte(`{}`)
	o := options(&puller{manifest: &pull.Content{Digest: sum(content), Bytes: content, Size: 2, MediaType: "t"}})
	ts := serveOn(t, server.New(o), func(l net.Listener) net.Listener { return server.Listen(l, server.ListenOptions{}) })
	ask := func(size int) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", ts.URL+"/v2/a/manifests/b", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Long", strings.Repeat("x", size))
		res, err := ts.Client().Do(req)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	for size, want := range map[int]int{30 << 10: 200, 40 << 10: 431} {
		if got := ask(size); got != want {
			t.Errorf("a header of %d bytes: %d, want %d", size, got, want)
		}
	}
	c, err := net.Dial("tcp", ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Long: "); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for ; sent < 1<<30; sent += 4 << 10 {
		if _, err := c.Write(make([]byte, 4<<10)); err != nil {
			break
		}
	}
	if sent > 64<<20 { // the buffers of two sockets hold as much
		t.Errorf("%d bytes of a header were taken", sent)
	}
	if got := ask(0); got != 200 {
		t.Errorf("afterwards: %d", got)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	o := options(&puller{})
	o.Ready = ready.Load
	s := server.New(o)
	ts := serve(t, s)
	check := func(path string, status int, want string) {
		t.Helper()
		res, body := do(t, ts, "GET", path)
		if res.StatusCode != status || string(body) != want {
			t.Errorf("%s: %s %q, want %d %q", path, res.Status, body, status, want)
		}
		if res, body := do(t, ts, "HEAD", path); res.StatusCode != status || len(body) != 0 {
			t.Errorf("HEAD %s: %s %q", path, res.Status, body)
		}
	}
	check("/healthz", 200, "ok")
	check("/readyz", 503, "starting")
	ready.Store(true)
	check("/readyz", 200, "ready")
	if err := s.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	check("/readyz", 503, "stopping")
	check("/healthz", 200, "ok")
	if res, _ := do(t, ts, "POST", "/healthz"); res.StatusCode != 405 {
		t.Errorf("POST /healthz: %s", res.Status)
	}
	if res, body := do(t, ts, "GET", "/"); res.StatusCode != 404 || !strings.Contains(string(body), "/v2/") {
		t.Errorf("GET /: %s %s", res.Status, body)
	}
}

// gate is an object whose bytes come when it is opened.
type gate struct {
	memory
	open <-chan struct{}
}

func (g gate) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	select {
	case <-g.open:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	return io.Copy(w, io.NewSectionReader(g.Reader, off, n))
}

func TestStopLetsRunningPullsFinish(t *testing.T) {
	t.Parallel()
	content := pattern(1 << 20)
	open := make(chan struct{})
	p := &puller{size: int64(len(content)), object: func() cache.Object {
		return gate{memory{Reader: bytes.NewReader(content)}, open}
	}}
	s := server.New(options(p))
	hs := s.HTTPServer(nil, false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(server.Listen(l, server.ListenOptions{})) }()

	got := make(chan []byte, 1)
	flushed := make(chan struct{})
	go func() {
		defer close(got)
		res, err := http.Get("http://" + l.Addr().String() + "/v2/a/blobs/" + string(sum(content)))
		if err != nil {
			close(flushed)
			return
		}
		defer res.Body.Close()
		close(flushed)
		b, _ := io.ReadAll(res.Body)
		got <- b
	}()
	// Headers go out with the first bytes, so the request is known to run once the puller was asked.
	for {
		p.mu.Lock()
		n := len(p.asks)
		p.mu.Unlock()
		if n > 0 {
			break
		}
		runtime.Gosched()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(t.Context(), 0, hs) }()
	select {
	case err := <-stopped:
		t.Fatalf("stopped before the pull was done: %v", err)
	default:
	}
	close(open)
	<-flushed
	if b := <-got; !bytes.Equal(b, content) {
		t.Errorf("%d bytes of %d", len(b), len(content))
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("serve: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestStopCutsLongResponses(t *testing.T) {
	t.Parallel()
	content := pattern(1 << 20)
	p := &puller{size: int64(len(content)), object: func() cache.Object {
		return gate{memory{Reader: bytes.NewReader(content)}, nil} // for ever
	}}
	s := server.New(options(p))
	hs := s.HTTPServer(nil, false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = hs.Serve(server.Listen(l, server.ListenOptions{})) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /v2/a/blobs/%s HTTP/1.1\r\nHost: m\r\n\r\n", sum(content))
	for {
		p.mu.Lock()
		n := len(p.asks)
		p.mu.Unlock()
		if n > 0 {
			break
		}
		runtime.Gosched()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx, 0, hs); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v", err)
	}
	if err := s.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
