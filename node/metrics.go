package node

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves /metrics, and /healthz, which answers for as long as the agent runs: for a mirror that is down the agent is not
// started anew.
func (a *Agent) Handler() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mirror_node_configured", Help: "1 while this node pulls through the mirror, 0 while it pulls from the registries.",
		}, func() float64 {
			if a.inPlace() {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mirror_node_login_refused", Help: "1 while the mirror does not accept this node's login, 0 while it does, or the node shows none.",
		}, func() float64 {
			if a.State() == Refused {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mirror_node_login_unreadable", Help: "1 while this node's login can't be read any more, and the last one that was read counts.",
		}, func() float64 {
			if a.State() == Unreadable {
				return 1
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mirror_node_withdrawals_total", Help: "How often the configuration was withdrawn since the mirror did not answer.",
		}, func() float64 { return float64(a.withdrawals.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mirror_node_failed_probes_total", Help: "Questions to the mirror that it did not answer.",
		}, func() float64 { return float64(a.failures.Load()) }),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	return mux
}
