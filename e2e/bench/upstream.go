package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Stats is what an upstream was asked and what it sent.
type Stats struct {
	Requests map[string]int // "GET blob", "HEAD manifest", ...
	Bytes    int64          // of bodies of content
	Tokens   int
}

// upstream is a registry in a process of its own: files of a folder, at a rate for each connection, with a count of
// everything. /stats shows the count and /reset sets it to zero.
type upstream struct {
	dir  string
	host string
	rate int64 // bytes per second of each answer; 0: as fast as sendfile goes
	auth bool
	cut  int64 // bytes of a body after which the connection is closed; 0: never

	mu    sync.Mutex // guards stats
	stats Stats
}

const benchToken = "let-me-in"

// serveUpstream is the program "bench upstream".
func serveUpstream(args []string) error {
	u := &upstream{stats: Stats{Requests: map[string]int{}}}
	flags := flag.NewFlagSet("upstream", flag.ExitOnError)
	flags.StringVar(&u.dir, "dir", "", "folder of content")
	flags.Int64Var(&u.rate, "rate", 0, "bytes per second of each connection")
	flags.BoolVar(&u.auth, "auth", false, "ask for a bearer token")
	flags.Int64Var(&u.cut, "cut", 0, "close the connection after so many bytes of a blob")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	u.host = l.Addr().String()
	fmt.Printf("listening on %s\n", u.host)
	s := &http.Server{Handler: u, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	return s.Serve(l)
}

// ServeHTTP implements http.Handler.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/stats":
		u.mu.Lock()
		defer u.mu.Unlock()
		_ = json.NewEncoder(w).Encode(u.stats)
		return
	case "/reset":
		u.mu.Lock()
		defer u.mu.Unlock()
		u.stats = Stats{Requests: map[string]int{}}
		return
	case "/token":
		u.mu.Lock()
		u.stats.Tokens++
		u.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, benchToken)
		return
	}
	if u.auth && r.Header.Get("Authorization") != "Bearer "+benchToken {
		scope := ""
		if repo, _, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/"); ok {
			scope = ",scope=\"repository:" + repo + ":pull\""
		} else if repo, _, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/"); ok {
			scope = ",scope=\"repository:" + repo + ":pull\""
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=\"http://%s/token\",service=\"bench\"%s", u.host, scope))
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
		return
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.URL.Path == "/v2/" {
		w.WriteHeader(http.StatusOK)
		return
	}
	u.serveFile(w, r)
}

func (u *upstream) serveFile(w http.ResponseWriter, r *http.Request) {
	kind := "blob"
	if strings.Contains(r.URL.Path, "/manifests/") {
		kind = "manifest"
	}
	u.mu.Lock()
	u.stats.Requests[r.Method+" "+kind]++
	u.mu.Unlock()
	f, err := os.Open(filepath.Join(u.dir, filepath.Clean("/"+r.URL.Path)))
	if err != nil {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	defer func() { _ = f.Close() }()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if kind == "manifest" {
		b, err := io.ReadAll(f)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h.Set("Content-Type", mediaType(b))
		h.Set("Docker-Content-Digest", digestOf(b))
	} else {
		h.Set("Docker-Content-Digest", filepath.Base(r.URL.Path))
	}
	h.Set("Etag", `"`+h.Get("Docker-Content-Digest")+`"`)
	count := &counter{ResponseWriter: w, u: u}
	if (u.rate > 0 || u.cut > 0) && kind == "blob" {
		http.ServeContent(count, r, "", time.Time{}, &slowFile{f: f, rate: u.rate, cut: u.cut})
		return
	}
	http.ServeContent(count, r, "", time.Time{}, f)
}

// counter counts what goes out, and lets sendfile through.
type counter struct {
	http.ResponseWriter
	u *upstream
}

func (c *counter) add(n int64) {
	c.u.mu.Lock()
	c.u.stats.Bytes += n
	c.u.mu.Unlock()
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.add(int64(n))
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (c *counter) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
	c.add(n)
	return n, err
}

// slowFile is a file that gives its bytes at a rate, and breaks. It does not embed the file: net would then find the
// descriptor and send it at full speed.
type slowFile struct {
	f     io.ReadSeeker
	rate  int64
	cut   int64
	start time.Time
	given int64
}

// Read implements io.Reader.
func (s *slowFile) Read(p []byte) (int, error) {
	if s.start.IsZero() {
		s.start = time.Now()
	}
	if s.cut > 0 {
		if s.given >= s.cut {
			return 0, errors.New("cut") // short of its length: net/http closes the connection
		}
		p = p[:min(int64(len(p)), s.cut-s.given)]
	}
	n, err := s.f.Read(p[:min(len(p), 64<<10)])
	s.given += int64(n)
	if s.rate == 0 {
		return n, err
	}
	due := s.start.Add(time.Duration(float64(s.given) / float64(s.rate) * float64(time.Second)))
	if d := time.Until(due); d > 0 {
		time.Sleep(d)
	}
	return n, err
}

// Seek implements io.Seeker.
func (s *slowFile) Seek(offset int64, whence int) (int64, error) { return s.f.Seek(offset, whence) }

// serveHandler is the program "bench handler": the fastest that net/http serves a manifest.
func serveHandler(args []string) error {
	flags := flag.NewFlagSet("handler", flag.ExitOnError)
	file := flags.String("file", "", "the manifest")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	kind, digest := mediaType(b), digestOf(b)
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("listening on %s\n", l.Addr())
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", kind)
			h.Set("Docker-Content-Digest", digest)
			_, _ = w.Write(b) // short enough for net/http to set the length
		})}
	return s.Serve(l)
}
