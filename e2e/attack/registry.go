package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The login that opens the registry's closed repositories.
const (
	user     = "robot"
	password = "the-operators-password"
)

// registry accepts anything: manifests that name what is not there, sizes that are wrong, any type. It notes each
// request before it answers.
type registry struct {
	host string
	srv  *http.Server

	mu    sync.Mutex // guards all below
	repos map[string]*repository
	log   []hit
	mood  func(w http.ResponseWriter, r *http.Request, q question) bool // answers first, where it returns true
}

// repository is what one has. Fields are set before the first request, or through registry.change.
type repository struct {
	closed      bool                // the login alone opens it
	docs        map[string]document // by tag and by digest
	blobs       map[string]blob     // by digest
	docsAsBlobs bool                // one store for both, as the OCI layout has it
}

// document is a manifest, or bytes that are said to be one.
type document struct {
	mediaType string
	bytes     []byte
	digest    string
}

// blob is content of some size.
type blob struct {
	content io.ReaderAt
	size    int64
	claim   int64         // Content-Length, with the connection closed after size; 0: size
	rate    int           // bytes a second; 0: as fast as it goes
	gate    chan struct{} // closed to let the second half out; nil: none
}

// question is what a request asks for.
type question struct {
	kind, repo, ref string // kind: manifests, blobs, tags, referrers, ping, other
	login           bool   // it shows the login
}

// hit is a request that arrived.
type hit struct {
	question
	method, query string
}

// newRegistry runs one until the scene ends.
func (s *stage) newRegistry(ctx context.Context) (*registry, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return s.serveRegistry(l), nil
}

func (s *stage) serveRegistry(l net.Listener) *registry {
	g := &registry{host: l.Addr().String(), repos: make(map[string]*repository)}
	g.srv = &http.Server{Handler: g, ReadHeaderTimeout: time.Minute}
	go func() { _ = g.srv.Serve(l) }()
	s.ends = append(s.ends, func() { _ = g.srv.Close() })
	return g
}

func (g *registry) url() string { return "http://" + g.host }

// repo returns a repository, and makes it.
func (g *registry) repo(name string) *repository {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.repos[name]
	if r == nil {
		r = &repository{docs: make(map[string]document), blobs: make(map[string]blob)}
		g.repos[name] = r
	}
	return r
}

// change runs do while no request is being looked up.
func (g *registry) change(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
}

// behave sets what answers first; nil: nothing.
func (g *registry) behave(mood func(w http.ResponseWriter, r *http.Request, q question) bool) {
	g.change(func() { g.mood = mood })
}

// hits counts the requests that match.
func (g *registry) hits(match func(hit) bool) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, h := range g.log {
		if match(h) {
			n++
		}
	}
	return n
}

// asked is how many requests named a repository and a reference.
func (g *registry) asked(repo, ref string) int {
	return g.hits(func(h hit) bool { return h.repo == repo && h.ref == ref })
}

// questionOf reads a path by itself, so that the mirror's parser is not held against itself.
func questionOf(r *http.Request) question {
	q := question{kind: "other"}
	name, secret, _ := r.BasicAuth()
	q.login = name == user && secret == password
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case !ok:
	case rest == "":
		q.kind = "ping"
	case strings.HasSuffix(rest, "/tags/list"):
		q.kind, q.repo = "tags", strings.TrimSuffix(rest, "/tags/list")
	default:
		parts := strings.Split(rest, "/")
		if n := len(parts); n >= 3 {
			q.kind, q.repo, q.ref = parts[n-2], strings.Join(parts[:n-2], "/"), parts[n-1]
		}
	}
	return q
}

