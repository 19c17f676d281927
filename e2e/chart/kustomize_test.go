package chart_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	psaapi "k8s.io/pod-security-admission/api"
	psa "k8s.io/pod-security-admission/policy"
	sigsyaml "sigs.k8s.io/yaml"
)

// overlays are the folders of deploy/kustomize/overlays, with the file of ci whose values each has, and what it is.
var overlays = map[string]struct{ values, is string }{
	"agent":        {"agent", "The mirror as in ../../base, and the agent on each node: nodes pull at their own address, port 30500."},
	"daemonset":    {"daemonset", "A mirror and an agent on each node, with a cache that is lost with its pod; nodes pull at their own address, port 30500."},
	"hostport":     {"hostport", "A mirror and an agent on each node, with the cache in /var/lib/mirror of the node; nodes pull at their own address, port 5000."},
	"loadbalancer": {"balanced", "The mirror behind a load balancer. Nodes are configured by mirror setup, with its name."},
	"monitoring":   {"monitoring", "As ../agent, with the objects of the Prometheus Operator and the dashboards for Grafana's sidecar."},
}

// made begins each file.
const made = "# Made from deploy/helm/mirror by \"make manifests\": change the chart, not this.\n"

// ofHelm are the lines that only a release of Helm has.
var ofHelm = regexp.MustCompile(`(?m)^( *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*|# Source: .*)\n`)

// plain renders the chart without what only Helm uses: hooks, and its labels. Each document has an object.
func plain(t *testing.T, values string) (docs []string) {
	t.Helper()
	out := emptyLines.ReplaceAllString(ofHelm.ReplaceAllString(rendered(t, "helm", values, "--no-hooks"), ""), "\n")
	return append([]string{namespace(t, out)}, documents(t, out)...)
}

// namespace is the one that the objects are in. It enforces the Pod Security Standard that all of its pods keep.
func namespace(t *testing.T, out string) string {
	t.Helper()
	evaluator, err := psa.NewEvaluator(psa.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := psaapi.LevelRestricted
	for _, o := range decode(t, out) {
		if pod := podOf(o.value); pod != nil && !psa.AggregateCheckResults(evaluator.EvaluatePod(
			psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)).Allowed {
			level = psaapi.LevelPrivileged
		}
	}
	return "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: mirror\n  labels:\n    pod-security.kubernetes.io/enforce: " + string(level) + "\n"
}

// byID are the objects of documents.
func byID(t *testing.T, docs []string) map[string]any {
	t.Helper()
	all := make(map[string]any)
	for _, o := range decode(t, strings.Join(docs, "---\n")) {
		all[o.id()] = asJSON(t, o.text)
	}
	return all
}

// step is one of a JSON patch.
type step struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// steps make b of a. Lists are replaced as a whole.
func steps(a, b any, path string) (list []step) {
	before, ok := a.(map[string]any)
	after, ok2 := b.(map[string]any)
	if !ok || !ok2 {
		if cmp.Equal(a, b) {
			return nil
		}
		return []step{{"replace", path, b}}
	}
	keys := slices.Sorted(maps.Keys(merged(before, after)))
	for _, k := range keys {
		at := path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(k)
		switch _, had := before[k]; {
		case !had:
			list = append(list, step{"add", at, after[k]})
		case after[k] == nil:
			list = append(list, step{"remove", at, nil})
		default:
			list = append(list, steps(before[k], after[k], at)...)
		}
	}
	return list
}

// indented is a value as YAML, indented.
func indented(t *testing.T, v any, by string) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		b, err = sigsyaml.JSONToYAML(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return by + strings.ReplaceAll(strings.TrimSuffix(string(b), "\n"), "\n", "\n"+by) + "\n"
}

// overlay is the kustomization that makes the objects of target out of those of base, and the objects that base lacks.
func overlay(t *testing.T, base, target []string, is string) (kustomization, added string) {
	t.Helper()
	had := decode(t, strings.Join(base, "---\n"))
	want := byID(t, target)
	var more []string
	for _, o := range decode(t, strings.Join(target, "---\n")) {
		if !slices.ContainsFunc(had, func(h object) bool { return h.id() == o.id() }) {
			more = append(more, strings.Trim(o.text, "\n")+"\n")
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s# %s\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - ../../base\n", made, is)
	if len(more) > 0 {
		b.WriteString("  - added.yaml\n")
		added = made + strings.Join(more, "---\n")
	}
	var patches bytes.Buffer
	for _, o := range had {
		next, ok := want[o.id()]
		target := "  - target: {kind: " + o.kind + ", name: " + o.name + "}\n    patch: |-\n"
		switch {
		case !ok:
			patches.WriteString("  - patch: |-\n" + indented(t, map[string]any{
				"apiVersion": asJSON(t, o.text).(map[string]any)["apiVersion"], "kind": o.kind, "$patch": "delete",
				"metadata": map[string]any{"name": o.name, "namespace": o.namespace},
			}, "      "))
		case !cmp.Equal(asJSON(t, o.text), next):
			patches.WriteString(target + indented(t, steps(asJSON(t, o.text), next, ""), "      "))
		}
	}
	if patches.Len() > 0 {
		b.WriteString("patches:\n" + patches.String())
	}
	return b.String(), added
}

// TestKustomize compares deploy/kustomize with the chart: its files, and what kustomize makes of them.
func TestKustomize(t *testing.T) {
	t.Parallel()
	values := cases(t)
	base := plain(t, values["default"])
	at := filepath.Join(kustomizeDir, "base")
	golden(t, filepath.Join(at, "kustomization.yaml"), made+
		"# One mirror with a cache of 50Gi, at each node's own address, port 30500. Nodes don't use it before they are configured.\n"+
		"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - mirror.yaml\n")
	golden(t, filepath.Join(at, "mirror.yaml"), made+strings.Join(base, "---\n"))
	same(t, at, base)
	for name, o := range overlays {
		target := plain(t, values[o.values])
		kustomization, added := overlay(t, base, target, o.is)
		at := filepath.Join(kustomizeDir, "overlays", name)
		golden(t, filepath.Join(at, "kustomization.yaml"), kustomization)
		if added != "" {
			golden(t, filepath.Join(at, "added.yaml"), added)
		}
		same(t, at, target)
	}
}

// same compares what kustomize makes of a folder with objects.
func same(t *testing.T, dir string, want []string) {
	t.Helper()
	out, err := command(t, "", "kustomize", "build", dir)
	if err != nil {
		t.Error(err)
		return
	}
	if diff := cmp.Diff(byID(t, want), byID(t, documents(t, out))); diff != "" {
		t.Errorf("kustomize makes something else of %s (-chart +kustomize):\n%s", dir, diff)
	}
}
