package metrics

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/drift"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/limit"
	"github.com/registrymirror/mirror/warm"
	"github.com/registrymirror/mirror/warm/feed"
)

const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue

var cacheSeries = []series[cache.Stats]{
	single(gauge, "mirror_cache_bytes",
		"Bytes of content in the cache.", func(s cache.Stats) int64 { return s.Bytes }),
	single(gauge, "mirror_cache_size_bytes",
		"The budget of cache.size.", func(s cache.Stats) int64 { return s.Size }),
	single(gauge, "mirror_cache_objects",
		"Pieces of content in the cache.", func(s cache.Stats) int64 { return s.Objects }),
	single(gauge, "mirror_cache_reserved_bytes",
		"Bytes reserved for downloads under way and parked.", func(s cache.Stats) int64 { return s.Reserved }),
	single(gauge, "mirror_cache_parked",
		"Unfinished downloads that wait for a client to come back.", func(s cache.Stats) int64 { return s.Parked }),
	single(gauge, "mirror_cache_held_bytes",
		"Bytes of content that was evicted and is still read: on the disk, and not in mirror_cache_bytes.", func(s cache.Stats) int64 { return s.Held }),
	single(gauge, "mirror_cache_disk_free_bytes",
		"Free bytes of the disk of cache.dir, when it was last checked.", func(s cache.Stats) int64 { return s.Disk.Space.Free }),
	single(gauge, "mirror_cache_degraded",
		"1 if the disk of cache.dir is full, read-only, gone or fails, so that new content is served uncached.",
		func(s cache.Stats) int64 { return int64(oneIf(s.Degraded)) }),
	single(counter, "mirror_cache_hits_total",
		"Blobs that were served from the cache.", func(s cache.Stats) int64 { return s.Hits }),
	single(counter, "mirror_cache_misses_total",
		"Blobs whose download a client began.", func(s cache.Stats) int64 { return s.Misses }),
	single(counter, "mirror_cache_joined_total",
		"Blobs whose download under way a client joined.", func(s cache.Stats) int64 { return s.Joined }),
	single(counter, "mirror_cache_uncached_total",
		"Blobs that were served straight from their upstream.", func(s cache.Stats) int64 { return s.Uncached }),
	single(counter, "mirror_cache_evicted_total",
		"Pieces of content that were removed to make room.", func(s cache.Stats) int64 { return s.Evicted }),
	single(counter, "mirror_cache_evicted_bytes_total",
		"Bytes of content that were removed to make room.", func(s cache.Stats) int64 { return s.EvictedBytes }),
}

var scrubSeries = []series[disk.ScrubStats]{
	single(counter, "mirror_cache_scrubbed_total",
		"Pieces of content that were read again.", func(s disk.ScrubStats) int64 { return s.Blobs }),
	single(counter, "mirror_cache_scrubbed_bytes_total",
		"Bytes of content that were read again.", func(s disk.ScrubStats) int64 { return s.Bytes }),
	single(counter, "mirror_cache_damaged_total",
		"Pieces of content that were found damaged when they were read again, and removed.", func(s disk.ScrubStats) int64 { return s.Damaged }),
}

var eventSeries = []series[kube.Stats]{
	single(counter, "mirror_kubernetes_events_total",
		"Events posted on pods, or counted up.", func(s kube.Stats) int64 { return s.Posted }),
	single(counter, "mirror_kubernetes_events_dropped_total",
		"Failures without an Event, because there were too many at once.", func(s kube.Stats) int64 { return s.Dropped }),
	single(counter, "mirror_kubernetes_errors_total",
		"Requests that the API server did not answer as it should; the log says why.", func(s kube.Stats) int64 { return s.Errors }),
}

