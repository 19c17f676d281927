// Package containerd runs containerd, of the old line and of the new ones, with folders and a socket of its own, and
// pulls through it as ctr does and as the kubelet does.
//
// It reads the very files that nodes get: deploy/containerd of this repository.
package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// Line is a line of releases.
type Line string

// The lines.
const (
	V1  Line = "1.6" // Debian's
	LTS Line = "2.3" // built by install.sh
	V2  Line = "2.4" // built by install.sh
)

// Lines are the oldest and the newest.
var Lines = []Line{V1, V2}

// All are all of them: for what a line alone may do in its own way, as the files of nodes.
var All = []Line{V1, LTS, V2}

// Deploy is the folder with the files for nodes.
const Deploy = "../deploy/containerd"

// address is what the files for nodes say the mirror's is.
const address = "http://127.0.0.1:5000"

// Certs is a folder of hosts.toml files, as config_path names it.
type Certs struct {
	// Mirror is the mirror's URL.
	Mirror string
	// Path puts the registry's name into the path of the mirror's URL, with override_path: the form of other caches.
	Path bool
	// CA is the file with the certificate that the mirror's is signed by, on TLS.
	CA string
	// Server takes the place of the registry that containerd goes on to. Empty: it stays the real one, which is out of
	// reach here.
	Server string
	// Hosts are further registries, and where containerd goes on for them. Without a Mirror there is nothing else: it
	// goes there at once.
	Hosts map[string]string
	// Node is the name that the node gives itself, in a header. Empty: it has none.
	Node string
	// Only takes the files of nodes that pull through the mirror alone.
	Only bool
	// Made is a folder that is used as it is. Then nothing else counts.
	Made string
}

// Write makes the folder out of the files for nodes.
func (c Certs) Write(t testing.TB) string {
	t.Helper()
	dst := t.TempDir()
	if err := c.write(dst); err != nil {
		t.Fatal(err)
	}
	return dst
}

func (c Certs) write(dst string) error {
	src := filepath.Join(Deploy, "certs.d")
	if c.Only {
		src = filepath.Join(Deploy, "mirror-only")
	}
	if err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := c.Mirror
		if name := filepath.Base(filepath.Dir(path)); c.Path && name != "_default" {
			to += "/v2/" + name
		}
		text := strings.ReplaceAll(string(b), address, to)
		if to != c.Mirror {
			text += "  override_path = true\n"
		}
		if text == string(b) && c.Mirror != address {
			return fmt.Errorf("%s does not have %s in it", path, address)
		}
		if c.CA != "" { // as deploy/containerd/README.md says
			text += fmt.Sprintf("  ca = %q\n", c.CA)
		}
		if c.Node != "" {
			text += fmt.Sprintf("  [host.%q.header]\n    Mirror-Node = %q\n", to, c.Node)
		}
		if c.Server != "" {
			text = withServer(text, c.Server)
		}
		file := filepath.Join(dst, rel)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, []byte(text), 0o600)
	}); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(Deploy, "certs.d", "docker.io", "hosts.toml"))
	if err != nil {
		return err
	}
	b = []byte(strings.ReplaceAll(string(b), address, c.Mirror))
	for host, server := range c.Hosts {
		if err := os.MkdirAll(filepath.Join(dst, host), 0o755); err != nil {
			return err
		}
		text := withServer(string(b), server)
		if c.Mirror == "" {
			// Both: the old line takes a file without a [host] for broken, and goes to the real registry.
			text = fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", server, server)
		}
		if err := os.WriteFile(filepath.Join(dst, host, "hosts.toml"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func withServer(text, server string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "server = ") {
			lines[i] = fmt.Sprintf("server = %q", server)
			return strings.Join(lines, "\n")
		}
	}
	return fmt.Sprintf("server = %q\n", server) + text
}

// Containerd is a running one.
type Containerd struct {
	*proc.Process
	line   Line
	ctr    string
	socket string
	certs  string
	conn   *grpc.ClientConn
	launch func() error
}

// rest is what a test needs beside the file for nodes: nothing of this machine's own containerd is touched.
func rest(line Line) string {
	if line == V1 {
		return `
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "DIR/cni/bin"
    conf_dir = "DIR/cni/conf"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[ttrpc]
  address = "SOCKET.ttrpc"
`
	}
	return `
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["DIR/cni/bin"]
  conf_dir = "DIR/cni/conf"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[ttrpc]
  address = "SOCKET.ttrpc"
`
}

// Settings are for what is more than pulls.
type Settings struct {
	// Node is what stands before the rest of the configuration, with SOCKET for where it answers. Empty: the file for nodes, which sets
	// config_path.
	Node string
	TOML string // behind the rest of the configuration
	Env  []string
	// Network is the configuration of the pods' network, a conflist, and Plugins the folder of the plugins that it names. Empty: pods
	// have the network of the node.
	Network, Plugins string
	// Downloads is how many layers of all pulls together come at once. 0: as many as the new line has by itself, three.
	Downloads int
	// Broken says that the CRI plugin is not to load.
	Broken bool
}

// Start runs one that reads the hosts.toml files of certs, until the test ends.
func Start(t testing.TB, line Line, certs Certs) *Containerd {
	t.Helper()
	return StartWith(t, line, certs, Settings{})
}

// StartWith is Start with more settings.
func StartWith(t testing.TB, line Line, certs Certs, more Settings) *Containerd {
	t.Helper()
	c, err := Launch(t.Context(), proc.Dir(t), line, certs, more)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.End()
		if t.Failed() {
			t.Log(c.Tail())
		}
	})
	return c
}

