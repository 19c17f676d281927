package chart_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"
)

// TestReadme compares README.md of the chart with what values.yaml says of each value.
func TestReadme(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("| value | default | |\n|---|---|---|\n")
	for _, l := range leaves(valuesFile(t), nil) {
		if l.description == "" || !strings.HasSuffix(l.description, ".") {
			t.Errorf("%s has no comment in values.yaml that ends as a sentence, but %q", l.name(), l.description)
		}
		b.WriteString("| `" + l.name() + "` | " + defaultOf(t, l.value) + " | " + strings.ReplaceAll(l.description, "|", "\\|") + " |\n")
	}
	text := read(t, filepath.Join(chartDir, "README.md.tmpl"))
	golden(t, filepath.Join(chartDir, "README.md"), strings.Replace(text, "{{values}}\n", b.String(), 1))
}

func defaultOf(t *testing.T, n *yaml.Node) string {
	t.Helper()
	var v any
	if err := n.Decode(&v); err != nil {
		t.Fatal(err)
	}
	switch v := v.(type) {
	case string:
		if strings.Contains(v, "\n") {
			return "see `values.yaml`"
		}
		if v == "" {
			return "`\"\"`"
		}
		return "`" + v + "`"
	default:
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) > 60 {
			return "see `values.yaml`"
		}
		return "`" + string(out) + "`"
	}
}

// TestChartFile holds Chart.yaml together: what Artifact Hub shows as image is the one that is used.
func TestChartFile(t *testing.T) {
	t.Parallel()
	var c struct {
		Version     string            `yaml:"version"`
		AppVersion  string            `yaml:"appVersion"`
		Annotations map[string]string `yaml:"annotations"`
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(chartDir, "Chart.yaml"))), &c); err != nil {
		t.Fatal(err)
	}
	if c.AppVersion != "v"+c.Version {
		t.Errorf("the chart %s is of the version %s of the mirror; the two go together", c.Version, c.AppVersion)
	}
	if image := "image: ghcr.io/registrymirror/mirror:" + c.AppVersion + "\n"; !strings.Contains(c.Annotations["artifacthub.io/images"], image) {
		t.Errorf("artifacthub.io/images lacks %q", image)
	}
	for _, o := range decode(t, rendered(t, "helm", "agent: {enabled: true}")) {
		if pod := podOf(o.value); pod != nil && pod.Spec.Containers[0].Image != "ghcr.io/registrymirror/mirror:"+c.AppVersion {
			t.Errorf("%s has the image %s", o.id(), pod.Spec.Containers[0].Image)
		}
	}
}
