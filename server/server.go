package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/docs/failures"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// Puller has the operations that the front end needs. *pull.Puller is the real one. Contents are closed by the front end.
// Implementations are safe for concurrent use. diagnose.Explain reads their errors.
type Puller interface {
	// Route returns the canonical reference of a request, also where the pull itself would fail.
	Route(r oci.Request) (oci.Ref, error)
	// TakesLogins reports whether a request may carry the client's own login at the registry; one of no repository asks whether there
	// is such a registry.
	TakesLogins(r oci.Request) bool
	// Manifest and Blob answer a GET or HEAD; for HEAD, Bytes and Object may be nil.
	Manifest(ctx context.Context, a pull.Ask) (*pull.Content, error)
	Blob(ctx context.Context, a pull.Ask) (*pull.Content, error)
	// Tags and Referrers answer with a document in Bytes.
	Tags(ctx context.Context, a pull.Ask) (*pull.Content, error)
	Referrers(ctx context.Context, a pull.Ask) (*pull.Content, error)
}

// Clients tells which client sends a request. *identity.Verifier is the real one.
type Clients interface {
	// Identify returns the identity of the client, empty for an anonymous one. named says that the request names a registry: then
	// it may carry a login for that, which is not an error: note says so. The error is an *identity.RefusedError.
	Identify(r *http.Request, source string, named bool) (who client.Identity, note string, err error)
	// IdentifyBeside is Identify for a request that may carry the client's own login at a registry. foreign says that it has one.
	IdentifyBeside(r *http.Request, source string) (who client.Identity, foreign bool, note string, err error)
	// Challenge says whether clients are told that they may log in, or have to.
	Challenge() identity.Challenge
	// Ways reports whether there are logins, and whether there are certificates, by which clients identify themselves.
	Ways() (login, certificate bool)
}

// Options for a Server.
type Options struct {
	Puller Puller // required
	// Clients identifies clients. Nil: all are anonymous.
	Clients Clients
	// Observe is called for every request under /v2/ once its answer is known: for a success after its last byte, for a
	// failure before its answer goes out. It must not block. Nil: not called.
	Observe func(journal.Request)
	// Begin is called before the body of a blob is sent, since its end may be hours away. Observe follows. It must not
	// block. Nil: not called.
	Begin func(journal.Request)
	// ErrorPhrase puts the explanation of an error into the status line where the protocol allows it.
	ErrorPhrase bool
	// ClientsFallBack says that clients go on to the registry itself where the mirror refuses them. Without it a name
	// that is not configured is refused with 403 and the missing key, since no registry will explain it.
	ClientsFallBack bool
	// Via is the name that this process puts into the Via header of its requests to upstreams. A request that carries
	// it is a loop. Empty: not checked.
	Via string
	// Proxies are the trusted proxies, whose word for the client's address counts. Listen needs them, too.
	Proxies client.Proxies
	// Help is the address below which every reason has a page, NAME.md. Empty: the server's own pages, by the host name of the
	// request, which need no internet and are of this version.
	Help string
	// Webhooks answers below /webhooks/. Nil: there are none.
	Webhooks http.Handler
	// Ready says whether the mirror can answer requests. Nil: always.
	Ready func() bool
	// Log gets a line for each panic, and debug lines. Nil: discard.
	Log *slog.Logger
}

// docs is where this server has the pages about failures, and defaultHelp where the internet has them.
const (
	docs        = "/docs/failures/"
	defaultHelp = "https://github.com/registrymirror/mirror/blob/main/docs/failures/"
)

// Server answers clients. It is an http.Handler, safe for concurrent use.
type Server struct {
	o        Options
	log      *slog.Logger
	mux      *chi.Mux
	active   tracker
	pulls    *activePulls
	suspects suspects
	limits   atomic.Pointer[ClientLimits] // nil: there are none
	stopping atomic.Bool                  // readiness is gone
	draining atomic.Bool                  // no new pull begins
	stall    time.Duration                // of a stream of HTTP/2, as that of a connection in Listen
}

