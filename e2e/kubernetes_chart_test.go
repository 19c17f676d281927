package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/kubernetes"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

const (
	chart    = "../deploy/helm/mirror"
	certs    = "/etc/containerd/certs.d"
	ownImage = "ghcr.io/registrymirror/mirror"
	nodePort = "30500"
)

// wholeCluster is a cluster with the registries that its node pulls from.
type wholeCluster struct {
	*kubernetes.Cluster
	runtime *containerd.Containerd
	// open has docker.io, ghcr.io and mcr.microsoft.com; closed is quay.io, and takes a login.
	open, closed       *origin.Origin
	openURL, closedURL string            // as nodes and pods reach them
	before             map[string]string // below certs, at the start
	loads              int64             // that rollsOut has made
}

// TestKubernetesChart: the chart on a whole cluster, of the real API server, controllers, scheduler, kube-proxy, kubelet and
// containerd, with a network of pods. The mirror runs as its own image under the restricted profile, the agent has the node pull
// through it, rollouts fail no pull, and after uninstalling the node is as it was.
//
// docs/nodes.md says what such a cluster cannot show.
func TestKubernetesChart(t *testing.T) {
	if os.Getenv("MIRROR_E2E_KUBERNETES") == "" && os.Getenv(binaryVariable) == "" {
		t.Skip("it takes some minutes: make e2e-kubernetes runs it")
	}
	if missing := kubernetes.MissingOfWhole(); missing != "" {
		t.Fatalf("%s is not there", missing)
	}
	if !kubernetes.OwnNamespaces(t, binaryVariable+"="+mirrord.Binary) {
		return
	}
	cache := t.TempDir() // of a mirror's pod, which ends with the cluster at the latest
	c := startWholeCluster(t)
	c.Kubectl(t, "create", "namespace", "mirror")
	c.Kubectl(t, "label", "namespace", "mirror", "pod-security.kubernetes.io/enforce=restricted")
	c.Kubectl(t, "create", "namespace", "agent") // hostPath and hostNetwork are what the agent is for

	config := fmt.Sprintf(`image: {tag: v0.0.1}
config: |
  upstreams:
    docker.io: {endpoints: [%[1]q]}
    ghcr.io: {endpoints: [%[1]q]}
    quay.io: {endpoints: [%[2]q]}
`, c.openURL, c.closedURL)
	mirror := config + "cache: {volume: emptyDir, size: 20Gi}\ntest: {image: \"docker.io/acme/tested:v1\"}\n"
	agent := config + fmt.Sprintf(`kind: None
endpoint: {url: "http://$(HOST_IP):%s"}
agent: {enabled: true, registries: [%q, %q, %q, %q]}
`, nodePort, "docker.io="+c.openURL, "ghcr.io="+c.openURL, "quay.io="+c.closedURL, "registry.k8s.io="+c.openURL)

	t.Run("accepted", func(t *testing.T) { c.accepts(t, config) })
	if !t.Run("mirror", func(t *testing.T) { c.runsMirror(t, mirror) }) ||
		!t.Run("agent", func(t *testing.T) { c.runsAgent(t, agent) }) {
		return // the rest needs them
	}
	t.Run("pull", c.pullsThrough)
	t.Run("secret", c.pullsWithSecret)
	t.Run("rollout of one", func(t *testing.T) { c.rollsOut(t, "mirror", "sts/mirror") })
	t.Run("rollout of the agent", func(t *testing.T) {
		c.configured(t) // it has withdrawn the files while the mirror was away
		c.rollsOut(t, "agent", "ds/agent-mirror-agent")
	})
	t.Run("rollout of two", func(t *testing.T) {
		c.configured(t)
		c.helm(t, mirror+"replicas: 2\n", "upgrade", "mirror", chart, "--namespace", "mirror", "--wait", "--timeout", "3m")
		c.Kubectl(t, "rollout", "status", "sts/mirror", "--namespace", "mirror", "--timeout", "3m")
		if past := c.rollsOut(t, "mirror", "sts/mirror"); past != 0 {
			t.Errorf("%d blobs came past the mirror, which had another replica", past)
		}
	})
	t.Run("uninstall", func(t *testing.T) { c.uninstalls(t, agent) })
	t.Run("each node", func(t *testing.T) {
		c.eachNode(t, config+fmt.Sprintf(`kind: DaemonSet
endpoint: {type: HostPort}
cache: {hostPath: %q, size: 20Gi}
agent: {enabled: true, registries: [%q]}
`, filepath.Join(cache, "mirror"), "docker.io="+c.openURL))
	})
}

