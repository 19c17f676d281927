// Package containerd runs containerd, of the old line and of the new one, with folders and a socket of its own, and
// pulls through it as ctr does and as the kubelet does.
//
// It reads the very files that nodes get: deploy/containerd of this repository.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// Line is a line of releases.
type Line string

// The lines.
const (
	V1 Line = "1.6" // Debian's
	V2 Line = "2.4" // built by install.sh
)

// Lines are all.
var Lines = []Line{V1, V2}

// Deploy is the folder with the files for nodes.
const Deploy = "../deploy/containerd"

// address is what the files for nodes say the mirror's is.
const address = "http://127.0.0.1:5000"

// Certs is a folder of hosts.toml files, as config_path names it.
type Certs struct {
	// Mirror is the mirror's URL.
	Mirror string
	// CA is the file with the certificate that the mirror's is signed by, on TLS.
	CA string
	// Server takes the place of the registry that containerd goes on to. Empty: it stays the real one, which is out of
	// reach here.
	Server string
}

// Write makes the folder out of the files for nodes.
func (c Certs) Write(t testing.TB) string {
	t.Helper()
	dst := t.TempDir()
	src := filepath.Join(Deploy, "certs.d")
	err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
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
		text := strings.ReplaceAll(string(b), address, c.Mirror)
		if text == string(b) && c.Mirror != address {
			return fmt.Errorf("%s does not have %s in it", path, address)
		}
		if c.CA != "" { // as deploy/containerd/README.md says
			text += fmt.Sprintf("  ca = %q\n", c.CA)
		}
		if c.Server != "" {
			text = withServer(text, c.Server)
		}
		to := filepath.Join(dst, rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, []byte(text), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dst
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
}

// rest is what a test needs beside the file for nodes: nothing of this machine's own containerd is touched.
var rest = map[Line]string{
	V1: `
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
`,
	V2: `
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
`,
}

// Start runs one that reads the hosts.toml files of certs, until the test ends.
func Start(t testing.TB, line Line, certs Certs) *Containerd {
	t.Helper()
	c := &Containerd{line: line, certs: certs.Write(t)}
	var program, nodeFile string
	switch line {
	case V1:
		program, c.ctr, nodeFile = tool.System(t, "containerd"), tool.System(t, "ctr"), "config-1.x.toml"
	case V2:
		program, c.ctr, nodeFile = tool.Built(t, "containerd"), tool.Built(t, "ctr"), "config-2.x.toml"
	default:
		t.Fatalf("no containerd of line %q", line)
	}
	dir := proc.Dir(t)
	c.socket = filepath.Join(dir, "c.sock")
	b, err := os.ReadFile(filepath.Join(Deploy, nodeFile))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "/etc/containerd/certs.d", c.certs)
	if text == string(b) {
		t.Fatalf("%s does not name /etc/containerd/certs.d", nodeFile)
	}
	text += strings.NewReplacer("DIR", dir, "SOCKET", c.socket).Replace(rest[line])
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Process = proc.Start(t, proc.Options{Name: "containerd " + string(line)}, program,
		"--config", file, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"),
		"--address", c.socket, "--log-level", "debug")
	c.connect(t)
	return c
}

// connect waits until its CRI answers.
func (c *Containerd) connect(t testing.TB) {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c.conn = conn
	t.Cleanup(func() { _ = conn.Close() })
	wait.For(t, time.Minute, "CRI of containerd "+string(c.line), func() error {
		if err := c.Exited(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		v, err := cri.NewRuntimeServiceClient(conn).Version(ctx, &cri.VersionRequest{})
		if err != nil {
			return err
		}
		if got := strings.TrimPrefix(v.GetRuntimeVersion(), "v"); !strings.HasPrefix(got, string(c.line)+".") {
			t.Fatalf("containerd is %s, want %s", got, c.line)
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

// CRI pulls as the kubelet does.
func (c *Containerd) CRI(t testing.TB, ref string) (Pulled, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	images := cri.NewImageServiceClient(c.conn)
	spec := &cri.ImageSpec{Image: ref}
	pulled, err := images.PullImage(ctx, &cri.PullImageRequest{Image: spec})
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