// Launch runs one until End, with its files in dir, whose name is short.
func Launch(ctx context.Context, dir string, line Line, certs Certs, more Settings) (*Containerd, error) {
	c := &Containerd{line: line, certs: filepath.Join(dir, "certs.d"), socket: filepath.Join(dir, "c.sock")}
	find, nodeFile, folder := tool.FindSystem, "config-1.x.toml", ""
	if line != V1 {
		find, nodeFile = tool.FindBuilt, "config-2.x.toml"
	}
	if line == LTS {
		folder = "containerd-2.3/"
	}
	program, err := find(folder + "containerd")
	if err != nil {
		return nil, err
	}
	if c.ctr, err = find(folder + "ctr"); err != nil {
		return nil, err
	}
	if certs.Made != "" {
		c.certs = certs.Made
	} else if err := certs.write(c.certs); err != nil {
		return nil, err
	}
	text := more.Node
	if text == "" {
		b, err := os.ReadFile(filepath.Join(Deploy, nodeFile))
		if err != nil {
			return nil, err
		}
		text = strings.ReplaceAll(string(b), "/etc/containerd/certs.d", c.certs)
		if !strings.Contains(text, c.certs) {
			return nil, fmt.Errorf("%s does not name /etc/containerd/certs.d", nodeFile)
		}
	}
	if more.Downloads > 0 {
		const table = `[plugins."io.containerd.transfer.v1.local"]`
		if !strings.Contains(text, table) {
			return nil, fmt.Errorf("%s has no %s", nodeFile, table)
		}
		text = strings.Replace(text, table, fmt.Sprintf("%s\n  max_concurrent_downloads = %d", table, more.Downloads), 1)
	}
	text = strings.NewReplacer("DIR", dir, "SOCKET", c.socket).Replace(text + rest(line) + more.TOML)
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if more.Network != "" {
		conf := filepath.Join(dir, "cni", "conf")
		err := errors.Join(os.MkdirAll(conf, 0o755), os.WriteFile(filepath.Join(conf, "pods.conflist"), []byte(more.Network), 0o600),
			os.Symlink(more.Plugins, filepath.Join(dir, "cni", "bin")))
		if err != nil {
			return nil, err
		}
	}
	c.launch = func() error {
		c.Process, err = proc.Launch(proc.Options{Name: "containerd " + string(line), Env: more.Env}, program,
			"--config", file, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"),
			"--address", c.socket, "--log-level", "debug")
		if err != nil {
			return err
		}
		if err := c.connect(ctx, more.Broken); err != nil {
			c.End()
			return fmt.Errorf("containerd %s: %w\n%s", line, err, c.Tail())
		}
		return nil
	}
	if err := c.launch(); err != nil {
		return nil, err
	}
	return c, nil
}

