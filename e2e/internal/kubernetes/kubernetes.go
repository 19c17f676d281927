// Package kubernetes runs a cluster of one node on this machine: etcd, an API server with RBAC, a kubelet, and a containerd
// for it.
//
// Start makes one without controllers, on loopback: pods name their node, have its network, and stay as they are. StartWhole
// makes one with controllers, a scheduler, Services and a network of pods, in a network namespace of the test's own.
//
// install.sh kubernetes builds what it needs. Linux, as root.
package kubernetes

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// Node is the name of the one node.
const Node = "node-1"

// Programs are what a cluster needs out of tool.Bin.
var Programs = []string{"kube-apiserver", "kubelet", "kubectl", "containerd", "containerd-shim-runc-v2"}

// Cluster is a running one.
type Cluster struct {
	Server     string // https://HOST:PORT
	CA         string // file
	dir        string
	kubeconfig string
	start      func(testing.TB) *proc.Process // the API server
	api        *proc.Process
	address    string // of the node
	whole      bool
}

// Start runs the API server until the test ends. There is no node yet.
func Start(t testing.TB) *Cluster {
	t.Helper()
	return start(t, "127.0.0.1", false)
}

func start(t testing.TB, address string, whole bool) *Cluster {
	t.Helper()
	c := &Cluster{dir: proc.Dir(t), address: address, whole: whole}
	ports := free(t, 3)
	etcd, peer := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	proc.Start(t, proc.Options{Name: "etcd", Env: []string{"ETCD_UNSUPPORTED_ARCH=arm64"}}, tool.System(t, "etcd"),
		"--data-dir", c.dir+"/etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)

	c.Server = "https://" + address + ":" + ports[2]
	c.CA = c.dir + "/apiserver/apiserver.crt"
	write(t, c.dir+"/tokens.csv", `admin-token,admin,admin,"system:masters"`+"\n")
	c.key(t, c.dir+"/accounts.key")
	args := []string{
		"--etcd-servers", etcd, "--bind-address", address, "--advertise-address", address, "--secure-port", ports[2],
		"--cert-dir", c.dir + "/apiserver", "--service-cluster-ip-range", services,
		"--authorization-mode", "RBAC", "--token-auth-file", c.dir + "/tokens.csv",
		"--service-account-issuer", "https://kubernetes.test", "--service-account-key-file", c.dir + "/accounts.key",
		"--service-account-signing-key-file", c.dir + "/accounts.key",
	}
	if whole {
		args = append(args, "--allow-privileged", "--kubelet-preferred-address-types", "InternalIP")
	} else { // without controllers no namespace gets its service account
		args = append(args, "--endpoint-reconciler-type", "none", "--disable-admission-plugins", "ServiceAccount")
	}
	c.start = func(t testing.TB) *proc.Process {
		t.Helper()
		return proc.Start(t, proc.Options{Name: "kube-apiserver", Grace: 20 * time.Second, Env: c.Env()}, tool.Built(t, "kube-apiserver"), args...)
	}
	c.api = c.start(t)
	c.kubeconfig = c.dir + "/kubeconfig"
	write(t, c.kubeconfig, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: admin-token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, c.Server, c.CA))
	c.ready(t)
	return c
}

// ready waits for the API server.
func (c *Cluster) ready(t testing.TB) {
	t.Helper()
	wait.For(t, 2*time.Minute, "the API server", func() error {
		if _, err := c.kubectl(t.Context(), "", "get", "--raw", "/readyz"); err != nil {
			return err
		}
		_, err := c.kubectl(t.Context(), "", "get", "namespace", "default")
		return err
	})
}

// Restart ends the API server, and starts it again at the same address.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	c.api.End()
	c.api = c.start(t)
	c.ready(t)
}

// Containerd is the settings that a containerd needs to run pods here, beside what pulls need. The sandbox is an image
// that it can pull.
func Containerd(sandbox string) containerd.Settings {
	return containerd.Settings{
		TOML: fmt.Sprintf(`
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q
`, sandbox),
		Env: []string{"PATH=" + tool.Bin() + ":" + os.Getenv("PATH")}, // its shim, and not that of the distribution
	}
}

