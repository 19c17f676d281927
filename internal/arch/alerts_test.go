package arch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// alert is a rule of deploy/helm/mirror/files/alerts.yaml.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

const pages = "https://github.com/registrymirror/mirror/blob/main/"

var (
	heading = regexp.MustCompile(`(?m)^## (\w+)$`)
	number  = regexp.MustCompile(`\$value|\d`)
)

// The alerts are few, each says with a number what happens and links to the section about it, and docs/metrics.md and docs/alerts.md
// have the same list. What the expressions find is tested by Prometheus itself, in e2e.
func TestAlertsAreDocumented(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	b, err := os.ReadFile(filepath.Join(root, "deploy", "helm", "mirror", "files", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	var alerts []alert
	for _, g := range file.Groups {
		alerts = append(alerts, slices.DeleteFunc(g.Rules, func(a alert) bool { return a.Alert == "" })...)
	}
	if n := len(alerts); n == 0 || n > 12 {
		t.Errorf("there are %d alerts, want at most 12: an operator must be able to know them all", n)
	}
	var want []string
	for _, a := range alerts {
		anchor := strings.ToLower(a.Alert)
		if got := a.Annotations["runbook_url"]; got != pages+"docs/alerts.md#"+anchor {
			t.Errorf("%s: the runbook %q is not the section of docs/alerts.md", a.Alert, got)
		}
		if s := a.Annotations["summary"]; !number.MatchString(s) || strings.Count(strings.TrimSuffix(s, "."), ". ") > 0 || !strings.HasSuffix(s, ".") {
			t.Errorf("%s: the summary is not one sentence with a number: %q", a.Alert, s)
		}
		critical := a.Labels["severity"] == "critical"
		if !critical && a.Labels["severity"] != "warning" {
			t.Errorf("%s: severity %q, want critical or warning", a.Alert, a.Labels["severity"])
		}
		if critical && !slices.Contains([]string{"MirrorAbsent", "MirrorPullsFailing"}, a.Alert) {
			t.Errorf("%s pages, and it does not stop pods", a.Alert)
		}
		want = append(want, fmt.Sprintf("| [%s](alerts.md#%s) | %s |", a.Alert, anchor, a.Labels["severity"]))
	}
	var listed []string
	for line := range strings.Lines(section(t, root, "docs/metrics.md", "What to alert on")) {
		if cells := strings.Split(line, "|"); strings.HasPrefix(line, "| [") && len(cells) > 3 {
			listed = append(listed, "|"+cells[1]+"|"+cells[2]+"|")
		}
	}
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Errorf("docs/metrics.md, What to alert on (-alerts.yaml +page):\n%s", diff)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "alerts.md"))
	if err != nil {
		t.Fatal(err)
	}
	var described []string
	for _, m := range heading.FindAllStringSubmatch(string(page), -1) {
		described = append(described, fmt.Sprintf("| [%s](alerts.md#%s) |", m[1], strings.ToLower(m[1])))
	}
	for i, line := range want {
		want[i] = line[:strings.LastIndex(strings.TrimSuffix(line, "|"), "|")+1]
	}
	if diff := cmp.Diff(want, described); diff != "" {
		t.Errorf("docs/alerts.md (-alerts.yaml +page):\n%s", diff)
	}
}