var warmSeries = []series[warm.Stats]{
	{
		gauge, "mirror_warm_jobs", "Warm-up jobs that are not over, by state.",
		[]string{"state"},
		func(s warm.Stats, emit emit) {
			for _, state := range []warm.State{warm.Queued, warm.Running} {
				emit(float64(s.Jobs[state]), string(state))
			}
		},
	},
	{
		gauge, "mirror_warm_jobs_waiting", "Warm-up jobs of which nothing moves, by the cause.",
		[]string{"cause"},
		func(s warm.Stats, emit emit) {
			for code, n := range s.Waiting {
				emit(float64(n), code)
			}
		},
	},
	{
		counter, "mirror_warm_jobs_total", "Warm-up jobs that are over, by how they ended: done, failed (at least one image) or cancelled.",
		[]string{"state"},
		func(s warm.Stats, emit emit) {
			for _, state := range []warm.State{warm.Done, warm.Failed, warm.Cancelled} {
				emit(float64(s.Jobs[state]), string(state))
			}
		},
	},
	{
		counter, "mirror_warm_images_total", "Images of warm-up jobs that are over, by how they ended.",
		[]string{"state"},
		func(s warm.Stats, emit emit) {
			for state, n := range s.Images {
				emit(float64(n), string(state))
			}
		},
	},
	{
		counter, "mirror_warm_failures_total", "Images that warm-up jobs could not bring, by the class of the cause.",
		[]string{"class"},
		func(s warm.Stats, emit emit) {
			for class, n := range s.Causes {
				emit(float64(n), string(class))
			}
		},
	},
	single(counter, "mirror_warm_bytes_total",
		"Bytes of blobs that warm-up jobs have fetched.", func(s warm.Stats) int64 { return s.Bytes }),
	single(gauge, "mirror_warm_kept_bytes",
		"Bytes of content that warm-up jobs keep from eviction; warm.maxShare bounds it.", func(s warm.Stats) int64 { return s.Kept }),
	single(gauge, "mirror_warm_transfers",
		"Blobs that warm-up jobs fetch now; warm.parallel is the most.", func(s warm.Stats) int64 { return s.Running }),
}

var feedSeries = []series[feed.Stats]{
	single(gauge, "mirror_feed_objects",
		"Pods and workloads of the cluster that the feed knows.", func(s feed.Stats) int64 { return int64(s.Objects) }),
	single(gauge, "mirror_feed_images",
		"Images of configured upstreams that these name.", func(s feed.Stats) int64 { return int64(s.Images) }),
	single(gauge, "mirror_feed_images_warm",
		"Of these, those that the last job has brought.", func(s feed.Stats) int64 { return int64(s.Warm) }),
	single(gauge, "mirror_feed_images_failing",
		"Of these, those that the last job could not bring; mirror warm ls has the jobs.", func(s feed.Stats) int64 { return int64(s.Failing) }),
}

var followSeries = []series[kube.FollowStats]{
	single(counter, "mirror_feed_lists_total",
		"Lists of pods and workloads that the feed has read.", func(s kube.FollowStats) int64 { return s.Lists }),
	single(counter, "mirror_feed_errors_total",
		"Requests of the feed that the API server did not answer as it should; the log says why.", func(s kube.FollowStats) int64 { return s.Errors }),
}

// endpointMap are the endpoints of each upstream, by its name in the configuration.
type endpointMap = map[string][]endpoint.Status

var endpointLabels, limitLabels = []string{"upstream", "endpoint"}, []string{"upstream", "credential"}

var endpointSeries = []series[endpointMap]{
	{
		gauge, "mirror_upstream_endpoint_up", "0 while an endpoint of an upstream is down, so that others are asked before it; else 1.",
		endpointLabels, perEndpoint(func(e endpoint.Status) float64 { return oneIf(e.State != endpoint.StateOpen) }),
	},
	{
		gauge, "mirror_upstream_transfers", "Blobs that an endpoint sends now; maxTransfers is the most.",
		endpointLabels, perEndpoint(func(e endpoint.Status) float64 { return float64(e.Running) }),
	},
	{
		gauge, "mirror_upstream_transfers_waiting", "Blobs that wait for their turn at an endpoint.",
		endpointLabels, perEndpoint(func(e endpoint.Status) float64 { return float64(e.Waiting) }),
	},
	{
		gauge, "mirror_ratelimit_limit",
		"The limit of requests of a credential, or of anonymous pulls, as the registry has last reported it.",
		limitLabels, perLimit(func(b limit.Budget) (float64, bool) { return float64(b.Limit), b.Limit >= 0 }),
	},
	{
		gauge, "mirror_ratelimit_remaining",
		"The requests that remain of the limit, as the registry has last reported it; absent where it reports nothing, and once the " +
			"limit has been reset.",
		limitLabels, perLimit(func(b limit.Budget) (float64, bool) { return float64(b.Remaining), true }),
	},
}

