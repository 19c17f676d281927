package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// The addresses of a whole cluster.
const (
	Address  = "10.40.0.10"    // of the node
	services = "10.96.0.0/16"  // of Services
	pods     = "10.244.0.0/24" // of pods
)

// WholePrograms are what a whole cluster needs out of tool.Bin.
var WholePrograms = slices.Concat(Programs, []string{
	"kube-controller-manager", "kube-scheduler", "kube-proxy", "bridge", "host-local", "loopback", "portmap",
})

// MissingOfWhole is Missing for a whole cluster.
func MissingOfWhole() string { return missing(WholePrograms) }

// inside is the variable by which a process knows that OwnNamespaces has started it: its value is the test.
const inside = "E2E_OWN_NAMESPACES"

// OwnNamespaces runs a test again, with a network, mounts and processes of its own, where every port and address is free,
// /etc/containerd is empty, and no process outlives the test. It reports whether this is that process; in the other one the test has then passed or failed.
func OwnNamespaces(t *testing.T, env ...string) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	limit := 20 * time.Minute
	if end, ok := t.Deadline(); ok {
		limit = time.Until(end) - 10*time.Second
	}
	const set = `ip link set lo up
ip link add node0 type veth peer name node1
ip addr add ` + Address + `/24 dev node0
ip link set node0 up && ip link set node1 up
ip route add default via 10.40.0.1
echo 1 >/proc/sys/net/ipv4/ip_forward
mkdir -p /etc/containerd && mount -t tmpfs none /etc/containerd
"$0" "$@"` // sh is the first process of the namespace, and so waits for those that have lost their parent
	cmd := exec.CommandContext(t.Context(), tool.System(t, "unshare"), "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-e", "-c", set,
		self, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", limit.String())
	cmd.Env = append(append(os.Environ(), inside+"="+t.Name()), env...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // and with it all that the test has started, pods too
	if err := cmd.Run(); err != nil {
		t.Fatalf("in namespaces of its own: %v", err)
	}
	return false
}

// Env is the environment of programs that reach the cluster: its addresses need no proxy.
func (c *Cluster) Env() []string {
	if !c.whole {
		return nil
	}
	const none = "127.0.0.1,localhost,10.40.0.0/24," + services + "," + pods
	return []string{"NO_PROXY=" + none, "no_proxy=" + none}
}

// StartWhole runs a cluster whose controllers, scheduler and Services work, until the test ends. It is for a process that
// OwnNamespaces has started. There is no node yet.
func StartWhole(t testing.TB) *Cluster {
	t.Helper()
	c := start(t, Address, true)
	ports := free(t, 4)
	run := func(name string, args ...string) {
		proc.Start(t, proc.Options{Name: name, Env: c.Env()}, tool.Built(t, name), append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
	}
	run("kube-controller-manager", "--bind-address", "127.0.0.1", "--secure-port", ports[0], "--leader-elect=false",
		"--service-account-private-key-file", c.dir+"/accounts.key", "--root-ca-file", c.CA)
	run("kube-scheduler", "--bind-address", "127.0.0.1", "--secure-port", ports[1], "--leader-elect=false")
	run("kube-proxy", "--proxy-mode", "iptables", "--hostname-override", Node, "--cluster-cidr", pods, "--conntrack-max-per-core", "0",
		"--conntrack-min", "0", "--healthz-bind-address", "127.0.0.1:"+ports[2], "--metrics-bind-address", "127.0.0.1:"+ports[3])
	c.names(t)
	return c
}

// network is what the pods of a whole cluster get: a bridge, and the ports of the node that they name.
const network = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
    "type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "` + pods + `"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "backend": "iptables", "capabilities": {"portMappings": true}}
]}
`

// WholeContainerd is Containerd for a node of a whole cluster.
func (c *Cluster) WholeContainerd(sandbox string) containerd.Settings {
	s := Containerd(sandbox)
	s.Downloads = 100 // pulls are to run, and not to wait for each other
	s.Env = append(s.Env, c.Env()...)
	s.TOML = strings.Replace(s.TOML, "restrict_oom_score_adj = true", "restrict_oom_score_adj = true\n  netns_mounts_under_state_dir = true", 1)
	s.Network, s.Plugins = fmt.Sprintf(network, c.dir+"/addresses"), tool.Bin()
	return s
}

// Ready waits until pods can be placed on the node.
func (c *Cluster) Ready(t testing.TB) {
	t.Helper()
	wait.For(t, 2*time.Minute, "the node", func() error {
		out, err := c.kubectl(t.Context(), "", "get", "node", Node, "-o", `jsonpath={.spec.taints}{.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("it is %s", out)
		}
		return err
	})
}

// Kubeconfig is a file with the rights of an administrator.
func (c *Cluster) Kubeconfig() string { return c.kubeconfig }

// Try is Kubectl that may fail, with a manifest as its stdin.
func (c *Cluster) Try(t testing.TB, manifest string, args ...string) (string, error) {
	t.Helper()
	return c.kubectl(t.Context(), manifest, args...)
}

// Logs are those of the pods, by file, which the kubelet keeps while they are there.
func (c *Cluster) Logs() map[string]string {
	list := make(map[string]string)
	files, _ := filepath.Glob(c.dir + "/logs/*/*/*.log") // the pattern is sound
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil {
			list[file] = string(b)
		}
	}
	return list
}
