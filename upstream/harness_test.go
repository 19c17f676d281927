package upstream_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
)

var _ pull.Upstream = (*upstream.Registry)(nil)

// child makes the test binary ask a registry through whatever proxy its environment names, and print why it failed.
const child = "MIRROR_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		u := &url.URL{Scheme: "https", Host: "reg.example"}
		r, err := upstream.New(upstream.Options{Name: "up.example", Endpoints: []upstream.Endpoint{{URL: u}}})
		if err == nil {
			_, err = r.Manifest(context.Background(), repo, "1")
			r.Close()
		}
		fmt.Println(err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// server is an upstream on loopback that notes every request that it gets.
type server struct {
	*httptest.Server

	mu       sync.Mutex
	requests []string // "GET /path?query [authorization]"
	headers  []http.Header
}

// serve starts a server.
func serve(t testing.TB, h http.HandlerFunc) *server {
	t.Helper()
	s := new(server)
	s.Server = httptest.NewServer(s.noted(h))
	t.Cleanup(s.Close)
	return s
}

func (s *server) noted(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line := r.Method + " " + r.URL.RequestURI()
		if rng := r.Header.Get("Range"); rng != "" {
			line += " " + rng
		}
		if a := r.Header.Get("Authorization"); a != "" {
			line += " [" + a + "]"
		}
		s.mu.Lock()
		s.requests = append(s.requests, line)
		s.headers = append(s.headers, r.Header.Clone())
		s.mu.Unlock()
		h(w, r)
	})
}

// asked is what came in so far, and forgets it.
func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests
	s.requests, s.headers = nil, nil
	return r
}

// count is how many requests contain a text.
func (s *server) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.Contains(r, text) {
			n++
		}
	}
	return n
}

func (s *server) host() string {
	return strings.TrimPrefix(strings.TrimPrefix(s.URL, "http://"), "https://")
}

// registry is a Registry for a URL, closed with the test.
func registry(t testing.TB, rawURL string, change ...func(*upstream.Options)) *upstream.Registry {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	o := upstream.Options{
		Name: "up.example", Endpoints: []upstream.Endpoint{{URL: u}}, UserAgent: "mirror/test",
		Proxy: func(*url.URL) (*url.URL, error) { return nil, nil },
	}
	for _, f := range change {
		f(&o)
	}
	r, err := upstream.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func parse(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func digestOf(b []byte) oci.Digest { return oci.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b))) }

// manifest is a small image manifest.
var manifest = []byte(`{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIManifest + `","config":{"mediaType":` +
	`"application/vnd.oci.image.config.v1+json","digest":"` + string(digestOf([]byte("{}"))) + `","size":2},"layers":[]}`)
var zeroTime time.Time

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
