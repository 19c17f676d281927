package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

const alertsFile = "../deploy/helm/mirror/files/alerts.yaml"

var (
	alertName = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)
	caseName  = regexp.MustCompile(`(?m)^  - name: "(fires|silent): `)
)

// edit is a change of a rule that its cases have to notice.
type edit struct{ alert, name, old, new string }

// edits are mistakes that are easily made in these expressions.
var edits = []edit{
	{"MirrorPullsFailing", "missing images count", "missing|undecided|client", "undecided|client"},
	{"MirrorPullsFailing", "private images count", "missing|undecided|client", "missing|client"},
	{"MirrorPullsFailing", "repositories without access count", "upstream-forbidden|", ""},
	{"MirrorPullsFailing", "names outside the configuration count", "unknown-upstream|", ""},
	{"MirrorPullsFailing", "failures from before the first scrape count", "and on (namespace, job, instance) (mirror_build_info offset 5m)", ""},
	{"MirrorPullsFailing", "first failures do not count", "mirror_failures_total offset 5m", "mirror_failures_total"},
	{"MirrorPullsFailing", "few of many count", "> 0.1", "> 0"},
	{"MirrorPullsFailing", "two pulls count", ">= 3", ">= 1"},
	{"MirrorPullsFailing", "mirrors count by themselves", "sum by (namespace, job, upstream) (\n", "sum by (namespace, job, upstream, instance) (\n"},
	{"MirrorCredentialFailing", "what still works does not count", "expiring|", ""},
	{"MirrorRateLimitLow", "the highest number counts", "min by", "max by"},
	{"MirrorEndpointDown", "the operator's label hides the mirror's", ", exported_endpoint)", ")"},
	{"MirrorDiskNotCaching", "every disk counts", "degraded == 1", "degraded >= 0"},
	{"MirrorContentDamaged", "damage of any time counts", "increase(mirror_cache_damaged_total[1d])", "mirror_cache_damaged_total"},
	{"MirrorTagMoved", "each mirror adds its own", "max by", "sum by"},
	{"MirrorTagMoved", "every move counts", `{kind="immutable"}`, ""},
	{"MirrorWarmUpFailing", "missing images count", "missing|undecided", "undecided"},
	{"MirrorNodesWithdrawn", "one node is not enough", "> 0\n", "> 0.5\n"},
}

// TestAlerts: promtool finds that each alert fires and is silent as its cases in testdata/alerts say, and that they notice when a
// rule is broken: without its wait, never firing, always firing, and by each of the edits.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool := tool.System(t, "promtool")
	proc.Must(t, proc.Options{}, promtool, "check", "rules", alertsFile)
	b, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	rules := string(b)
	names := alertName.FindAllStringSubmatch(rules, -1)
	if len(names) == 0 || len(names) > 12 {
		t.Fatalf("%d alerts, want 1 to 12", len(names))
	}
	for _, m := range names {
		name := m[1]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join("testdata", "alerts", name+".yaml")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			kinds := fmt.Sprint(caseName.FindAllStringSubmatch(string(b), -1))
			if !strings.Contains(kinds, "fires") || !strings.Contains(kinds, "silent") {
				t.Errorf("%s needs a case in which the alert fires and one in which it is silent", file)
			}
			proc.Must(t, proc.Options{}, promtool, "test", "rules", file)

			expr := regexp.MustCompile(`(?s)(- alert: ` + name + `\n +expr: ).*?(\n        (?:for|labels): )`)
			wait := regexp.MustCompile(`(?s)(- alert: ` + name + `\n.*?\n        )for: \w+\n        (labels: )`)
			broken := map[string]string{
				"never":  expr.ReplaceAllString(rules, "${1}vector(0) > 1${2}"),
				"always": expr.ReplaceAllString(rules, "${1}vector(1)${2}"),
			}
			if text := rules[strings.Index(rules, "- alert: "+name+"\n"):]; strings.Contains(strings.SplitN(text, "- alert: ", 3)[1], "\n        for: ") {
				broken["at once"] = wait.ReplaceAllString(rules, "${1}${2}")
			}
			for _, e := range edits {
				if e.alert == name {
					broken[e.name] = e.apply(t, rules)
				}
			}
			for what, text := range broken {
				if text == rules {
					t.Errorf("%s: the edit changes nothing", what)
					continue
				}
				if r := promtoolCases(t, promtool, string(b), text); r.Code == 0 || !strings.Contains(r.Text(), "FAILED") || !strings.Contains(r.Text(), "exp:") {
					t.Errorf("no case notices that the rule is broken: %s\n%s", what, r.Text())
				}
			}
		})
	}
}

// apply makes an edit in the rule of its alert; that of pulls has a second rule, at the beginning of the file.
func (e edit) apply(t *testing.T, rules string) string {
	t.Helper()
	at := strings.Index(rules, "- alert: "+e.alert+"\n")
	if e.alert == "MirrorPullsFailing" {
		at = 0
	}
	head, text := rules[:at], rules[at:]
	if !strings.Contains(text, e.old) {
		t.Errorf("%s: %q is not in the rule", e.name, e.old)
	}
	n := 1
	if at == 0 {
		n = 2 // both halves of the count
	}
	return head + strings.Replace(text, e.old, e.new, n)
}

// promtoolCases runs cases with other rules.
func promtoolCases(t *testing.T, promtool, cases, rules string) proc.Result {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "cases.yaml")
	cases = regexp.MustCompile(`(?m)^rule_files: .*$`).ReplaceAllString(cases, "rule_files: [rules.yaml]")
	for path, text := range map[string]string{file: cases, filepath.Join(dir, "rules.yaml"): rules} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return proc.Run(t, proc.Options{}, promtool, "test", "rules", file)
}
