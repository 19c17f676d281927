package metrics

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

var descPattern = regexp.MustCompile(`fqName: "(mirror_[a-z_]+)", help: "(.*?)", (?:unit: ".*?", )?constLabels: \{.*?\}, variableLabels: \{(.*?)\}`)

// docs/metrics.md has a row for each metric, with its labels and its help.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	m := New("test", nil)
	m.ReadCache(nil, nil)
	m.ReadUpstreams(nil, nil)
	m.ReadRevocations(nil)
	m.ReadEvents(nil)
	m.ReadServer(nil)
	m.ReadDrift(nil)
	m.ReadCoverage(nil, true)
	m.ReadWarm(nil)
	m.ReadFeed(nil, nil)
	descs := make(chan *prometheus.Desc, 1000)
	m.registry.Describe(descs)
	close(descs)
	var want []string
	for d := range descs {
		if p := descPattern.FindStringSubmatch(d.String()); p != nil {
			labels := strings.Join(strings.Split(p[3], ","), ", ")
			want = append(want, "| `"+p[1]+"` | "+labels+" | "+strings.ReplaceAll(p[2], `\"`, `"`)+" |")
		}
	}
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "| `mirror_") {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/metrics.md (-code +page):\n%s", diff)
	}
}
