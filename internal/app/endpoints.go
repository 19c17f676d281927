package app

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/upstream"
)

// endpointOf makes an endpoint of its settings. files are what it has read for it.
func endpointOf(u config.Upstream, e config.Endpoint) (_ upstream.Endpoint, files [][]byte, err error) {
	read := func(key, path string) (b []byte) {
		if path == "" || err != nil {
			return nil
		}
		if b, err = os.ReadFile(path); err != nil {
			err = fmt.Errorf("%s of %s: %w; it names a PEM file that this user can read", key, e.URL, err)
		}
		files = append(files, b)
		return b
	}
	where, err := url.Parse(e.URL)
	if err != nil {
		return upstream.Endpoint{}, nil, fmt.Errorf("endpoint: %w", err)
	}
	endpoint := upstream.Endpoint{URL: where, Prefix: e.Prefix, Registry: u.Itself(e), AuthHosts: e.AuthHosts}
	ca, cert, key := read("ca", e.CA), read("clientCert", e.ClientCert), read("clientKey", e.ClientKey)
	if err != nil {
		return upstream.Endpoint{}, nil, err
	}
	if e.CA != "" {
		if endpoint.RootCAs, err = withCA(e.CA, ca); err != nil {
			return upstream.Endpoint{}, nil, err
		}
	}
	if e.ClientCert != "" {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return upstream.Endpoint{}, nil, fmt.Errorf("clientCert %s with clientKey %s: %w; they must be PEM files that "+
				"belong together", e.ClientCert, e.ClientKey, err)
		}
		endpoint.Certificate = &pair
	}
	switch e.Proxy {
	case "":
	case "none":
		endpoint.Proxy = func(*url.URL) (*url.URL, error) { return nil, nil }
	default:
		proxy, err := url.Parse(e.Proxy)
		if err != nil {
			return upstream.Endpoint{}, nil, fmt.Errorf("proxy of %s: %w", e.URL, err)
		}
		endpoint.Proxy = func(*url.URL) (*url.URL, error) { return proxy, nil }
	}
	return endpoint, files, nil
}

// State says how the endpoints of each upstream in use are.
func (s *sites) State() map[string][]upstream.EndpointStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string][]upstream.EndpointStatus, len(s.running))
	for name, st := range s.registries() {
		all[name] = st.registry.State()
	}
	return all
}

// endpointCollector shows how endpoints are. Its labels are those of the configuration in use.
type endpointCollector struct {
	state func() map[string][]upstream.EndpointStatus
	up    *prometheus.Desc
	runs  *prometheus.Desc
	waits *prometheus.Desc
	limit *prometheus.Desc
	left  *prometheus.Desc
}

func newEndpointCollector(state func() map[string][]upstream.EndpointStatus) *endpointCollector {
	labels := []string{"upstream", "endpoint"}
	return &endpointCollector{
		state: state,
		up: prometheus.NewDesc("mirror_upstream_endpoint_up",
			"0 while an endpoint of an upstream is down, so that others are asked before it; else 1.", labels, nil),
		runs: prometheus.NewDesc("mirror_upstream_transfers",
			"Blobs that an endpoint sends now; maxTransfers is the most.", labels, nil),
		waits: prometheus.NewDesc("mirror_upstream_transfers_waiting",
			"Blobs that wait for their turn at an endpoint.", labels, nil),
		limit: prometheus.NewDesc("mirror_ratelimit_limit",
			"The limit of requests of a credential, or of anonymous pulls, as the registry has last said.",
			[]string{"upstream", "credential"}, nil),
		left: prometheus.NewDesc("mirror_ratelimit_remaining",
			"What is left of the limit, as the registry has last said; absent where it says nothing, and once it is over.",
			[]string{"upstream", "credential"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *endpointCollector) Describe(to chan<- *prometheus.Desc) {
	to <- c.up
	to <- c.runs
	to <- c.waits
	to <- c.limit
	to <- c.left
}

// Collect implements prometheus.Collector.
func (c *endpointCollector) Collect(to chan<- prometheus.Metric) {
	for name, list := range c.state() {
		c.limits(to, name, list)
		for _, e := range list {
			up := 1.0
			if e.State == upstream.EndpointOpen {
				up = 0
			}
			to <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up, name, e.URL)
			to <- prometheus.MustNewConstMetric(c.runs, prometheus.GaugeValue, float64(e.Running), name, e.URL)
			to <- prometheus.MustNewConstMetric(c.waits, prometheus.GaugeValue, float64(e.Waiting), name, e.URL)
		}
	}
}

// limits shows of each credential what was said last, by whichever endpoint and of whichever address.
func (c *endpointCollector) limits(to chan<- prometheus.Metric, name string, list []upstream.EndpointStatus) {
	last := make(map[string]upstream.Budget)
	for _, e := range list {
		for _, b := range e.Budgets {
			if !b.At.Before(last[b.Credential].At) {
				last[b.Credential] = b
			}
		}
	}
	for credential, b := range last {
		if credential == "" {
			credential = "anonymous"
		}
		if !time.Now().Before(b.MoreAt()) {
			continue
		}
		to <- prometheus.MustNewConstMetric(c.left, prometheus.GaugeValue, float64(b.Remaining), name, credential)
		if b.Limit >= 0 {
			to <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(b.Limit), name, credential)
		}
	}
}
