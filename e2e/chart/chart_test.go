package chart_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yaml "go.yaml.in/yaml/v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/registrymirror/mirror/config"
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
			checkPlaces(t, all)
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
		{"a variable that the chart decides", "extraEnv: [{name: MIRROR_LISTEN, value: ':80'}]", "extraEnv has MIRROR_LISTEN"},
		{"a variable of the agent that the chart decides", "agent: {extraEnv: [{name: HOST_IP, value: '1'}]}", "agent.extraEnv has HOST_IP"},
		{"a label that the chart decides", "commonLabels: {app.kubernetes.io/name: x}", "commonLabels has app.kubernetes.io/name"},
		{"a label of pods that the chart decides", "podLabels: {app.kubernetes.io/component: x}", "podLabels has app.kubernetes.io/component"},
		{"a label of agents that the chart decides", "agent: {podLabels: {app.kubernetes.io/instance: x}}", "agent.podLabels has app.kubernetes.io/instance"},
		{
			"a label of an object that the chart decides", "metrics: {serviceMonitor: {labels: {helm.sh/chart: x}}}",
			"metrics.serviceMonitor.labels has helm.sh/chart",
		},
		{"an annotation that the chart decides", "agent: {podAnnotations: {mirror/registries: x}}", "agent.podAnnotations has mirror/registries"},
		{"another port of the balancer", "endpoint: {type: LoadBalancer, url: 'https://mirror.example'}", "set endpoint.port=443"},
		{"another port in the URL", "endpoint: {type: LoadBalancer, port: 443, url: 'https://mirror.example:5000'}", "set endpoint.port=5000"},
		{"an IPv6 address without the port", "endpoint: {type: LoadBalancer, url: 'http://[2001:db8::1]'}", "set endpoint.port=80"},
		{"a name of the cluster", "endpoint: {url: 'http://mirror.mirror.svc:5000'}", "nodes can't resolve mirror.mirror.svc"},
		{"a long name of the cluster", "endpoint: {url: 'http://Mirror.Mirror.svc.cluster.local:5000'}", "nodes can't resolve mirror.mirror.svc.cluster.local"},
		{"a name of the cluster, for agents alone", "{kind: None, endpoint: {url: 'http://m.svc'}, agent: {enabled: true}}", "nodes can't resolve m.svc"},
		{"a URL without TLS", `{endpoint: {url: "http://mirror.example:30500"}, config: "tls: {cert: a, key: b}"}`, "endpoint.url begins with http://"},
		{
			"agents on nodes without a mirror", "{kind: DaemonSet, endpoint: {type: HostPort}, tolerations: [{key: a, operator: Exists}], agent: {enabled: true}}",
			"set agent.tolerations to the same as tolerations",
		},
		{
			"agents on other nodes", "{kind: DaemonSet, endpoint: {type: HostPort}, nodeSelector: {pool: a}, agent: {enabled: true}}",
			"set agent.nodeSelector to the same as nodeSelector",
		},
		{
			"agents by another affinity", "{kind: DaemonSet, endpoint: {type: HostPort}, affinity: {nodeAffinity: {a: b}}, agent: {enabled: true}}",
			"set agent.affinity.nodeAffinity to the same as affinity.nodeAffinity",
		},
		{"an authority that the agent does not see", "agent: {ca: /etc/ssl/ca.crt}", "agent.ca: /etc/ssl/ca.crt is not in agent.certsDir"},
		{"an authority above the folder", "agent: {ca: /etc/containerd/certs.d/../ca.crt}", "has .. in it"},
		{
			"a node's key that the agent does not see", "agent: {clientCert: /etc/containerd/certs.d/node.crt, clientKey: /etc/mirror/node.key}",
			"agent.clientKey: /etc/mirror/node.key is not in agent.certsDir",
		},
		{"a certificate of a node without its key", "agent: {clientCert: /etc/containerd/certs.d/node.crt}", "belong together"},
		{"the folder of settings for the cache", "cache: {hostPath: /etc}", "cache.hostPath: /etc is a folder of the system"},
		{"a folder of programs for the cache", "cache: {hostPath: /usr/local/mirror}", "cache.hostPath: /usr/local/mirror is a folder of the system"},
		{"the kubelet's folder for the cache", "cache: {hostPath: /var/lib/kubelet/x}", "cache.hostPath: /var/lib/kubelet/x is a folder of the system"},
		{"all programs' data for the cache", "cache: {hostPath: /var/lib}", "cache.hostPath: /var/lib is a folder of the system"},
		{"a way out of the cache's folder", "cache: {hostPath: /var/lib/mirror/../kubelet}", "or has .. in it"},
		{"containerd's settings for registries", "agent: {certsDir: /etc/containerd}", "agent.certsDir: /etc/containerd is a folder of the system"},
		{"programs for registries", "agent: {certsDir: /usr/bin/certs.d}", "agent.certsDir: /usr/bin/certs.d is a folder of the system"},
		{"a way out of the registries' folder", "agent: {certsDir: /etc/containerd/certs.d/../..}", "or has .. in it"},
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
	for limit, want := range map[string]string{
		"1Gi": "921MiB", "1.5Gi": "1382MiB", "2G": "1716MiB", "512Mi": "460MiB", "800M": "686MiB",
		"1073741824": "921MiB", "'1073741824'": "921MiB", "1048576Ki": "921MiB", "1e9": "858MiB", "'1e9'": "858MiB", "1000000k": "858MiB",
	} {
		for _, helm := range helms {
			if out := rendered(t, helm, "resources: {limits: {memory: "+limit+"}}"); !regexp.MustCompile(`name: GOMEMLIMIT\n +value: ` + want + `\n`).MatchString(out) {
				t.Errorf("%s: %s is not %s", helm, limit, want)
			}
		}
	}
}

