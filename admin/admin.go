// Package admin is the operator's side: the API, health, metrics and profiles, on a listener of their own. It owns the JSON
// of the API: each body is a type of this package (or a doctor.Report), and openapi.yaml describes them.
//
// Promise: each route names the right that it requires (see rights.go). /healthz, /readyz, the pages below /docs/failures/ and a listener
// for metrics alone (NewMetrics) are open, and health is answered at once, from memory. All else is for operators: they show a token or
// a certificate, and see and change the images that are theirs. Without any key it is open on loopback, and closed elsewhere. A request
// that a browser sends for another site's page is refused everywhere (see gate.go). The requests that have an effect on pulls are a
// reload, a reset of what the mirror believes of an upstream, pins, a refresh of a tag, purges, and jobs of warm-up; each is logged with
// the name of the operator. The package does no I/O of its own.
package admin

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/diagnose/doctor"
	pages "github.com/registrymirror/mirror/docs/failures"
	"github.com/registrymirror/mirror/drift"
	"github.com/registrymirror/mirror/internal/coalesce"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

// Options for the admin handler. A field's comment says what nil or zero means.
type Options struct {
	Metrics http.Handler // nil: /metrics is 404
	Ready   func() error // nil, or a nil error: ready; else why not, in a few words
	// Keys are called at each request, so that a rotated token holds at once. Nil, or none: each caller may do everything on Loopback,
	// and nothing elsewhere.
	Keys func() Keys
	Log  *slog.Logger // nil: discard
	// Loopback says that the listener can be reached from this machine alone. Then it answers to the names of loopback, and
	// to Hosts.
	Loopback bool
	// Hosts are further names of the listener, without ports: the one under which it was configured, and those by which a
	// proxy in front of it calls it. Nil: none.
	Hosts []string
	// Upstreams returns the state of the registries in use. Nil: there is no /api/v1/upstreams.
	Upstreams func() []Upstream
	// Reset forgets what is believed of an upstream: its limits, endpoints that are down, and refusals. It returns the names
	// of the registries that it was done for, none for an unknown name. Nil: there is no /api/v1/upstreams/reset.
	Reset func(upstream string) []string
	// Failures is the record of pulls that failed. Nil: there is no /api/v1/failures.
	Failures Record
	// Doctor examines an image from where the mirror runs. Nil: there is no /api/v1/doctor.
	Doctor func(ctx context.Context, image, platform string) *doctor.Report
	// Self checks the mirror itself, and asks its upstreams. Nil: GET /api/v1/doctor does not exist.
	Self func(ctx context.Context) *doctor.MirrorReport
	// Cache returns what is cached. Nil: there is no /api/v1/cache.
	Cache func() Cache
	// Pulls returns the running pulls, or the finished ones. Nil: there is no /api/v1/pulls.
	Pulls func(ctx context.Context, active bool) ([]journal.Pull, error)
	// Tags is the ledger of tags, with pins and purges. Nil: there are no routes for them.
	Tags Ledger
	// Uses are the pods and workloads of the cluster that name each tag; notes say what could not be read. Nil: none are known.
	Uses func(ctx context.Context) (by map[oci.Ref][]string, notes []string, err error)
	// Held are the tags in use that pulls do not get as their registries have them, as of the last look. Nil: not known.
	Held func() []HeldTag
	// Drift looks for tags that mean different digests to different clients or pods. Nil: there is no /api/v1/tags/drift.
	Drift func(ctx context.Context) (drift.Report, error)
	// Coverage compares the images on nodes with their pulls. Nil: there is no /api/v1/coverage.
	Coverage func(ctx context.Context) (coverage.Report, error)
	// Warm runs jobs that fetch images ahead of time. Nil: there are no routes for them.
	Warm Warmer
	// Schedules are those that begin jobs of Warm, in the order of the configuration. Nil: there are none.
	Schedules func() []Schedule
	// About describes the process. Nil: there is no /api/v1/status.
	About func() About
	// Reload reads the configuration again and uses it; a *NotReloaded says why it did not. Nil: there is no /api/v1/reload.
	Reload func(ctx context.Context) (Reloaded, error)
}

