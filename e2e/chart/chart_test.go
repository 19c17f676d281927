package chart_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	chartDir     = "../../deploy/helm/mirror"
	kustomizeDir = "../../deploy/kustomize"
)

// update is whether files are written that the tests compare with.
var update = os.Getenv("UPDATE") != ""

// built is the path of a program that e2e/install.sh has built. A missing one fails the test: nothing is skipped.
func built(t *testing.T, name string) string {
	t.Helper()
	cache := os.Getenv("MIRROR_E2E_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(home, ".cache", "mirror-e2e")
	}
	path := filepath.Join(cache, "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; run e2e/install.sh", err)
	}
	return path
}

// command runs a program, and returns what it prints. An error holds what it says on stderr.
func command(t *testing.T, stdin, program string, args ...string) (string, error) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), built(t, program), args...)
	cmd.Env = []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "HELM_CACHE_HOME=" + home, "HELM_CONFIG_HOME=" + home, "HELM_DATA_HOME=" + home,
	}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// helms are Helm 4 and Helm 3, as install.sh names them.
var helms = []string{"helm", "helm-3/helm"}

// template renders the chart with values in YAML. The version of Kubernetes is given, since one that Helm was built without is
// rather old.
func template(t *testing.T, helm, values string, args ...string) (string, error) {
	t.Helper()
	return command(t, values, helm, append([]string{
		"template", "mirror", chartDir, "--namespace", "mirror", "--kube-version", "1.37.0", "--values", "-",
	}, args...)...)
}

// rendered is template for values that have to be right.
func rendered(t *testing.T, helm, values string, args ...string) string {
	t.Helper()
	out, err := template(t, helm, values, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// cases are the files of deploy/helm/mirror/ci, by name.
func cases(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(chartDir, "ci", "*-values.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no values to test with: %v", err)
	}
	all := make(map[string]string, len(paths))
	for _, p := range paths {
		all[strings.TrimSuffix(filepath.Base(p), "-values.yaml")] = read(t, p)
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// golden compares a text with a file, or writes the file.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // for all readers of the repository
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil { //nolint:gosec // as above
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run make manifests", err)
	}
	if diff := cmp.Diff(string(b), got); diff != "" {
		t.Errorf("%s is not what the chart makes; run make manifests, and look at what changes (-file +now):\n%s", path, diff)
	}
}

var emptyLines = regexp.MustCompile(`\n(\s*\n)+`)

// TestMatrix renders the chart with each of the values of ci, by Helm 3 and 4: the output is the same, is what testdata has, consists
// of objects that the API server takes, and has a configuration that the mirror takes.
func TestMatrix(t *testing.T) {
	t.Parallel()
	for name, values := range cases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var outputs []string
			for _, helm := range helms {
				// The two differ in the empty lines between documents.
				outputs = append(outputs, emptyLines.ReplaceAllString(rendered(t, helm, values), "\n"))
			}
			if diff := cmp.Diff(outputs[0], outputs[1]); diff != "" {
				t.Errorf("Helm 3 renders something else (-4 +3):\n%s", diff)
			}
			// The dashboards are files of their own, and larger than all else.
			golden(t, filepath.Join("testdata", name+".yaml"), shorten(outputs[0]))
			all := decode(t, outputs[0])
			unique(t, all)
			checkPods(t, name, all)
			checkConfig(t, all)
			checkReferences(t, all)
		})
	}
}

var dashboard = regexp.MustCompile(`(?m)^(  \S+\.json: \|\n)(    .*\n)+`)

func shorten(output string) string { return dashboard.ReplaceAllString(output, "$1    ...\n") }

// unique reports objects that would overwrite each other.
func unique(t *testing.T, all []object) {
	t.Helper()
	var seen []string
	for _, o := range all {
		if slices.Contains(seen, o.id()) {
			t.Errorf("%s is there twice", o.id())
		}
		seen = append(seen, o.id())
	}
}

