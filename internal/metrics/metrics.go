package metrics

import (
	"cmp"
	"maps"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/share"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

// Metrics counts, and serves what it has counted. Its methods may be called from anywhere.
type Metrics struct {
	registry *prometheus.Registry
	entry    func(host string) string // the name of an upstream in the configuration; "none": it is not there

	requests, clientBytes, pulls, failures *prometheus.CounterVec
	upRequests, upBytes                    *prometheus.CounterVec
	upSeconds, seconds, first              *prometheus.HistogramVec
	reloadOK, reloadAt                     prometheus.Gauge
	credentials, webhooks, moves, runs     *prometheus.CounterVec
	clients                                struct{ logins, limits, connections *prometheus.CounterVec }

	mu      sync.Mutex // guards writing answers
	answers atomic.Pointer[map[answer]counters]
}

// New returns Metrics of a build. entry returns the name of an upstream in the configuration: hosts that fit a pattern count
// under the pattern, since clients choose them. Nil: hosts are counted as they are called.
func New(version string, entry func(host string) string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), entry: func(host string) string {
		if entry != nil {
			host = entry(host)
		}
		return cmp.Or(host, "none")
	}}
	m.answers.Store(&map[answer]counters{})
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
	m.failures = counter("mirror_failures_total", "Pulls that failed, by the cause, without those that were declined.",
		"upstream", "class", "reason")
	m.seconds = histogram("mirror_request_seconds", "Time from a client's request to the last byte of its answer.",
		"kind")
	m.first = histogram("mirror_first_byte_seconds", "Time from a client's request to the first byte of its answer, of those that did not "+
		"fail.", "kind", "result")
	m.upRequests = counter("mirror_upstream_requests_total",
		"Requests to upstreams, redirects and token services; code is 0 where no answer came.",
		"upstream", "kind", "code")
	m.upBytes = counter("mirror_upstream_bytes_total", "Bytes of bodies received from upstreams.", "upstream")
	m.upSeconds = histogram("mirror_upstream_request_seconds", "Time from a request to an upstream to the last byte "+
		"of its answer.", "upstream", "kind")
	m.moves = counter("mirror_tag_moves_total", "Moves of tags that were pulled before, as the mirror saw them.", "upstream", "kind")
	m.credentials = counter("mirror_credential_refreshes_total", "Attempts to get a credential from its source.",
		"upstream", "credential", "result")
	m.webhooks = counter("mirror_webhooks_total", "Reports that came to a webhook: accepted, ignored (about no tag of this mirror), "+
		"duplicate, denied (secret or signature), invalid, limited (too many) or failed.", "name", "result")
	m.clients.logins = counter("mirror_logins_total", "Logins of clients that were checked, and not those that were remembered: accepted, refused, "+
		"limited (not checked, after many wrong ones) or unavailable (not checked in time).", "method", "result")
	m.clients.limits = counter("mirror_client_limits_total", "Requests that a limit of clients.limits has held: waited (for its turn), refused (no turn in "+
		"time) or paced (its blob waited for bandwidth).", "result")
	m.clients.connections = counter("mirror_connections_ended_total", "Connections of clients that the mirror has ended or refused: idle (for a new "+
		"one), overloaded (told so), refused, slow-header, stalled (nothing was read for a minute; of HTTP/2 each such stream counts, and its "+
		"connection stays) or http2-flood.", "cause")
	for _, cause := range server.ConnEnds() { // as Upstream does, and why
		m.clients.connections.WithLabelValues(string(cause))
	}
	for _, result := range []share.Event{share.Waited, share.Refused, share.Paced} {
		m.clients.limits.WithLabelValues(string(result))
	}
	m.runs = counter("mirror_warm_schedule_runs_total", "Times of schedules, and moves of their tags: started (a job), skipped (the last "+
		"job still ran) or refused (by the quotas of jobs).", "name", "result")

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
	m.registry.MustRegister(m.reloadOK, m.reloadAt, info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Upstream begins the series of an entry of the configuration at zero. Prometheus sees a counter rise only from one scrape to the
// next: if a series began with the first event, no alert would see that event.
func (m *Metrics) Upstream(name string) {
	for _, outcome := range []journal.Outcome{journal.Served, journal.Stale, journal.Declined, journal.Failed, journal.Looked} {
		m.pulls.WithLabelValues(name, string(outcome))
	}
	for _, kind := range []pull.MoveKind{pull.Moved, pull.MovedBack, pull.MovedImmutable} {
		m.moves.WithLabelValues(name, string(kind))
	}
}

// Handler serves a scrape.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

var kindLabels = map[oci.Kind]string{
	oci.KindPing: "ping", oci.KindManifest: "manifest", oci.KindBlob: "blob", oci.KindTags: "tags", oci.KindReferrers: "referrers",
}

// Request counts a request that was answered.
func (m *Metrics) Request(r journal.Request) {
	result := cmp.Or(string(r.Outcome), "ok")
	switch {
	case r.Finding != nil:
		result = "error"
	case r.Aborted:
		result = "aborted"
	case r.Stale:
		result = "stale"
	}
	x := m.countersOf(answer{m.entry(r.Upstream), cmp.Or(kindLabels[r.Kind], "other"), result})
	x.requests.Inc()
	x.bytes.Add(float64(r.Bytes))
	x.seconds.Observe(r.Took.Seconds())
	if r.Finding == nil && r.First > 0 {
		x.first.Observe(r.First.Seconds())
	}
}

// answer is the labels by which requests are counted.
type answer struct{ upstream, kind, result string }

// counters are the series of an answer. Finding them by their labels is a tenth of what a manifest costs.
type counters struct {
	requests, bytes prometheus.Counter
	seconds, first  prometheus.Observer
}

// countersOf reads a map without a lock, which is copied to be written to: its keys are few, and soon all there. A sync.Map
// would allocate its key for each request.
func (m *Metrics) countersOf(a answer) counters {
	if x, ok := (*m.answers.Load())[a]; ok {
		return x
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := maps.Clone(*m.answers.Load())
	x := counters{
		requests: m.requests.WithLabelValues(a.upstream, a.kind, a.result),
		bytes:    m.clientBytes.WithLabelValues(a.upstream),
		seconds:  m.seconds.WithLabelValues(a.kind),
		first:    m.first.WithLabelValues(a.kind, a.result),
	}
	next[a] = x
	m.answers.Store(&next)
	return x
}

// Pull counts a pull that is over.
func (m *Metrics) Pull(p journal.Pull) {
	name := m.entry(p.Upstream)
	m.pulls.WithLabelValues(name, string(p.Outcome)).Inc()
	if p.Outcome == journal.Failed && p.Finding != nil {
		m.failures.WithLabelValues(name, string(p.Finding.Class), string(p.Finding.Reason)).Inc()
	}
}

// ConnectionEnded counts a connection that the mirror has ended or refused.
func (m *Metrics) ConnectionEnded(cause string) {
	m.clients.connections.WithLabelValues(cause).Inc()
}

// ClientLimit counts a request that a limit of its client has held.
func (m *Metrics) ClientLimit(result string) { m.clients.limits.WithLabelValues(result).Inc() }

// Moved counts a move of a tag.
func (m *Metrics) Moved(v pull.Move) {
	m.moves.WithLabelValues(m.entry(v.Ref.Host), string(v.Kind)).Inc()
}

// Received returns the function that counts the bytes of an upstream as they arrive.
func (m *Metrics) Received(name string) func(int) {
	c := m.upBytes.WithLabelValues(name)
	return func(n int) { c.Add(float64(n)) }
}

// Exchange returns the function that counts the requests to an upstream.
func (m *Metrics) Exchange(name string) func(endpoint.Exchange) {
	return func(x endpoint.Exchange) {
		kind := string(x.Kind)
		m.upRequests.WithLabelValues(name, kind, strconv.Itoa(x.Status)).Inc()
		m.upSeconds.WithLabelValues(name, kind).Observe(x.Took.Seconds())
	}
}

// Refreshed returns the function that counts the attempts to get a credential of an upstream from its source.
func (m *Metrics) Refreshed(name string) func(credential string, err error) {
	return func(credential string, err error) {
		result := "ok"
		if err != nil {
			result = "error"
		}
		m.credentials.WithLabelValues(name, credential, result).Inc()
	}
}

// Login counts a login of a client that was checked.
func (m *Metrics) Login(method identity.Method, result identity.Result) {
	m.clients.logins.WithLabelValues(string(method), string(result)).Inc()
}

// Webhook counts a report that came to a webhook of the configuration.
func (m *Metrics) Webhook(name, result string) { m.webhooks.WithLabelValues(name, result).Inc() }

// Scheduled counts what came of a time of a schedule.
func (m *Metrics) Scheduled(name, result string) { m.runs.WithLabelValues(name, result).Inc() }

// Reloaded counts a reload of the configuration. A nil error: it was taken.
func (m *Metrics) Reloaded(err error) {
	if err != nil {
		m.reloadOK.Set(0)
		return
	}
	m.reloadOK.Set(1)
	m.reloadAt.SetToCurrentTime()
}

// Bytes are the bytes of bodies that upstreams have sent, and that clients have been sent, since the start.
func (m *Metrics) Bytes() (upstreams, clients int64) { return sum(m.upBytes), sum(m.clientBytes) }

// sum is the sum over all series of a counter.
func sum(c prometheus.Collector) int64 {
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, _ := r.Gather() // an error is that of a single series, which doesn't count then
	total := 0.0
	for _, f := range families {
		for _, series := range f.GetMetric() {
			total += series.GetCounter().GetValue()
		}
	}
	return int64(total)
}
