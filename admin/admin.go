// Package admin is the operator's side: health, metrics and profiles on a listener of their own.
//
// Promise: /healthz and /readyz answer anybody, at once, from memory; everything else wants the token where one is
// set. What a browser sends for another site's page is refused everywhere (see gate.go). Nothing here can change what a
// pull gets, but for a reload, which has the operator's own file read again. It does no I/O of its own.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/journal"
)

// Options for the admin handler. The zero value of a field means what its comment says.
type Options struct {
	Metrics http.Handler  // nil: /metrics is 404
	Ready   func() error  // nil or a nil error: ready; else why not, in a few words
	Token   func() string // asked at each request, so that a rotated token holds at once; nil or "": none is wanted
	Log     *slog.Logger  // nil: discard
	// Loopback says that the listener can be reached from this machine alone. Then it answers to the names of loopback, and
	// to Hosts.
	Loopback bool
	// Hosts are further names of the listener, without ports: that under which it was configured, and those by which a proxy
	// in front of it calls it. Nil: there are none.
	Hosts []string
	// Upstreams says how the registries in use are. Nil: there is no /api/v1/upstreams.
	Upstreams func() []Upstream
	// Failures is the record of pulls that failed. Nil: there is no /api/v1/failures.
	Failures Failures
	// Doctor examines an image from where the mirror stands. Nil: there is no /api/v1/doctor.
	Doctor func(ctx context.Context, image, platform string) *doctor.Report
	// Cache says what is cached. Nil: there is no /api/v1/cache.
	Cache func() Cache
	// Pulls gives the pulls that go on, or those that are over. Nil: there is no /api/v1/pulls.
	Pulls func(ctx context.Context, active bool) ([]journal.Pull, error)
	// About says what runs. Nil: there is no /api/v1/status.
	About func() About
	// Reload reads the configuration again and takes it; a *NotReloaded says why it did not. Nil: there is no /api/v1/reload.
	Reload func(ctx context.Context) (Reloaded, error)
}

// New returns the handler of the admin listener.
func New(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := chi.NewRouter()
	r.Use(o.gate)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		Problem(w, http.StatusNotFound, fmt.Sprintf("there is no %s here; see /api/v1/openapi.yaml, which lists what there is, /metrics, "+
			"/healthz, /readyz and /debug/pprof/", r.URL.EscapedPath()))
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		Problem(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s is not for %s", r.URL.EscapedPath(), r.Method))
	})
	health(r, o.Ready)
	r.Group(func(r chi.Router) {
		r.Use(o.guard, typed)
		if o.Metrics != nil {
			r.Method(http.MethodGet, "/metrics", o.Metrics)
		}
		if o.Upstreams != nil {
			r.Get("/api/v1/upstreams", upstreams(o.Upstreams))
		}
		if o.Failures != nil {
			r.Get("/api/v1/failures", failures(o.Failures))
			r.Get("/api/v1/failures/summary", summary(o.Failures))
		}
		if o.Pulls != nil {
			r.Get("/api/v1/pulls", pulls(o.Pulls))
		}
		if o.Cache != nil {
			r.Get("/api/v1/cache", showCache(o.Cache))
		}
		if o.About != nil {
			r.Get("/api/v1/status", o.status)
		}
		if o.Reload != nil {
			r.Post("/api/v1/reload", reload(o.Reload))
		}
		r.Post("/api/v1/explain", explain(o.Failures))
		r.Get("/api/v1/openapi.yaml", openAPI)
		if o.Doctor != nil {
			r.Post("/api/v1/doctor", examine(o.Doctor))
		}
		profiles(r)
	})
	return r
}

// NewMetrics returns the handler of a metrics listener of its own, which wants no token. Of the options it goes by
// Metrics, Ready, Loopback and Hosts.
func NewMetrics(o Options) http.Handler {
	r := chi.NewRouter()
	r.Use(o.gate)
	health(r, o.Ready)
	r.Method(http.MethodGet, "/metrics", o.Metrics)
	return r
}

func health(r chi.Router, ready func() error) {
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { word(w, http.StatusOK, "ok") })
	r.Get("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ready != nil {
			if err := ready(); err != nil {
				word(w, http.StatusServiceUnavailable, err.Error())
				return
			}
		}
		word(w, http.StatusOK, "ready")
	})
}

func word(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

// guard lets a request pass that shows the token. Hashes are compared, so that the time taken tells nothing of the
// token, its length included.
func (o Options) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := ""
		if o.Token != nil {
			want = o.Token()
		}
		if want == "" {
			next.ServeHTTP(w, r)
			return
		}
		got, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
		if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
			o.Log.InfoContext(r.Context(), "admin request refused", "path", r.URL.Path, "client", r.RemoteAddr)
			w.Header().Set("WWW-Authenticate", `Bearer realm="mirror admin"`)
			Problem(w, http.StatusUnauthorized, "this listener wants the token of admin.tokenFile, as "+
				"Authorization: Bearer TOKEN")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Problem writes an error as RFC 9457 has it.
func Problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"title": http.StatusText(status), "status": status, "detail": detail,
	})
}