// TestFoldersTaken: the folders of real nodes are none of the system's.
func TestFoldersTaken(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{
		"/etc/containerd/certs.d", "/var/snap/microk8s/current/args/certs.d", "/var/lib/rancher/k3s/agent/etc/containerd/certs.d",
		"/var/lib/rancher/rke2/agent/etc/containerd/certs.d", "/etc/cri/conf.d/hosts", "/opt/containerd/certs.d", "/var/vcap/jobs/containerd/certs.d",
	} {
		rendered(t, helms[0], "agent: {enabled: true, certsDir: "+dir+", ca: "+dir+"/ca.crt}")
	}
	for _, dir := range []string{"/var/lib/mirror", "/data", "/data/mirror", "/mnt/disks/ssd0/mirror", "/var/mirror", "/srv/mirror", "/opt/mirror/cache"} {
		rendered(t, helms[0], "{kind: DaemonSet, cache: {hostPath: "+dir+"}}")
	}
}

// TestVariables: the mirror knows its pod, and variables of the values replace the chart's where they may; none is there twice.
func TestVariables(t *testing.T) {
	t.Parallel()
	for values, want := range map[string]map[string]string{
		"{}": {"GOMEMLIMIT": "921MiB", "POD_NAME": ""},
		"extraEnv: [{name: POD_NAME, value: x}, {name: GOMEMLIMIT, value: 1GiB}]": {"GOMEMLIMIT": "1GiB", "POD_NAME": "x"},
	} {
		for _, o := range decode(t, rendered(t, helms[0], values)) {
			set, ok := o.value.(*appsv1.StatefulSet)
			if !ok {
				continue
			}
			got := make(map[string]string)
			for _, e := range set.Spec.Template.Spec.Containers[0].Env {
				if _, twice := got[e.Name]; twice {
					t.Errorf("%s: %s is there twice", values, e.Name)
				}
				got[e.Name] = e.Value
				if e.Name == "POD_NAME" && want["POD_NAME"] == "" && (e.ValueFrom == nil || e.ValueFrom.FieldRef.FieldPath != "metadata.name") {
					t.Errorf("%s: POD_NAME is %v", values, e)
				}
			}
			for name, value := range want {
				if now, there := got[name]; !there || now != value {
					t.Errorf("%s: %s is %q", values, name, now)
				}
			}
		}
	}
}

// TestDialTimeout: the time is that of mirror node run where the values name none, which is longer without a fallback.
func TestDialTimeout(t *testing.T) {
	t.Parallel()
	for values, want := range map[string]bool{
		"{enabled: true}": false, "{enabled: true, noFallback: true, registries: [docker.io]}": false, "{enabled: true, dialTimeout: 3s}": true,
	} {
		out := rendered(t, helms[0], "agent: "+values)
		if strings.Contains(out, "--dial-timeout=") != want || want && !strings.Contains(out, "--dial-timeout=3s") {
			t.Errorf("%s: another dial timeout", values)
		}
	}
}