// New makes a Server.
func New(o Options) *Server {
	s := &Server{o: o, log: o.Log, stall: stallTimeout, pulls: newActivePulls()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.o.Observe == nil {
		s.o.Observe = func(journal.Request) {}
	}
	if s.o.Begin == nil {
		s.o.Begin = func(journal.Request) {}
	}
	m := chi.NewMux()
	for path, answer := range map[string]http.HandlerFunc{"/healthz": s.healthz, "/readyz": s.readyz, identityPath: s.identity, docs + "*": s.doc} {
		m.Get(path, answer)
		m.Head(path, answer)
	}
	if o.Webhooks != nil {
		m.Handle("/webhooks/*", http.HandlerFunc(s.webhook))
	}
	m.NotFound(func(w http.ResponseWriter, r *http.Request) {
		word(w, r, http.StatusNotFound, "not found: images are under /v2/, health is at /healthz and /readyz, and which client you are at /identity")
	})
	m.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", "GET, HEAD")
		word(w, r, http.StatusMethodNotAllowed, "only GET and HEAD are allowed")
	})
	s.mux = m
	return s
}

// ServeHTTP answers a request. Requests under /v2/, by any method, bypass the router: its patterns don't match a
// slash inside a name, and its bookkeeping costs as much as finding a manifest.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.active.add()
	defer s.active.done()
	if r.Body != nil && r.Body != http.NoBody {
		defer limitBody(w)
	}
	if r.ProtoMajor >= 2 {
		defer countFrames(r)()
		defer s.limitRest(w, r)
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/v2"); ok && (rest == "" || rest[0] == '/') {
		s.v2(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// bodyTimeout is how long the rest of a request's body may take once it has been answered.
const bodyTimeout = 3 * time.Second

// limitBody keeps a client that announces a body and never sends it from holding the connection for ever: net/http reads the
// rest of the body without a deadline. It sets its own before the next request.
func limitBody(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
}

// limitRest keeps a client that reads nothing from holding a stream of HTTP/2 for ever: net/http sends the last bytes of an answer after
// the handler.
func (s *Server) limitRest(w http.ResponseWriter, r *http.Request) {
	if r.Context().Err() == nil { // the stream is open
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.stall))
	}
}

// Wait returns when no request is being answered, those on hijacked connections included, which http.Server.Shutdown
// doesn't wait for; or with the context's cause.
func (s *Server) Wait(ctx context.Context) error { return s.active.wait(ctx) }

// InFlight is how many requests are being answered, those on hijacked connections included.
func (s *Server) InFlight() int { return s.active.count() }

// Healthz answers that the process lives.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) { word(w, r, http.StatusOK, "ok") }

// doc answers with a page about a reason why pulls fail, or with the list of them.
func (s *Server) doc(w http.ResponseWriter, r *http.Request) {
	if text, ok := failures.Find(strings.TrimPrefix(r.URL.Path, docs)); ok {
		word(w, r, http.StatusOK, text)
		return
	}
	word(w, r, http.StatusNotFound, "no such page; "+docs+" lists all pages")
}

// webhook passes a report of a registry on. One over a connection above the limit would cost what the limit protects.
func (s *Server) webhook(w http.ResponseWriter, r *http.Request) {
	if overloaded(r.Context()) {
		w.Header().Set("Retry-After", "10")
		word(w, r, http.StatusServiceUnavailable, "the mirror has as many connections as it may have; send the report again")
		return
	}
	s.o.Webhooks.ServeHTTP(w, r)
}

// help is the address of the page about a reason.
func (s *Server) help(r *http.Request, reason string) string {
	at := s.o.Help
	switch {
	case at != "":
	case r.Host == "" || len(r.Host) > 255 || strings.IndexFunc(r.Host, func(c rune) bool { return !strings.ContainsRune(hostChars, c) }) >= 0:
		at = defaultHelp
	case r.TLS != nil:
		at = "https://" + r.Host + docs
	default:
		at = "http://" + r.Host + docs
	}
	return at + reason + ".md"
}

// hostChars are the characters of a host with its port.
const hostChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.stopping.Load():
		word(w, r, http.StatusServiceUnavailable, "stopping")
	case s.o.Ready != nil && !s.o.Ready():
		word(w, r, http.StatusServiceUnavailable, "starting")
	default:
		word(w, r, http.StatusOK, "ready")
	}
}

func word(w http.ResponseWriter, r *http.Request, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, text)
	}
}
