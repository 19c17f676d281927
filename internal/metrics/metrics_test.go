package metrics_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/metrics"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
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
	holds(t, m,
		`mirror_pulls_total{outcome="served",upstream="docker.io"} 2`,
		`mirror_pulls_total{outcome="failed",upstream="docker.io"} 1`,
		`mirror_pulls_total{outcome="declined",upstream="none"} 1`,
		`mirror_failures_total{class="network",reason="dns-failed",upstream="docker.io"} 1`,
		`mirror_upstream_bytes_total{upstream="docker.io"} 100`)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if strings.Contains(w.Body.String(), `reason="dns-failed",upstream="none"`) {
		t.Error("what was declined is counted as failed")
	}
}

// A counter of a configured upstream is there before its first event: an alert sees a rise from 0 to 1, and no first value of 1.
func TestSeriesOfAnUpstreamBeginAtZero(t *testing.T) {
	t.Parallel()
	m := metrics.New("1", nil)
	m.Upstream("docker.io")
	m.Moved(pull.Move{Ref: oci.Ref{Repo: oci.Repo{Host: "docker.io"}}, Kind: pull.Moved})
	m.Upstream("docker.io") // a reload
	holds(t, m,
		`mirror_tag_moves_total{kind="immutable",upstream="docker.io"} 0`,
		`mirror_tag_moves_total{kind="moved",upstream="docker.io"} 1`,
		`mirror_pulls_total{outcome="stale",upstream="docker.io"} 0`,
		`mirror_pulls_total{outcome="failed",upstream="docker.io"} 0`)
}

// The time to the first byte is that of answers with content: a refusal is quick, and would hide slow ones.
func TestFirstByte(t *testing.T) {
	t.Parallel()
	m := metrics.New("1", nil)
	blob := journal.Request{Kind: oci.KindBlob, Outcome: cache.Miss, First: 2 * time.Second, Took: time.Minute}
	m.Request(blob)
	blob.Finding = &diagnose.Finding{Reason: diagnose.DNSFailed}
	m.Request(blob)
	m.Request(journal.Request{Kind: oci.KindBlob, Outcome: cache.Miss, Aborted: true}) // the client left before the answer
	holds(t, m,
		`mirror_first_byte_seconds_bucket{kind="blob",result="miss",le="1"} 0`,
		`mirror_first_byte_seconds_bucket{kind="blob",result="miss",le="2.5"} 1`,
		`mirror_first_byte_seconds_count{kind="blob",result="error"} 0`,
		`mirror_first_byte_seconds_count{kind="blob",result="aborted"} 0`)
}

// holds reports lines that a scrape lacks.
func holds(t *testing.T, m *metrics.Metrics, lines ...string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range lines {
		if !strings.Contains(w.Body.String(), "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}