// TestHelmTest: the pod of helm test trusts the mirror's authority and logs in, with files of Secrets that the values name.
func TestHelmTest(t *testing.T) {
	t.Parallel()
	const tls = `secrets: [other, pki]
config: "tls: {cert: /etc/mirror/secrets/pki/tls.crt, key: /etc/mirror/secrets/pki/tls.key}"
`
	for _, tt := range []struct {
		name, values   string
		ca, login, url string // Secrets, and how the mirror is called
		optional       bool
	}{
		{"plain", "{}", "", "", "http://mirror.mirror.svc:5000", false},
		{"TLS", tls, "pki", "", "https://mirror.mirror.svc:5000", true},
		{"TLS by a name", tls + "endpoint: {type: LoadBalancer, port: 443, url: 'https://mirror.example'}\n", "pki", "", "https://mirror.example", true},
		{"an authority elsewhere", tls + "test: {caSecret: authority}\n", "authority", "", "https://mirror.mirror.svc:5000", false},
		{"a login", "test: {loginSecret: builder}\n", "", "builder", "http://mirror.mirror.svc:5000", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var pod *corev1.Pod
			var set *config.Config
			for _, o := range decode(t, rendered(t, helms[0], tt.values)) {
				switch v := o.value.(type) {
				case *corev1.Pod:
					pod = v
				case *corev1.ConfigMap:
					if o.name != "mirror-test" {
						continue
					}
					path := t.TempDir() + "/config.yaml"
					write(t, path, v.Data["config.yaml"])
					var err error
					if set, err = config.Load(path, nil); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, host, _ := strings.Cut(tt.url, "://")
			u := set.Upstreams[0]
			if u.Name != host || u.Endpoints[0].URL != tt.url || len(u.Credentials) != min(len(tt.login), 1) {
				t.Errorf("it asks %s at %v", u.Name, u.Endpoints)
			}
			if args := pod.Spec.Containers[0].Args; args[len(args)-1] != host+"/registry.k8s.io/pause:3.10" {
				t.Errorf("it pulls %v", args)
			}
			ca, login, trusts := "", "", false
			for _, v := range pod.Spec.Volumes {
				switch v.Name {
				case "ca":
					if ca = v.Secret.SecretName; *v.Secret.Optional != tt.optional || len(v.Secret.Items) != 1 || v.Secret.Items[0].Key != "ca.crt" {
						t.Errorf("the volume is %v", v)
					}
				case "login":
					login = v.Secret.SecretName
				}
			}
			for _, e := range pod.Spec.Containers[0].Env {
				trusts = trusts || e.Name == "SSL_CERT_DIR"
			}
			if ca != tt.ca || login != tt.login || trusts != (ca != "") {
				t.Errorf("authority %q, login %q", ca, login)
			}
		})
	}
}

// TestAccessSettings: every setting by which clients identify themselves is in the values of ci, which TestMatrix has the mirror read, with
// each file that it names on a volume.
func TestAccessSettings(t *testing.T) {
	t.Parallel()
	var values struct{ Config string }
	if err := yaml.Unmarshal([]byte(cases(t)["access"]), &values); err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/config.yaml"
	write(t, path, values.Config)
	set, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var empty func(v reflect.Value, at string)
	empty = func(v reflect.Value, at string) {
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			switch f := v.Field(i); {
			case f.Kind() == reflect.Struct:
				empty(f, at+name+".")
			case f.Kind() == reflect.String && f.IsZero(): // limits, which are numbers, do not identify a client
				t.Errorf("ci/access-values.yaml lacks %s%s", at, name)
			}
		}
	}
	empty(reflect.ValueOf(set.Clients), "clients.")
	if set.TLS.Cert == "" || set.TLS.Key == "" || set.Admin.TLS.Cert == "" || set.Admin.TLS.Key == "" {
		t.Error("ci/access-values.yaml lacks a certificate")
	}
	if len(set.Rules) == 0 || len(set.Webhooks) == 0 {
		t.Error("ci/access-values.yaml lacks rules or webhooks")
	}
}

// TestUserOfTheNamespace: null takes the fixed user out, for clusters that give each namespace users of its own.
func TestUserOfTheNamespace(t *testing.T) {
	t.Parallel()
	for _, helm := range helms {
		for _, o := range decode(t, rendered(t, helm, "podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}")) {
			pod := podOf(o.value)
			if pod == nil {
				continue
			}
			if s := pod.Spec.SecurityContext; s.RunAsUser != nil || s.RunAsGroup != nil || s.FSGroup != nil || !*s.RunAsNonRoot {
				t.Errorf("%s, %s: %v", helm, o.id(), s)
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
