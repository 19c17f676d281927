package app

import (
	"maps"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// metrics are what operators alert on. Labels take values from the configuration and from closed lists alone: a client
// can't make series.
type metrics struct {
	registry *prometheus.Registry
	entry    func(host string) string // what the configuration calls an upstream

	requests, clientBytes, pulls, failures *prometheus.CounterVec
	upRequests, upBytes                    *prometheus.CounterVec
	upSeconds, seconds                     *prometheus.HistogramVec
	reloadOK, reloadAt                     prometheus.Gauge
	credentials                            *prometheus.CounterVec

	answers resolved[answer, counters]
}

func newMetrics(version string, c *cache.Cache) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), entry: func(host string) string { return host }}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help,
			Buckets: []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 120, 600},
		}, labels)
		m.registry.MustRegister(v)
		return v
	}
	m.requests = counter("mirror_requests_total", "Requests of clients under /v2/, by what the cache did.",
		"upstream", "kind", "result")
	m.clientBytes = counter("mirror_client_bytes_total", "Bytes of bodies sent to clients.", "upstream")
	m.pulls = counter("mirror_pulls_total", "Pulls of images that are over, by how they went.",
		"upstream", "outcome")
	m.failures = counter("mirror_failures_total", "Pulls that failed, by the cause. What was declined is not among them.",
		"upstream", "class", "reason")
	m.seconds = histogram("mirror_request_seconds", "Time from a client's request to the last byte of its answer.",
		"kind")
	m.upRequests = counter("mirror_upstream_requests_total",
		"Requests to upstreams, redirects and token services; code is 0 where no answer came.",
		"upstream", "kind", "code")
	m.upBytes = counter("mirror_upstream_bytes_total", "Bytes of bodies received from upstreams.", "upstream")
	m.upSeconds = histogram("mirror_upstream_request_seconds", "Time from a request to an upstream to the last byte "+
		"of its answer.", "upstream", "kind")
	m.credentials = counter("mirror_credential_refreshes_total", "Attempts to get a credential from its source.",
		"upstream", "credential", "result")

	m.reloadOK = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mirror_config_reload_success",
		Help: "1 if the last reload of the configuration was taken, 0 if the old one stays in use.",
	})
	m.reloadAt = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mirror_config_reload_timestamp_seconds",
		Help: "When the configuration in use was taken.",
	})
	m.reloadOK.Set(1)
	m.reloadAt.SetToCurrentTime()
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "mirror_build_info", Help: "1; the labels tell the build."},
		[]string{"version", "goversion"})
	info.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(m.reloadOK, m.reloadAt, info, newCacheCollector(c.Stats), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func kindLabel(k oci.Kind) string {
	switch k {
	case oci.KindPing:
		return "ping"
	case oci.KindManifest:
		return "manifest"
	case oci.KindBlob:
		return "blob"
	case oci.KindTags:
		return "tags"
	case oci.KindReferrers:
		return "referrers"
	}
	return "other"
}

// request counts what the front end tells.
func (m *metrics) request(r journal.Request) {
	name, kind := m.entry(r.Upstream), kindLabel(r.Kind)
	if name == "" {
		name = "none" // not one of ours
	}
	result := string(r.Outcome)
	switch {
	case r.Finding != nil:
		result = "error"
	case r.Aborted:
		result = "aborted"
	case r.Stale:
		result = "stale"
	case result == "":
		result = "ok"
	}
	x := m.answers.get(answer{name, kind, result}, m.resolve)
	x.requests.Inc()
	x.bytes.Add(float64(r.Bytes))
	x.seconds.Observe(r.Took.Seconds())
}

// answer is what requests are counted by.
type answer struct{ upstream, kind, result string }

// counters are the series of an answer. Finding them by their labels is a tenth of what a manifest costs.
type counters struct {
	requests, bytes prometheus.Counter
	seconds         prometheus.Observer
}

func (m *metrics) resolve(a answer) counters {
	return counters{
		requests: m.requests.WithLabelValues(a.upstream, a.kind, a.result),
		bytes:    m.clientBytes.WithLabelValues(a.upstream),
		seconds:  m.seconds.WithLabelValues(a.kind),
	}
}

// resolved is a map that is read without a lock, and copied to be written to: its keys are few, and soon all there.
type resolved[K comparable, V any] struct {
	mu sync.Mutex // guards writing
	m  atomic.Pointer[map[K]V]
}

func (r *resolved[K, V]) get(k K, resolve func(K) V) V {
	if m := r.m.Load(); m != nil {
		if v, ok := (*m)[k]; ok {
			return v
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[K]V)
	if m := r.m.Load(); m != nil {
		maps.Copy(next, *m)
	}
	v := resolve(k)
	next[k] = v
	r.m.Store(&next)
	return v
}

// pull counts what the journal has made of requests.
func (m *metrics) pull(p journal.Pull) {
	name := m.entry(p.Upstream)
	if name == "" {
		name = "none"
	}
	m.pulls.WithLabelValues(name, string(p.Outcome)).Inc()
	if p.Outcome == journal.Failed && p.Finding != nil {
		m.failures.WithLabelValues(name, string(p.Finding.Class), string(p.Finding.Reason)).Inc()
	}
}

// received returns what counts an upstream's bytes as they arrive.
func (m *metrics) received(name string) func(int) {
	c := m.upBytes.WithLabelValues(name)
	return func(n int) { c.Add(float64(n)) }
}

// exchange returns what counts an upstream's exchanges.
func (m *metrics) exchange(name string) func(upstream.Exchange) {
	return func(x upstream.Exchange) {
		kind := string(x.Kind)
		m.upRequests.WithLabelValues(name, kind, strconv.Itoa(x.Status)).Inc()
		m.upSeconds.WithLabelValues(name, kind).Observe(x.Took.Seconds())
	}
}

// server adds what the front end knows of itself.
func (m *metrics) server(s interface{ InFlight() int }) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mirror_requests_in_flight",
		Help: "Requests of clients that are being answered.",
	}, func() float64 { return float64(s.InFlight()) }))
}

// reloaded tells how a reload ended.
func (m *metrics) reloaded(err error) {
	if err != nil {
		m.reloadOK.Set(0)
		return
	}
	m.reloadOK.Set(1)
	m.reloadAt.SetToCurrentTime()
}