// oneIf is 1 for what is so, else 0.
func oneIf(so bool) float64 {
	if so {
		return 1
	}
	return 0
}

func perEndpoint(value func(endpoint.Status) float64) func(endpointMap, emit) {
	return func(all endpointMap, emit emit) {
		for name, list := range all {
			for _, e := range list {
				emit(value(e), name, e.URL)
			}
		}
	}
}

// perLimit emits a value of each credential's limit. The most recent report counts, of whichever endpoint and address it is.
func perLimit(value func(limit.Budget) (float64, bool)) func(endpointMap, emit) {
	return func(all endpointMap, emit emit) {
		for name, list := range all {
			last := make(map[string]limit.Budget)
			for _, e := range list {
				for _, b := range e.Budgets {
					if !b.At.Before(last[b.Credential].At) {
						last[b.Credential] = b
					}
				}
			}
			for credential, b := range last {
				if v, ok := value(b); ok && time.Now().Before(b.MoreAt()) {
					emit(v, name, cmp.Or(credential, "anonymous"))
				}
			}
		}
	}
}

// credentialMap are the credentials of each upstream, by its name in the configuration.
type credentialMap = map[string][]upstream.CredentialStatus

var credentialSeries = []series[credentialMap]{
	{
		gauge, "mirror_credential_expiry_seconds",
		"How long until a credential expires; below zero once it has; absent where that isn't known. It is renewed when " +
			"half of its life is over: little time left means that it can't be.",
		limitLabels, perCredential(func(st upstream.CredentialStatus, emit emit, labels ...string) {
			if !st.Expires.IsZero() {
				emit(time.Until(st.Expires).Seconds(), labels...)
			}
		}),
	},
	{
		gauge, "mirror_credential_refresh_timestamp_seconds", "When a credential last came from its source, as a time since 1970.",
		limitLabels, perCredential(func(st upstream.CredentialStatus, emit emit, labels ...string) {
			if !st.LastRefresh.IsZero() {
				emit(float64(st.LastRefresh.Unix()), labels...)
			}
		}),
	},
	{
		gauge, "mirror_credential_state",
		"1 for the state that a credential is in: unknown, ok, expiring (it can't be renewed, and still works), expired, " +
			"rejected (by the registry), or failing (its source).",
		[]string{"upstream", "credential", "state"},
		perCredential(func(st upstream.CredentialStatus, emit emit, labels ...string) {
			for _, state := range upstream.CredentialStates {
				emit(oneIf(st.State == state), append(labels, string(state))...)
			}
		}),
	},
}

func perCredential(values func(st upstream.CredentialStatus, emit emit, labels ...string)) func(credentialMap, emit) {
	return func(all credentialMap, emit emit) {
		for name, list := range all {
			for _, st := range list {
				values(st, emit, name, st.Name)
			}
		}
	}
}

// ReadCache adds the numbers of the cache and of its scrubbing.
func (m *Metrics) ReadCache(stats func() cache.Stats, scrubbed func() disk.ScrubStats) {
	m.registry.MustRegister(newTable(stats, cacheSeries), newTable(scrubbed, scrubSeries))
}

// ReadUpstreams adds the state of endpoints, with the limits that they have reported, and of credentials, by the upstream's
// name in the configuration.
func (m *Metrics) ReadUpstreams(endpoints func() endpointMap, credentials func() credentialMap) {
	m.registry.MustRegister(newTable(endpoints, endpointSeries), newTable(credentials, credentialSeries))
}