// startWholeCluster is a cluster of one node without a mirror. The node has files of others for some registries.
func startWholeCluster(t *testing.T) *wholeCluster {
	t.Helper()
	c := &wholeCluster{
		Cluster: kubernetes.StartWhole(t),
		open:    origin.Start(t, origin.Options{}),
		closed:  origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "basic", Username: "bot", Password: "of-the-pod"}}),
	}
	c.openURL, c.closedURL = forward(t, c.open.Host()), forward(t, c.closed.Host())
	program := pause(t)
	variant := func(s string) []byte { return append(slices.Clip(program), s...) } // a node that has a layer does not pull it
	const sandbox = "mcr.microsoft.com/acme/sandbox:v1"
	image.Give(t, c.open, "acme/sandbox", "v1", image.Program(t, "linux/amd64", variant("sandbox")))
	image.Give(t, c.open, "acme/app", "v1", image.Program(t, "linux/amd64", variant("app")))
	image.Give(t, c.closed, "acme/app", "v1", image.Program(t, "linux/amd64", variant("private")))
	image.Give(t, c.open, strings.TrimPrefix(ownImage, "ghcr.io/"), "v0.0.1", image.FromLayout(t, imageLayout(t), "linux/amd64"))

	for registry, server := range map[string]string{
		"docker.io": c.openURL, "ghcr.io": c.openURL, "mcr.microsoft.com": c.openURL, "quay.io": c.closedURL,
	} {
		dir := filepath.Join(certs, registry)
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("# of another tool\nserver = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", server, server)
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o640); err != nil { //nolint:gosec // a mode of its own, to be kept
			t.Fatal(err)
		}
	}
	c.before = tree(t, certs)
	c.runtime = containerd.StartWith(t, containerd.V2, containerd.Certs{Made: certs}, c.WholeContainerd(sandbox))
	if _, err := c.runtime.CRI(t, sandbox); err != nil {
		t.Fatal(err)
	}
	c.Join(t, c.runtime)
	c.Ready(t)
	return c
}

// imageLayout makes the mirror's own image as make image does.
func imageLayout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	binary, err := build(dir, "mirror", false, "-trimpath", "-ldflags=-s -w -X main.version=v0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(dir, "layout")
	proc.Must(t, proc.Options{Dir: ".."}, "go", "run", "./internal/image", "-version", "v0.0.1", "-o", layout, "linux/amd64="+binary)
	return layout
}