// Restart ends it and starts it with the same files.
func (c *Containerd) Restart(t testing.TB) {
	t.Helper()
	c.End()
	if err := c.launch(); err != nil {
		t.Fatal(err)
	}
}

// Config is its configuration file.
func (c *Containerd) Config() string { return filepath.Join(filepath.Dir(c.socket), "config.toml") }

// Plugins is what ctr prints of its plugins.
func (c *Containerd) Plugins(t testing.TB) string {
	t.Helper()
	return c.run(t, "plugins", "ls").Text()
}

// End ends it, and reports whether it went without force.
func (c *Containerd) End() bool {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	return c.Process.End()
}

// connect waits until its CRI answers, or says that it has none.
func (c *Containerd) connect(ctx context.Context, broken bool) error {
	conn, err := grpc.NewClient("unix://"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	c.conn = conn
	return wait.Until(ctx, 2*time.Minute, func() error {
		if err := c.Exited(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		v, err := cri.NewRuntimeServiceClient(conn).Version(ctx, &cri.VersionRequest{})
		if broken && grpcstatus.Code(err) == codes.Unimplemented {
			return nil
		}
		if err != nil {
			return err
		}
		if broken {
			return errors.New("its CRI plugin has loaded")
		}
		if got := strings.TrimPrefix(v.GetRuntimeVersion(), "v"); !strings.HasPrefix(got, string(c.line)+".") {
			return fmt.Errorf("it is %s, want %s", got, c.line)
		}
		return nil
	})
}

// Pulled is what a pull has put into containerd.
type Pulled struct {
	Digest string // what the reference points to
	Config string // the image id
}

// Ctr pulls as ctr does. An error is what ctr printed.
func (c *Containerd) Ctr(t testing.TB, ref string) (Pulled, error) {
	t.Helper()
	r := c.run(t, "images", "pull", "--hosts-dir", c.certs, "--platform", "linux/amd64", ref)
	if r.Code != 0 {
		return Pulled{}, errors.New(strings.TrimSpace(r.Text()))
	}
	check := c.run(t, "images", "check", "name=="+ref)
	if check.Code != 0 || !strings.Contains(check.Stdout, "complete") {
		t.Errorf("ctr images check after the pull of %s: code %d\n%s", ref, check.Code, check.Text())
	}
	var p Pulled
	for line := range strings.Lines(c.run(t, "images", "ls", "name=="+ref).Stdout) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == ref {
			p.Digest = f[2]
		}
	}
	return p, nil
}

func (c *Containerd) run(t testing.TB, args ...string) proc.Result {
	t.Helper()
	return proc.Run(t, proc.Options{}, c.ctr, append([]string{"--address", c.socket}, args...)...)
}

// Run runs a container until the test ends: flags of "ctr run", the image, and a name.
func (c *Containerd) Run(t testing.TB, flags []string, ref, name string) *proc.Process {
	t.Helper()
	args := append([]string{"--address", c.socket, "run", "--rm"}, flags...)
	p, err := proc.Launch(proc.Options{Name: "container " + name}, c.ctr, append(args, ref, name)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A test that has failed leaves it running. The context of the test has ended.
		_, _ = proc.Exec(context.Background(), proc.Options{}, c.ctr, "--address", c.socket, "tasks", "kill", "--signal", "SIGKILL", name)
		p.End()
	})
	return p
}

