package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// puller is a fake: it answers with its content, or with err.
type puller struct {
	route    func(oci.Request) (oci.Ref, error)
	err      error
	manifest *pull.Content
	object   func() cache.Object // of the blob
	size     int64
	status   pull.Status
	doc      *pull.Content

	takesLogins bool

	mu   sync.Mutex
	asks []pull.Ask
}

func (p *puller) saw(a pull.Ask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks = append(p.asks, a)
}

func (p *puller) Route(r oci.Request) (oci.Ref, error) {
	if p.route != nil {
		return p.route(r)
	}
	host := r.Namespace
	if host == "" {
		host = "docker.io"
	}
	return oci.Ref{Repo: oci.Repo{Host: host, Name: r.Name}, Tag: r.Tag, Digest: r.Digest}, nil
}

func (p *puller) TakesLogins(oci.Request) bool { return p.takesLogins }

func (p *puller) Manifest(_ context.Context, a pull.Ask) (*pull.Content, error) {
	p.saw(a)
	if p.err != nil {
		return nil, p.err
	}
	c := *p.manifest
	c.Ref, _ = p.Route(a.Request)
	c.Ref.Digest, c.Status = c.Digest, p.status
	if a.Request.Head {
		c.Bytes = nil
	}
	return &c, nil
}

func (p *puller) Blob(_ context.Context, a pull.Ask) (*pull.Content, error) {
	p.saw(a)
	if p.err != nil {
		return nil, p.err
	}
	ref, _ := p.Route(a.Request)
	c := &pull.Content{Ref: ref, Digest: a.Request.Digest, Size: p.size, Status: p.status}
	if !a.Request.Head {
		c.Object = p.object()
	}
	return c, nil
}

func (p *puller) Tags(_ context.Context, a pull.Ask) (*pull.Content, error) { return p.list(a) }

func (p *puller) Referrers(_ context.Context, a pull.Ask) (*pull.Content, error) { return p.list(a) }

func (p *puller) list(a pull.Ask) (*pull.Content, error) {
	p.saw(a)
	if p.err != nil {
		return nil, p.err
	}
	c := *p.doc
	c.Ref, _ = p.Route(a.Request)
	c.Status = p.status
	return &c, nil
}

// memory is an object in memory.
type memory struct {
	*bytes.Reader
	closed func()
}

func (m memory) Close() error {
	if m.closed != nil {
		m.closed()
	}
	return nil
}

func hold(content []byte) (func() cache.Object, int64) {
	return func() cache.Object { return memory{Reader: bytes.NewReader(content)} }, int64(len(content))
}

// records collects what the server observed.
type records struct {
	mu   sync.Mutex
	list []journal.Request
}

func (r *records) observe(q journal.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, q)
}

func (r *records) all() []journal.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]journal.Request(nil), r.list...)
}

func options(p *puller) server.Options {
	return server.Options{Puller: p, ErrorPhrase: true, ClientsFallBack: true, Help: "https://help.example/"}
}

// serve starts a server as the mirror does, on loopback, and waits for all of it at the end of the test.
func serve(t *testing.T, s *server.Server) *httptest.Server {
	t.Helper()
	return serveOn(t, s, func(l net.Listener) net.Listener { return server.Listen(l, server.ListenOptions{}) })
}

func serveOn(t *testing.T, s *server.Server, wrap func(net.Listener) net.Listener) *httptest.Server {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = s.HTTPServer(nil, false)
	ts.Listener = wrap(ts.Listener)
	ts.Start()
	t.Cleanup(func() {
		ts.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Wait(ctx); err != nil {
			t.Errorf("requests still run: %v", err)
		}
	})
	return ts
}

// raw sends text to the server as it is, and returns all that it answers until it closes or has answered once.
func raw(t *testing.T, ts *httptest.Server, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// conversation sends requests one after the other over one connection, and returns the answers and whether the
// connection is open after the last one.
func conversation(t *testing.T, ts *httptest.Server, requests ...*http.Request) (answers []*http.Response, open bool) {
	t.Helper()
	c, err := net.Dial("tcp", ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	for _, r := range requests {
		if err := r.Write(c); err != nil {
			return answers, false
		}
		res, err := http.ReadResponse(br, r)
		if err != nil {
			return answers, false
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		res.Body = io.NopCloser(bytes.NewReader(b))
		answers = append(answers, res)
	}
	return answers, !answers[len(answers)-1].Close
}

func request(t *testing.T, ts *httptest.Server, method, path string, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, ts.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func do(t *testing.T, ts *httptest.Server, method, path string, header ...string) (*http.Response, []byte) {
	t.Helper()
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Do(request(t, ts, method, path, header...))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

func sum(b []byte) oci.Digest {
	h := sha256.Sum256(b)
	return oci.Digest("sha256:" + hex.EncodeToString(h[:]))
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update to write it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); -update rewrites it:\n%s", name, diff)
	}
}

// withoutDate makes a raw answer comparable.
func withoutDate(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "Date: ") {
			fmt.Fprint(&b, strings.ReplaceAll(line, "\r\n", "\n"))
		}
	}
	return b.String()
}