// forward gives a server on loopback an address that nodes and pods can reach, until the test ends.
func forward(t *testing.T, host string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", kubernetes.Address+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = in.Close() }()
				out, err := net.Dial("tcp", host)
				if err != nil {
					return
				}
				defer func() { _ = out.Close() }()
				go func() {
					_, _ = io.Copy(out, in)
					_ = out.(*net.TCPConn).CloseWrite()
				}()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// tree is what is below a folder: the mode of each folder and file, and its content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || d.IsDir() {
			all[path] = fmt.Sprint(info.Mode())
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = fmt.Sprint(info.Mode(), "\n", string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// helm runs helm with values.
func (c *wholeCluster) helm(t *testing.T, values string, args ...string) string {
	t.Helper()
	if values != "" {
		args = append(args, "--values", "-")
	}
	home := t.TempDir()
	return proc.Must(t, proc.Options{Stdin: []byte(values), Env: append(c.Env(), "KUBECONFIG="+c.Kubeconfig(), "HELM_CACHE_HOME="+home,
		"HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)}, tool.Built(t, "helm"), args...)
}

// accepts has the API server judge the chart's output, strictly, and admit its pods.
func (c *wholeCluster) accepts(t *testing.T, config string) {
	c.Kubectl(t, "create", "secret", "generic", "admin", "--namespace", "mirror", "--from-literal=token=a-token-of-the-test")
	for _, test := range []struct {
		name, values string
		restricted   bool // all of its pods
	}{
		{"defaults", "{}", true},
		{"two replicas", config + "replicas: 2\nadmin: {tokenSecret: admin}\nnetworkPolicy: {enabled: true}\n", true},
		{"the API", config + "  kubernetes: {events: true, feed: true}\n", true},
		{"cluster IP", config + "endpoint: {type: ClusterIP, clusterIP: 10.96.0.50}\nagent: {enabled: true}\n", false},
		{"balancer", config + "endpoint: {type: LoadBalancer, url: \"http://192.0.2.1:5000\"}\nagent: {enabled: true}\n", false},
		{"each node", config + "kind: DaemonSet\nendpoint: {type: HostPort}\nagent: {enabled: true}\n", false},
		{"own network", config + "kind: DaemonSet\nendpoint: {type: HostPort, hostNetwork: true}\nadmin: {tokenSecret: admin}\n", false},
		{"agent alone", config + "kind: None\nendpoint: {url: \"http://192.0.2.1:5000\"}\nagent: {enabled: true}\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			manifests := c.helm(t, test.values, "template", "mirror", chart, "--namespace", "mirror")
			out, err := c.Try(t, manifests, "apply", "--server-side", "--dry-run=server", "--validate=strict",
				fmt.Sprintf("--warnings-as-errors=%t", test.restricted), "-f", "-")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d objects", strings.Count(out, "serverside-applied"))
		})
	}
}

// runsMirror installs the mirror where the restricted profile is enforced.
func (c *wholeCluster) runsMirror(t *testing.T, values string) {
	c.helm(t, values, "install", "mirror", chart, "--namespace", "mirror", "--wait", "--timeout", "3m")
	const pod = "mirror-0"
	equal(t, "ready", c.Kubectl(t, "get", "pod", pod, "--namespace", "mirror", "-o", `jsonpath={.status.containerStatuses[0].ready}`), "true")
	equal(t, "restarts", c.Kubectl(t, "get", "pod", pod, "--namespace", "mirror", "-o", `jsonpath={.status.containerStatuses[0].restartCount}`), "0")
	id := c.Kubectl(t, "get", "pod", pod, "--namespace", "mirror", "-o", `jsonpath={.status.containerStatuses[0].containerID}`)
	proc := "/proc/" + c.runtime.PodProcess(t, strings.TrimPrefix(id, "containerd://"))
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Uid:\t65532\t65532\t65532\t65532\n", "Gid:\t65532\t", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n",
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n",
	} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if err := os.WriteFile(proc+"/root/file", nil, 0o600); !errors.Is(err, os.ErrPermission) && !strings.Contains(fmt.Sprint(err), "read-only") {
		t.Errorf("its root can be written to: %v", err)
	}
	// Two of the three commands of NOTES.txt; the third is mirror pulls, after a pull.
	t.Log(c.Kubectl(t, "exec", "sts/mirror", "--namespace", "mirror", "--", "mirror", "status"))
	image.Give(t, c.open, "acme/tested", "v1", image.Program(t, "linux/amd64", []byte("a program")))
	t.Log(c.helm(t, "", "test", "mirror", "--namespace", "mirror", "--logs"))
}

// runsAgent installs the agent, which has the node use the mirror.
func (c *wholeCluster) runsAgent(t *testing.T, values string) {
	c.helm(t, values, "install", "agent", chart, "--namespace", "agent", "--wait", "--timeout", "3m")
	c.configured(t)
	wait.For(t, time.Minute, "the Event on the Node", func() error {
		out := c.Kubectl(t, "get", "events", "--namespace", "default", "--field-selector", "reason=MirrorInUse", "-o",
			"jsonpath={.items[*].involvedObject.kind}/{.items[*].involvedObject.name}")
		if out != "Node/"+kubernetes.Node {
			return fmt.Errorf("it is %q", out)
		}
		return nil
	})
}

// configured waits until the node's files name the mirror.
func (c *wholeCluster) configured(t *testing.T) {
	t.Helper()
	wait.For(t, time.Minute, "the node's files", func() error {
		for _, registry := range []string{"docker.io", "ghcr.io", "quay.io", "registry.k8s.io"} {
			b, err := os.ReadFile(filepath.Join(certs, registry, "hosts.toml"))
			if err != nil || !strings.Contains(string(b), "http://"+kubernetes.Address+":"+nodePort) {
				return fmt.Errorf("%s: %w\n%s", registry, err, b)
			}
		}
		return nil
	})
}

// pullsThrough runs a pod, whose image comes through the mirror.
func (c *wholeCluster) pullsThrough(t *testing.T) {
	c.Kubectl(t, "create", "deployment", "app", "--image", "docker.io/acme/app:v1")
	c.Kubectl(t, "rollout", "status", "deployment/app", "--timeout", "2m")
	if through, past := c.asked("acme/app"); through == 0 || past != 0 {
		t.Errorf("requests at the registry: %d of the mirror, %d of the node", through, past)
	}
	var list struct {
		Pulls []struct{ Image, Client, Outcome string }
	}
	wait.For(t, time.Minute, "the pull in the mirror's record", func() error {
		out := c.Kubectl(t, "exec", "mirror-0", "--namespace", "mirror", "--", "mirror", "pulls", "-o", "json")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		for _, p := range list.Pulls {
			if p.Image == "docker.io/acme/app:v1" && strings.Contains(p.Client, kubernetes.Node) {
				return nil
			}
		}
		return fmt.Errorf("it has %+v", list.Pulls)
	})
	t.Log(c.Kubectl(t, "exec", "mirror-0", "--namespace", "mirror", "--", "mirror", "pulls"))
}

// asked is how often the open registry was asked for something of a repository and those below it: by the mirror, and by the node.
func (c *wholeCluster) asked(repository string) (through, past int) {
	for _, r := range c.open.Requests() {
		if r.Repo != repository && !strings.HasPrefix(r.Repo, repository+"/") {
			continue
		}
		if strings.HasPrefix(r.Header.Get("User-Agent"), "containerd/") {
			past++
		} else {
			through++
		}
	}
	return through, past
}

// pullsWithSecret runs pods with an image of a registry that the mirror has no login for: with a pull secret, which is for the
// registry alone, and without one.
func (c *wholeCluster) pullsWithSecret(t *testing.T) {
	c.Kubectl(t, "create", "secret", "docker-registry", "quay", "--docker-server", "quay.io", "--docker-username", "bot", "--docker-password", "of-the-pod")
	for name, secrets := range map[string]string{"with": "[{name: quay}]", "without": "[]"} {
		c.Apply(t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s-secret, namespace: default}, spec: {
  imagePullSecrets: %s, terminationGracePeriodSeconds: 0, containers: [{name: app, image: "quay.io/acme/app:v1", imagePullPolicy: Always}]}}`, name, secrets))
	}
	wait.For(t, time.Minute, "the pod without a secret to fail", func() error {
		if out := c.Kubectl(t, "get", "pod", "without-secret", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}"); !strings.Contains(out, "ImagePull") {
			return fmt.Errorf("it is %q", out)
		}
		return nil
	})
	running(t, c.Cluster, "with-secret")
	var mirrors, nodes int
	for _, r := range c.closed.Requests() {
		switch asks := r.Header.Get("Authorization") != ""; {
		case strings.HasPrefix(r.Header.Get("User-Agent"), "containerd/"):
			nodes++
		case asks:
			t.Errorf("the mirror has shown the pod's secret: %s %s", r.Method, r.Path)
		default:
			mirrors++
		}
	}
	if mirrors == 0 || nodes == 0 {
		t.Errorf("requests at the registry: %d of the mirror, %d of the node", mirrors, nodes)
	}
	c.Kubectl(t, "delete", "pod", "with-secret", "without-secret")
}

// Load on a mirror that is replaced: as many pulls at once, each of an image that is not cached, for about as long.
const (
	pullsAtOnce = 50
	pullBytes   = 1 << 20
	pullRate    = pullBytes / 5 // a second
)

// rollsOut replaces the pods of a workload while the node pulls, and returns how many blobs came past the mirror.
func (c *wholeCluster) rollsOut(t *testing.T, namespace, workload string) (past int) {
	c.loads++
	base := fmt.Sprintf("load/%d/", c.loads)
	remove := c.open.Script(origin.Rule{Kind: origin.KindBlob, Match: func(r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/"+base)
	}, Do: origin.Fault{Rate: pullRate}})
	defer remove()
	var (
		next, done, running atomic.Int64
		mu                  sync.Mutex // guards failed
		failed              []error
		group               sync.WaitGroup
	)
	ctx, stop := context.WithTimeout(t.Context(), 8*time.Minute)
	defer stop()
	enough := make(chan struct{})
	pull := func() {
		n := next.Add(1)
		repository := fmt.Sprint(base, n)
		c.open.AddImage(repository, "v1", origin.Image{Layers: []int64{pullBytes}, Seed: n + c.loads<<32})
		running.Add(1)
		defer running.Add(-1)
		if err := c.runtime.Keep(ctx, "docker.io/"+repository+":v1"); err != nil { // to forget it would stop the others for a while
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, err)
			return
		}
		done.Add(1)
	}
	for range pullsAtOnce {
		group.Go(func() {
			for {
				select {
				case <-enough:
					return
				default:
					pull()
				}
			}
		})
	}
	wait.For(t, 2*time.Minute, "pulls through the mirror", func() error {
		if done.Load() < pullsAtOnce || running.Load() < pullsAtOnce {
			return fmt.Errorf("%d are done, %d run", done.Load(), running.Load())
		}
		return nil
	})
	before, began := done.Load(), time.Now()
	c.Kubectl(t, "rollout", "restart", workload, "--namespace", namespace)
	c.Kubectl(t, "rollout", "status", workload, "--namespace", namespace, "--timeout", "5m")
	took := time.Since(began)
	after := done.Load()
	wait.For(t, 2*time.Minute, "pulls after the rollout", func() error {
		if done.Load() < after+pullsAtOnce {
			return fmt.Errorf("%d are done", done.Load()-after)
		}
		return nil
	})
	close(enough)
	group.Wait()
	for _, r := range c.open.Requests() {
		if r.Kind == origin.KindBlob && strings.HasPrefix(r.Repo, base) && strings.HasPrefix(r.Header.Get("User-Agent"), "containerd/") {
			past++
		}
	}
	t.Logf("%s replaced in %s under %d pulls at once: %d during it, %d in all, %d failed, %d blobs past the mirror", workload,
		took.Round(100*time.Millisecond), pullsAtOnce, after-before, next.Load(), len(failed), past)
	for _, err := range failed[:min(5, len(failed))] {
		t.Errorf("a pull failed: %v", err)
	}
	return past
}

// asBefore looks whether the node's files are what they were at the start.
func (c *wholeCluster) asBefore(t *testing.T) {
	t.Helper()
	now := tree(t, certs)
	for path := range now {
		if _, ok := c.before[path]; !ok {
			t.Errorf("%s is left", path)
		}
	}
	for path, was := range c.before {
		if now[path] != was {
			t.Errorf("%s was\n%s\nand is\n%s", path, was, now[path])
		}
	}
}

// uninstalls removes the agent, once where it stops in order, once where it left its files behind, and with a node that is gone.
func (c *wholeCluster) uninstalls(t *testing.T, values string) {
	c.Apply(t, `{apiVersion: v1, kind: Node, metadata: {name: gone, labels: {kubernetes.io/os: linux, kubernetes.io/hostname: gone}}}`)
	began := time.Now()
	c.helm(t, "", "uninstall", "agent", "--namespace", "agent", "--wait", "--timeout", "5m")
	t.Logf("uninstalled with a node that is gone, in %s", time.Since(began).Round(time.Second))
	c.asBefore(t)
	c.Kubectl(t, "delete", "node", "gone")

	c.helm(t, strings.Replace(values, "enabled: true", "enabled: true, keep: true", 1), "install", "agent", chart, "--namespace", "agent", "--wait", "--timeout", "3m")
	c.configured(t)
	began = time.Now()
	c.helm(t, "", "uninstall", "agent", "--namespace", "agent", "--wait", "--timeout", "5m")
	t.Logf("uninstalled after an agent that leaves its files, in %s", time.Since(began).Round(time.Second))
	c.asBefore(t)
	wait.For(t, time.Minute, "the last of it to go", func() error { // the hook's pods are still being stopped
		left := c.Kubectl(t, "get", "all,configmap,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding", "-A",
			"-l", "app.kubernetes.io/instance=agent", "-o", "name")
		if left != "" {
			return fmt.Errorf("left in the cluster:\n%s", left)
		}
		return nil
	})
	// The node pulls as it did.
	image.Give(t, c.open, "acme/after", "v1", image.Program(t, "linux/amd64", append(pause(t), "after"...)))
	if _, err := c.runtime.CRI(t, "ghcr.io/acme/after:v1"); err != nil {
		t.Error(err)
	}
	if through, past := c.asked("acme/after"); through != 0 || past == 0 {
		t.Errorf("requests at the registry: %d of the mirror, %d of the node", through, past)
	}
	c.helm(t, "", "uninstall", "mirror", "--namespace", "mirror", "--wait", "--timeout", "3m")
}

// eachNode has a mirror on each node, at the node's own port, with its cache in a folder of the node.
func (c *wholeCluster) eachNode(t *testing.T, values string) {
	c.helm(t, values, "install", "each", chart, "--namespace", "agent", "--wait", "--timeout", "3m")
	wait.For(t, time.Minute, "the node's files", func() error {
		b, err := os.ReadFile(filepath.Join(certs, "docker.io", "hosts.toml"))
		if err != nil || !strings.Contains(string(b), "http://"+kubernetes.Address+":5000") {
			return fmt.Errorf("%w\n%s", err, b)
		}
		return nil
	})
	c.rollsOut(t, "agent", "ds/each-mirror")
	c.helm(t, "", "uninstall", "each", "--namespace", "agent", "--wait", "--timeout", "5m")
	c.asBefore(t)
}