// ReadRevocations adds when the lists of revoked certificates of clients and operators end.
func (m *Metrics) ReadRevocations(lists func() []identity.List) {
	m.registry.MustRegister(newTable(lists, []series[[]identity.List]{{
		gauge, "mirror_client_crl_expiry_seconds", "How long until a list of revoked certificates of clients (setting clients.crl) or operators " +
			"(admin.operators.crl) ends; below zero once it has. Seven days after its end no certificate of its authority counts.",
		[]string{"setting", "authority"},
		func(now []identity.List, emit emit) {
			for _, l := range now {
				if !l.Ends.IsZero() {
					emit(time.Until(l.Ends).Seconds(), l.Setting, l.Issuer)
				}
			}
		},
	}}))
}

// ReadEvents adds the numbers of Events on pods.
func (m *Metrics) ReadEvents(stats func() kube.Stats) {
	m.registry.MustRegister(newTable(stats, eventSeries))
}

// Drift are the labels of a number of tags that mean different images.
type Drift struct {
	Upstream string
	Kind     drift.Kind
}

// ReadDrift adds the numbers of tags that drift.
func (m *Metrics) ReadDrift(counts func() map[Drift]int) {
	m.registry.MustRegister(newTable(counts, []series[map[Drift]int]{{
		gauge, "mirror_tag_drift", "Tags that mean different images in different places, as of the last look, at most five minutes ago.",
		[]string{"upstream", "kind"},
		func(now map[Drift]int, emit emit) {
			for of, n := range now {
				emit(float64(n), of.Upstream, string(of.Kind))
			}
		},
	}}))
}

// ReadCoverage adds the numbers of images that came to nodes through the mirror. byNode adds a series for each node. The report is
// nil before the first look.
func (m *Metrics) ReadCoverage(report func() *coverage.Report, byNode bool) {
	state := []string{"state"}
	rows := []series[*coverage.Report]{
		{
			gauge, "mirror_coverage_images", "Images that run on nodes, by how they came there: through the mirror, missed (past it) or unknown; " +
				"as of the last look, at most five minutes ago.", state, func(r *coverage.Report, emit emit) {
				if r != nil {
					emit(float64(r.Summary.Through), string(coverage.Through))
					emit(float64(r.Summary.Missed), string(coverage.Missed))
					emit(float64(r.Summary.Unknown), string(coverage.Unknown))
				}
			},
		},
		{
			gauge, "mirror_coverage_nodes", "Nodes: missed if an image came past the mirror, through if all came through it that are known, or unknown.",
			state, func(r *coverage.Report, emit emit) {
				if r == nil {
					return
				}
				counts := make(map[coverage.State]int)
				for i := range r.Nodes {
					counts[r.Nodes[i].State()]++
				}
				for _, s := range coverage.States {
					emit(float64(counts[s]), string(s))
				}
			},
		},
	}
	if byNode {
		rows = append(rows, series[*coverage.Report]{
			gauge, "mirror_coverage_ratio", "The part of a node's images, of those that are known, that came through the mirror; with " +
				"kubernetes.coverageByNode alone.", []string{"node"}, func(r *coverage.Report, emit emit) {
				for i := range nodesOf(r) {
					if n := r.Nodes[i]; n.Images > 0 {
						emit(float64(n.Through)/float64(n.Images), n.Node)
					}
				}
			},
		})
	}
	m.registry.MustRegister(newTable(report, rows))
}

func nodesOf(r *coverage.Report) []coverage.NodeReport {
	if r == nil {
		return nil
	}
	return r.Nodes
}

// ReadWarm adds the numbers of warm-up jobs.
func (m *Metrics) ReadWarm(stats func() warm.Stats) {
	m.registry.MustRegister(newTable(stats, warmSeries))
}

// ReadFeed adds the numbers of the cluster feed.
func (m *Metrics) ReadFeed(stats func() feed.Stats, followed func() kube.FollowStats) {
	m.registry.MustRegister(newTable(stats, feedSeries), newTable(followed, followSeries))
}

// ReadServer adds the number of requests that are being answered.
func (m *Metrics) ReadServer(inFlight func() int) {
	m.registry.MustRegister(newTable(inFlight, []series[int]{
		single(gauge, "mirror_requests_in_flight", "Requests of clients that are being answered.", func(n int) int64 { return int64(n) }),
	}))
}