// TestRefused has values that do not fit together: the error names the value to change.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, values, says string }{
		{"a port of nodes without a mirror", "endpoint: {type: HostPort}", "endpoint.type: HostPort needs kind: DaemonSet"},
		{"a folder for two replicas", "cache: {volume: hostPath}", "cache.volume: hostPath needs kind: DaemonSet"},
		{"claims of a DaemonSet", "{kind: DaemonSet, cache: {volume: claim}}", "cache.volume: claim needs kind: StatefulSet"},
		{"an admin listener on the node", "{kind: DaemonSet, endpoint: {type: HostPort, hostNetwork: true}}", "endpoint.hostNetwork needs admin.tokenSecret"},
		{
			"the node's network for another port", "{kind: DaemonSet, endpoint: {hostNetwork: true}, admin: {tokenSecret: x}}",
			"endpoint.hostNetwork needs endpoint.type: HostPort",
		},
		{"an address that is not fixed", "{endpoint: {type: ClusterIP}, agent: {enabled: true}}", "needs endpoint.clusterIP"},
		{"a load balancer without a name", "{endpoint: {type: LoadBalancer}, agent: {enabled: true}}", "needs endpoint.url"},
		{"nothing", "kind: None", "kind: None needs agent.enabled"},
		{"a mirror elsewhere, but where", "{kind: None, agent: {enabled: true}}", "kind: None needs endpoint.url"},
		{"no way to the mirror's image", "agent: {enabled: true, default: true, noFallback: true}", "agent.noFallback with agent.default"},
		{"a configuration that is not YAML", `config: "upstreams: ["`, "config is not YAML"},
		{"a listener that the chart decides", `config: "listen: :80"`, "config has listen: set endpoint.port of the chart"},
		{"a folder that the chart decides", `config: "cache: {dir: /x}"`, "config has cache.dir"},
		{"a size that the chart decides", `config: "cache: {size: 1GiB}"`, "config has cache.size: set cache.size of the chart"},
		{"a time that the chart decides", `config: "drain: 1h"`, "config has drain: set drainSeconds of the chart"},
		{"an admin listener that the chart decides", `config: "admin: {listen: ':1'}"`, "config has admin.listen"},
		{"an admin token that the chart decides", `config: "admin: {tokenFile: /x}"`, "config has admin.tokenFile: set admin.tokenSecret"},
		{"a metrics listener that the chart decides", `config: "metrics: {listen: ':1'}"`, "config has metrics.listen: set metrics.port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, helm := range helms {
				if _, err := template(t, helm, tt.values); err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%s: %v", helm, err)
				}
			}
		})
	}
}

// TestMemory gives Go nine tenths of the container's memory, in each form of a quantity.
func TestMemory(t *testing.T) {
	t.Parallel()
	for limit, want := range map[string]string{"1Gi": "921MiB", "1.5Gi": "1382MiB", "2G": "1716MiB", "512Mi": "460MiB", "800M": "686MiB"} {
		for _, helm := range helms {
			if out := rendered(t, helm, "resources: {limits: {memory: "+limit+"}}"); !regexp.MustCompile(`name: GOMEMLIMIT\n +value: ` + want + `\n`).MatchString(out) {
				t.Errorf("%s: %s is not %s", helm, limit, want)
			}
		}
	}
}

// TestAgentRollout: the agents are replaced for a new list of registries, not for other settings of these.
func TestAgentRollout(t *testing.T) {
	t.Parallel()
	annotation := regexp.MustCompile(`mirror/registries: \S+`)
	of := func(upstreams string) string {
		return annotation.FindString(rendered(t, helms[0], "{agent: {enabled: true}, config: 'upstreams: "+upstreams+"'}"))
	}
	before := of("{docker.io: {}}")
	if now := of("{docker.io: {tags: {maxAge: 5m}}}"); before == "" || now != before {
		t.Errorf("%q, and with another maxAge %q", before, now)
	}
	for _, upstreams := range []string{"{docker.io: {}, quay.io: {}}", "{docker.io: {endpoints: [http://10.0.0.7:5000]}}"} {
		if now := of(upstreams); now == before {
			t.Errorf("the list %s is the same", upstreams)
		}
	}
}

// TestLint has both Helms look at the chart.
func TestLint(t *testing.T) {
	t.Parallel()
	for _, helm := range helms {
		if out, err := command(t, "", helm, "lint", "--strict", chartDir, "--kube-version", "1.37.0"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