// Task is the process of a container.
func (c *Containerd) Task(t testing.TB, name string) (pid string) {
	t.Helper()
	for line := range strings.Lines(c.run(t, "tasks", "ls").Stdout) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return f[1]
		}
	}
	t.Fatalf("no container %s runs", name)
	return ""
}

// Stop sends SIGTERM to a container.
func (c *Containerd) Stop(t testing.TB, name string) {
	t.Helper()
	c.run(t, "tasks", "kill", "--signal", "SIGTERM", name)
}

// Pull pulls as the kubelet does, returns the digest that the reference points to, and forgets what it got.
func (c *Containerd) Pull(ctx context.Context, ref string) (digest string, err error) {
	images := cri.NewImageServiceClient(c.conn)
	spec := &cri.ImageSpec{Image: ref}
	if _, err := images.PullImage(ctx, &cri.PullImageRequest{Image: spec}); err != nil {
		return "", err
	}
	status, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec})
	if err != nil {
		return "", err
	}
	for _, d := range status.GetImage().GetRepoDigests() {
		_, digest, _ = strings.Cut(d, "@")
	}
	_, err = images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec})
	return digest, err
}

// Keep pulls as the kubelet does.
func (c *Containerd) Keep(ctx context.Context, ref string) error {
	_, err := cri.NewImageServiceClient(c.conn).PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}})
	return err
}

// CRI pulls as the kubelet does, and looks at what it got.
func (c *Containerd) CRI(t testing.TB, ref string) (Pulled, error) {
	t.Helper()
	return c.secret(t, ref, nil)
}

// Secret is CRI for a pod with a pull secret.
func (c *Containerd) Secret(t testing.TB, ref, user, password string) (Pulled, error) {
	t.Helper()
	return c.secret(t, ref, &cri.AuthConfig{Username: user, Password: password})
}

func (c *Containerd) secret(t testing.TB, ref string, secret *cri.AuthConfig) (Pulled, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	images := cri.NewImageServiceClient(c.conn)
	spec := &cri.ImageSpec{Image: ref}
	pulled, err := images.PullImage(ctx, &cri.PullImageRequest{Image: spec, Auth: secret})
	if err != nil {
		return Pulled{}, err
	}
	status, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec})
	if err != nil {
		t.Fatalf("image status of %s after its pull: %v", ref, err)
	}
	if got := status.GetImage().GetId(); got != pulled.GetImageRef() {
		t.Errorf("image status of %s is of %q, its pull said %q", ref, got, pulled.GetImageRef())
	}
	p := Pulled{Config: pulled.GetImageRef()}
	for _, d := range status.GetImage().GetRepoDigests() {
		_, p.Digest, _ = strings.Cut(d, "@")
	}
	return p, nil
}

// PodProcess is the process of a pod's container.
func (c *Containerd) PodProcess(t testing.TB, id string) (pid string) {
	t.Helper()
	status, err := cri.NewRuntimeServiceClient(c.conn).ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(status.GetInfo()["info"]), &info); err != nil || info.Pid == 0 {
		t.Fatalf("the process of container %s: %v in %v", id, err, status.GetInfo())
	}
	return strconv.Itoa(info.Pid)
}

// Socket is where its CRI is.
func (c *Containerd) Socket() string { return c.socket }

// RemovePods stops and removes all pods, which else would outlive it.
func (c *Containerd) RemovePods(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	pods := cri.NewRuntimeServiceClient(c.conn)
	list, err := pods.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		t.Errorf("list pods: %v", err)
		return
	}
	for _, p := range list.GetItems() {
		if _, err := pods.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.GetId()}); err != nil {
			t.Errorf("stop pod %s: %v", p.GetMetadata().GetName(), err)
		}
		if _, err := pods.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.GetId()}); err != nil {
			t.Errorf("remove pod %s: %v", p.GetMetadata().GetName(), err)
		}
	}
}