// ServeHTTP implements http.Handler.
func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := questionOf(r)
	g.mu.Lock()
	g.log = append(g.log, hit{question: q, method: r.Method, query: r.URL.RawQuery})
	mood, repo := g.mood, g.repos[q.repo]
	var doc document
	var content blob
	var isDoc, isBlob bool
	closed := false
	if repo != nil {
		closed = repo.closed
		doc, isDoc = repo.docs[q.ref]
		content, isBlob = repo.blobs[q.ref]
		isBlob = isBlob || isDoc && repo.docsAsBlobs
		if isDoc && q.kind == "blobs" {
			content = blob{content: strings.NewReader(string(doc.bytes)), size: int64(len(doc.bytes))}
		}
	}
	g.mu.Unlock()
	switch {
	case mood != nil && mood(w, r, q):
	case closed && !q.login:
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
	case q.kind == "ping":
		_, _ = io.WriteString(w, "{}")
	case q.kind == "manifests" && isDoc:
		sendDocument(w, doc)
	case q.kind == "blobs" && isBlob:
		sendBlob(w, r, q.ref, content)
	case q.kind == "tags" && repo != nil:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"name":%q,"tags":["v1"]}`, q.repo)
	case q.kind == "blobs":
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
	default:
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"no"}]}`, code)
}

func sendDocument(w http.ResponseWriter, d document) {
	w.Header().Set("Content-Type", d.mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(d.bytes)))
	w.Header().Set("Docker-Content-Digest", d.digest)
	_, _ = w.Write(d.bytes) // HEAD: net/http sends none of it
}

func sendBlob(w http.ResponseWriter, r *http.Request, digest string, b blob) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest)
	if b.claim > 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(b.claim, 10))
		if r.Method == http.MethodHead {
			return
		}
		_, _ = io.Copy(w, io.NewSectionReader(b.content, 0, b.size))
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		<-r.Context().Done() // and no more, for as long as the client waits
		return
	}
	p := &paced{ResponseWriter: w, ctx: r.Context(), rate: b.rate, gate: b.gate, half: b.size / 2}
	http.ServeContent(p, r, "", time.Time{}, io.NewSectionReader(b.content, 0, b.size))
}

// paced sends a body at a rate, and its second half when a gate opens.
type paced struct {
	http.ResponseWriter
	ctx  context.Context
	rate int
	gate chan struct{}
	half int64
	sent int64
}

// Write implements io.Writer.
func (p *paced) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), 32<<10)]
		if p.gate != nil && p.sent < p.half {
			part = b[:min(int64(len(part)), p.half-p.sent)]
		}
		if p.gate != nil && p.sent >= p.half {
			if f, ok := p.ResponseWriter.(http.Flusher); ok {
				f.Flush()
			}
			select {
			case <-p.gate:
				p.gate = nil
			case <-p.ctx.Done():
				return n, p.ctx.Err()
			}
		}
		m, err := p.ResponseWriter.Write(part)
		n, p.sent = n+m, p.sent+int64(m)
		if err != nil {
			return n, err
		}
		if p.rate > 0 {
			if f, ok := p.ResponseWriter.(http.Flusher); ok {
				f.Flush()
			}
			pause(p.ctx, time.Duration(float64(m)/float64(p.rate)*float64(time.Second)))
		}
		b = b[m:]
	}
	return n, nil
}

// pause waits for a time, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// put adds a manifest under its digest and a tag; an empty tag: none.
func (r *repository) put(tag string, d document) document {
	r.docs[d.digest] = d
	if tag != "" {
		r.docs[tag] = d
	}
	return d
}

// add adds a blob and returns what refers to it.
func (r *repository) add(b blob) descriptor {
	d := descriptor{MediaType: layerType, Digest: digestOf(b), Size: b.size}
	r.blobs[d.Digest] = b
	return d
}

// digestOf is the true one.
func digestOf(b blob) string {
	h := sha256.New()
	_, _ = io.Copy(h, io.NewSectionReader(b.content, 0, b.size)) // content of the scenes is in memory or made up
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}

// filler is content of any size that differs by its seed and is never held.
type filler uint64

// ReadAt implements io.ReaderAt. The end is the caller's affair.
func (f filler) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], uint64(f))
	if off < 8 {
		copy(p, head[off:])
	}
	return len(p), nil
}

// made is a blob of that size.
func made(seed uint64, size int64) blob { return blob{content: filler(seed), size: size} }

// text is a blob of those bytes.
func text(s string) blob { return blob{content: strings.NewReader(s), size: int64(len(s))} }