// New returns the handler of the admin listener.
func New(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := router{chi.NewRouter(), &o}
	r.Use(o.gate)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		Problem(w, http.StatusNotFound, fmt.Sprintf("%s does not exist; /api/v1/openapi.yaml lists the API, and there are /metrics, "+
			"/healthz, /readyz and /debug/pprof/", r.URL.EscapedPath()))
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		Problem(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s does not support %s", r.URL.EscapedPath(), r.Method))
	})
	r.health(o.Ready)
	r.add(http.MethodGet, "/docs/failures/", Open, http.HandlerFunc(doc))
	r.add(http.MethodGet, "/docs/failures/{page}", Open, http.HandlerFunc(doc))
	if o.Metrics != nil {
		r.add(http.MethodGet, "/metrics", ReadAll, o.Metrics)
	}
	x := &explainer{record: o.Failures, turn: make(chan struct{}, 1)}
	t := tags{ledger: o.Tags, uses: &remembered[uses]{}, readUses: o.Uses, log: o.Log}
	found := &remembered[drift.Report]{}
	d := &examinations{o: &o, running: coalesce.Group[DoctorRequest, *doctor.Report]{Most: maxExaminations}}
	c := &coverages{read: o.Coverage, running: coalesce.Group[struct{}, coverage.Report]{Most: 1}}
	s := &selfChecks{run: o.Self, running: coalesce.Group[struct{}, *doctor.MirrorReport]{Most: 1, Lasting: true}}
	j := newWarming(&o)
	for _, route := range []struct {
		method, path string
		right        Right
		there        bool
		handle       func(http.ResponseWriter, *http.Request) (any, error)
	}{
		{http.MethodGet, "upstreams", ReadAll, o.Upstreams != nil, o.listUpstreams},
		{http.MethodPost, "upstreams/reset", OperateAll, o.Reset != nil, o.resetUpstream},
		{http.MethodGet, "failures", Read, o.Failures != nil, o.listFailures},
		{http.MethodGet, "failures/summary", Read, o.Failures != nil, o.summarizeFailures},
		{http.MethodGet, "pulls", Read, o.Pulls != nil, o.listPulls},
		{http.MethodGet, "cache", ReadAll, o.Cache != nil, func(http.ResponseWriter, *http.Request) (any, error) { return o.Cache(), nil }},
		{http.MethodGet, "tags", Read, o.Tags != nil, t.list},
		{http.MethodGet, "tags/drift", Read, o.Drift != nil, func(_ http.ResponseWriter, r *http.Request) (any, error) { return o.listDrift(r, found) }},
		{http.MethodGet, "coverage", Read, o.Coverage != nil, c.list},
		{http.MethodPost, "tags/refresh", Operate, o.Tags != nil, t.refresh},
		{http.MethodGet, "pins", Read, o.Tags != nil, t.pins},
		{http.MethodPut, "pins", Operate, o.Tags != nil, t.pin},
		{http.MethodDelete, "pins", Operate, o.Tags != nil, t.unpin},
		{http.MethodPost, "purge", Operate, o.Tags != nil, t.purge},
		{http.MethodPost, "warm", Operate, o.Warm != nil, j.submit},
		{http.MethodGet, "warm", Read, o.Warm != nil, j.jobs},
		{http.MethodPost, "warm/verify", Read, o.Warm != nil, j.verify},
		{http.MethodGet, "warm/{id}", Read, o.Warm != nil, j.job},
		{http.MethodDelete, "warm/{id}", Operate, o.Warm != nil, j.cancel},
		{http.MethodGet, "warm/{id}/events", Read, o.Warm != nil, j.events},
		{http.MethodGet, "status", ReadAll, o.About != nil, o.status},
		{http.MethodPost, "reload", OperateAll, o.Reload != nil, o.reload},
		{http.MethodPost, "explain", Read, true, x.explain},
		{http.MethodGet, "doctor", ReadAll, o.Self != nil, s.check},
		{http.MethodPost, "doctor", Read, o.Doctor != nil, d.examineImage},
	} {
		if route.there {
			r.add(route.method, "/api/v1/"+route.path, route.right, typed(answer(route.handle)))
		}
	}
	r.add(http.MethodGet, "/api/v1/openapi.yaml", Read, http.HandlerFunc(openAPI))
	r.profiles()
	return r.Router
}

// doc answers with the page about a reason, as it is in this version, or with the list of reasons. No token is required: the
// pages are public.
func doc(w http.ResponseWriter, r *http.Request) {
	text, ok := pages.Find(strings.TrimPrefix(r.URL.Path, "/docs/failures/"))
	if !ok {
		Problem(w, http.StatusNotFound, "there is no such page; /docs/failures/ lists the pages")
		return
	}
	writeText(w, http.StatusOK, text)
}

// document describes the API. Tests hold it against the routes, the parameters and the types.
//
//go:embed openapi.yaml
var document []byte

func openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(document)
}

// NewMetrics returns the handler of a listener for metrics alone, whose routes are open. Of the options it uses Metrics,
// Ready, Loopback and Hosts.
func NewMetrics(o Options) http.Handler {
	r := router{chi.NewRouter(), &o}
	r.Use(o.gate)
	r.health(o.Ready)
	r.add(http.MethodGet, "/metrics", Open, o.Metrics)
	return r.Router
}

func (r router) health(ready func() error) {
	r.add(http.MethodGet, "/healthz", Open, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }))
	r.add(http.MethodGet, "/readyz", Open, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if ready != nil {
			if err := ready(); err != nil {
				writeText(w, http.StatusServiceUnavailable, err.Error())
				return
			}
		}
		writeText(w, http.StatusOK, "ready")
	}))
}
