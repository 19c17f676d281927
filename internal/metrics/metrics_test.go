package metrics_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/metrics"
	"github.com/registrymirror/mirror/journal"
)

// A pull is counted once, by how it went, and only what failed has a cause: a refusal that leaves the node free to go on
// has none.
func TestPullsAreCounted(t *testing.T) {
	t.Parallel()
	m := metrics.New("1", nil)
	why := &diagnose.Finding{Reason: diagnose.DNSFailed, Class: diagnose.ClassNetwork}
	for _, p := range []journal.Pull{
		{Upstream: "docker.io", Outcome: journal.Served},
		{Upstream: "docker.io", Outcome: journal.Served},
		{Upstream: "docker.io", Outcome: journal.Failed, Finding: why},
		{Outcome: journal.Declined, Finding: why},
	} {
		m.Pull(p)
	}
	m.Received("docker.io")(100)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`mirror_pulls_total{outcome="served",upstream="docker.io"} 2`,
		`mirror_pulls_total{outcome="failed",upstream="docker.io"} 1`,
		`mirror_pulls_total{outcome="declined",upstream="none"} 1`,
		`mirror_failures_total{class="network",reason="dns-failed",upstream="docker.io"} 1`,
		`mirror_upstream_bytes_total{upstream="docker.io"} 100`,
	} {
		if !strings.Contains(w.Body.String(), "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(w.Body.String(), `reason="dns-failed",upstream="none"`) {
		t.Error("what was declined is counted as failed")
	}
}