// kubelet is its configuration. Nothing of this machine decides what runs: no cgroups of its own, no eviction.
const kubelet = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %s
port: %s
healthzPort: 0
authentication: {anonymous: {enabled: %t}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://%s
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
evictionHard: {memory.available: 1Mi}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
registryPullQPS: 0
makeIPTablesUtilChains: false
podLogsDir: %s
volumePluginDir: %s
`

// Join makes a node out of a containerd, until the test ends. The kubelet has more as further flags.
func (c *Cluster) Join(t testing.TB, runtime *containerd.Containerd, more ...string) {
	t.Helper()
	config := c.dir + "/kubelet.yaml"
	// In a whole cluster the API server asks it, for kubectl exec, and has no certificate for that.
	text := fmt.Sprintf(kubelet, c.address, free(t, 1)[0], c.whole, runtime.Socket(), c.dir+"/logs", c.dir+"/plugins")
	if c.whole {
		text += "clusterDNS: [" + c.address + "]\nclusterDomain: cluster.local\n"
	}
	write(t, config, text)
	t.Cleanup(func() { // after the kubelet has ended
		runtime.RemovePods(t)
		// The kubelet makes its folder a mount of itself, so that those in it are shared, and leaves it so, and volumes of pods in it.
		if err := syscall.Unmount(c.dir+"/kubelet", syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			t.Errorf("unmount the kubelet's folder: %v", err)
		}
	})
	args := append([]string{
		"--config", config, "--kubeconfig", c.kubeconfig, "--root-dir", c.dir + "/kubelet", "--cert-dir", c.dir + "/kubelet-certs",
		"--hostname-override", Node, "--node-ip", c.address,
	}, more...)
	proc.Start(t, proc.Options{Name: "kubelet", Env: c.Env()}, tool.Built(t, "kubelet"), args...)
	wait.For(t, time.Minute, "the node", func() error {
		_, err := c.kubectl(t.Context(), "", "get", "node", Node)
		return err
	})
}

// Run makes a pod of one container. Its image is pulled anew.
func (c *Cluster) Run(t testing.TB, name, image string) {
	t.Helper()
	c.run(t, name, image, "Always", "", "")
}

// RunSecret makes a pod of one container, with a pull secret, or none where its name is empty. Its image is pulled if it is not there.
func (c *Cluster) RunSecret(t testing.TB, name, image, secret string) {
	t.Helper()
	c.run(t, name, image, "IfNotPresent", secret, "")
}

// RunAccount makes a pod of one container, with a service account, or none where its name is empty. Its image is pulled if it is not there.
func (c *Cluster) RunAccount(t testing.TB, name, image, account string) {
	t.Helper()
	c.run(t, name, image, "IfNotPresent", "", account)
}

func (c *Cluster) run(t testing.TB, name, image, policy, secret, account string) {
	t.Helper()
	secrets := []any{}
	if secret != "" {
		secrets = append(secrets, map[string]any{"name": secret})
	}
	b, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name, "namespace": "default"},
		"spec": map[string]any{
			"nodeName": Node, "hostNetwork": true, "automountServiceAccountToken": false, "enableServiceLinks": false,
			"tolerations": []any{map[string]any{"operator": "Exists"}}, "terminationGracePeriodSeconds": 0, "imagePullSecrets": secrets,
			"serviceAccountName": account,
			"containers":         []any{map[string]any{"name": "app", "image": image, "imagePullPolicy": policy}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(t, string(b))
}

// Secret makes a pull secret for a registry, HOST or HOST:PORT.
func (c *Cluster) Secret(t testing.TB, name, registry, user, password string) {
	t.Helper()
	c.Kubectl(t, "create", "secret", "docker-registry", name, "--docker-server", registry, "--docker-username", user, "--docker-password", password)
}

// Apply makes what a manifest says.
func (c *Cluster) Apply(t testing.TB, manifest string) {
	t.Helper()
	if _, err := c.kubectl(t.Context(), manifest, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// Kubectl runs kubectl, which has to succeed, and returns its stdout.
func (c *Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.kubectl(t.Context(), "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c *Cluster) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	r, err := proc.Exec(ctx, proc.Options{Stdin: []byte(stdin), Env: c.Env()}, filepath.Join(tool.Bin(), "kubectl"),
		append([]string{"--kubeconfig", c.kubeconfig, "--cache-dir", c.dir + "/kubectl"}, args...)...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("kubectl %s: exit code %d\n%s", strings.Join(args, " "), r.Code, r.Text())
	}
	return r.Stdout, err
}

// Account makes a service account and returns a file with its token.
func (c *Cluster) Account(t testing.TB, namespace, name string) string {
	t.Helper()
	c.Kubectl(t, "create", "namespace", namespace)
	c.Kubectl(t, "create", "serviceaccount", name, "--namespace", namespace)
	file := c.dir + "/" + name + ".token"
	write(t, file, c.Kubectl(t, "create", "token", name, "--namespace", namespace))
	return file
}

func (c *Cluster) key(t testing.TB, file string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// free are unused ports, for programs that don't take one of the kernel's choice.
func free(t testing.TB, n int) []string {
	t.Helper()
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }() // all at the end, so that they differ
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

// Missing is a program that a cluster needs and that isn't there; empty: all are.
func Missing() string { return missing(Programs) }

func missing(programs []string) string {
	for _, name := range programs {
		if _, err := os.Stat(filepath.Join(tool.Bin(), name)); err != nil {
			return name
		}
	}
	if _, err := os.Stat("/usr/bin/etcd"); err != nil {
		return "etcd"
	}
	return ""
}
