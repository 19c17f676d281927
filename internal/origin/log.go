package origin

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Role is which of its hosts a request reached.
type Role string

// The roles.
const (
	RoleRegistry Role = "registry"
	RoleToken    Role = "token"
	RoleCDN      Role = "cdn"
)

// Kind is what a request asks for.
type Kind string

// The kinds of request.
const (
	KindPing      Kind = "ping"
	KindManifest  Kind = "manifest"
	KindBlob      Kind = "blob" // at the registry
	KindTags      Kind = "tags"
	KindReferrers Kind = "referrers"
	KindToken     Kind = "token"
	KindCDN       Kind = "cdn" // a blob at the blob host
	KindOther     Kind = "other"
)

// Request is one that arrived.
type Request struct {
	Role   Role
	Kind   Kind
	Method string
	Path   string
	Query  string
	Repo   string // of a token request, that of its first scope
	Ref    string // tag or digest
	Header http.Header
	Remote string // the client's address: the same for all requests of a connection
	When   time.Time
	Status int   // 0: not answered yet, or never
	From   int64 // first byte of the content that the answer has
	Bytes  int64 // of the body, so far
	Done   bool  // the handler has ended
}

// entry is a Request while it is being answered.
type entry struct {
	Request // constant; its last fields are those below
	status  atomic.Int64
	from    atomic.Int64
	bytes   atomic.Int64
	content atomic.Bool // the body is content, not an error
	done    atomic.Bool
}

func (e *entry) snapshot() Request {
	r := e.Request
	r.Header = r.Header.Clone()
	r.Status, r.From, r.Bytes, r.Done = int(e.status.Load()), e.from.Load(), e.bytes.Load(), e.done.Load()
	return r
}

type watcher struct {
	match func(Request) bool
	ch    chan Request
}

func (g *Origin) enter(w *wanted, r *http.Request) *entry {
	e := &entry{Request: Request{
		Role: w.role, Kind: w.kind, Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
		Repo: w.repo, Ref: w.ref, Header: r.Header.Clone(), Remote: r.RemoteAddr, When: time.Now(),
	}}
	if e.Header == nil {
		e.Header = make(http.Header)
	}
	g.mu.Lock()
	g.log = append(g.log, e)
	watchers := slices.Clone(g.watchers)
	g.mu.Unlock()
	for _, w := range watchers {
		if s := e.snapshot(); w.match(s) {
			select {
			case w.ch <- s:
			default: // another one was first
			}
		}
	}
	return e
}

// Requests are those that arrived so far, in order.
func (g *Origin) Requests() []Request {
	g.mu.Lock()
	log := slices.Clone(g.log)
	g.mu.Unlock()
	list := make([]Request, len(log))
	for i, e := range log {
		list[i] = e.snapshot()
	}
	return list
}

// Arrived yields the first request from now on that matches.
func (g *Origin) Arrived(match func(Request) bool) <-chan Request {
	w := &watcher{match: match, ch: make(chan Request, 1)}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers = append(g.watchers, w)
	return w.ch
}

// Count is how many requests of a kind arrived, with one of the methods where there are any.
func (g *Origin) Count(kind Kind, method ...string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, e := range g.log {
		if e.Kind == kind && (len(method) == 0 || slices.Contains(method, e.Method)) {
			n++
		}
	}
	return n
}

// CountRef is how many requests of a kind for a tag or digest arrived, with one of the methods where there are any.
func (g *Origin) CountRef(kind Kind, ref string, method ...string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, e := range g.log {
		if e.Kind == kind && e.Ref == ref && (len(method) == 0 || slices.Contains(method, e.Method)) {
			n++
		}
	}
	return n
}

// Bytes is how many bytes of that content were sent, from the registry and the blob host together.
func (g *Origin) Bytes(d oci.Digest) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	var n int64
	for _, e := range g.log {
		if e.content.Load() && e.Ref == string(d) {
			n += e.bytes.Load()
		}
	}
	return n
}

// Sent is how many bytes of bodies were sent in all, errors and tokens included.
func (g *Origin) Sent() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	var n int64
	for _, e := range g.log {
		n += e.bytes.Load()
	}
	return n
}

// ClearRequests forgets the requests so far, and so what they sent.
func (g *Origin) ClearRequests() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.log = nil
}

// wanted is what a request asks for.
type wanted struct {
	role Role
	kind Kind
	repo string
	ref  string
}

const tokenPath = "/token"

// read parses a path on its own, so that the mirror's parser is not held against itself.
func read(role Role, r *http.Request) *wanted {
	w := &wanted{role: role, kind: KindOther}
	path := r.URL.Path
	if role == RoleCDN || strings.HasPrefix(path, cdnPath) {
		w.role = RoleCDN
		if rest, ok := strings.CutPrefix(path, cdnPath); ok {
			w.kind, w.ref, w.repo = KindCDN, rest, r.URL.Query().Get("repo")
		}
		return w
	}
	if path == tokenPath {
		w.role, w.kind = RoleToken, KindToken
		_ = r.ParseForm()
		w.repo, _, _ = scopeRepo(r.Form.Get("scope"))
		return w
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case !ok || role == RoleToken:
		return w
	case rest == "":
		w.kind = KindPing
		return w
	}
	if repo, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		w.kind, w.repo = KindTags, repo
		return w
	}
	for mark, kind := range map[string]Kind{
		"/manifests/": KindManifest, "/blobs/": KindBlob, "/referrers/": KindReferrers,
	} {
		i := strings.LastIndex(rest, mark)
		if i > 0 && !strings.Contains(rest[i+len(mark):], "/") {
			w.kind, w.repo, w.ref = kind, rest[:i], rest[i+len(mark):]
		}
	}
	return w
}

// scopeRepo reads "repository:NAME:ACTIONS".
func scopeRepo(scope string) (repo, actions string, ok bool) {
	rest, ok := strings.CutPrefix(scope, "repository:")
	i := strings.LastIndexByte(rest, ':')
	if !ok || i < 0 {
		return "", "", false
	}
	return rest[:i], rest[i+1:], true
}
