package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// deadLayers are those of the images that are pulled past a dead mirror: with the index, the manifest and the configuration more
// objects than most images have.
var deadLayers = image.Layers{1 << 10, 2 << 10, 3 << 10, 4 << 10, 5 << 10, 6 << 10, 7 << 10, 8 << 10}

// TestDeadMirror: a mirror that refuses connections costs a pull at most 2 s, and one that takes no packets the same with containerd
// 2.x. After the agent has withdrawn it, it costs nothing. Each pull has its like beside it that knows of no mirror.
func TestDeadMirror(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	for _, line := range containerd.All {
		t.Run(string(line), func(t *testing.T) {
			t.Parallel()
			d := &deadMirror{upstream: upstream, dir: filepath.Join(t.TempDir(), "certs.d"), line: line}
			d.file = filepath.Join(d.dir, "docker.io", "hosts.toml")
			d.none(t)
			d.runtime = containerd.Start(t, line, containerd.Certs{Made: d.dir})
			d.pull(t) // the first one of a containerd takes longer
			d.costs(t, "a mirror that refuses", func() { d.setup(t, "http://"+refuses(t)) })
			if line != containerd.V1 { // which has no setting for it: 30 s at each request
				hole := "http://" + blackHole(t)
				d.costs(t, "a black hole", func() { d.setup(t, hole) })
			}
			d.withdrawn(t) // from here on the node is one without a mirror, to the byte
			d.costs(t, "a mirror that is withdrawn", func() {})
		})
	}
}

// TestBlackHoleOldContainerd measures what a mirror that takes no packets costs containerd 1.6, which has no setting for it and waits 30 s
// for each connection: an image of one layer, with its index, manifest and configuration.
func TestBlackHoleOldContainerd(t *testing.T) {
	t.Parallel()
	if os.Getenv("MIRROR_E2E_BLACK_HOLE") == "" {
		t.Skip("it waits some minutes: make black-hole runs it")
	}
	d := &deadMirror{upstream: registry.Start(t, registry.Options{}), dir: filepath.Join(t.TempDir(), "certs.d"), line: containerd.V1}
	d.file = filepath.Join(d.dir, "docker.io", "hosts.toml")
	d.none(t)
	d.runtime = containerd.Start(t, containerd.V1, containerd.Certs{Made: d.dir})
	d.layers = image.Layers{1 << 10}
	without := d.pull(t)
	d.setup(t, "http://"+blackHole(t))
	with := d.pull(t)
	t.Logf("containerd %s: a black hole costs %s; a pull of %s, without a mirror %s", d.line, (with - without).Round(time.Millisecond),
		with.Round(time.Millisecond), without.Round(time.Millisecond))
	// One for each object at most, and one for the tag.
	const wait, most = 30 * time.Second, 5
	if cost := with - without; cost < wait-5*time.Second || cost > most*wait+5*time.Second {
		t.Errorf("the cost is not one of 1 to %d waits of %s", most, wait)
	}
}

type deadMirror struct {
	upstream  *registry.Registry
	dir, file string
	line      containerd.Line
	runtime   *containerd.Containerd
	layers    image.Layers // nil: deadLayers
	pulls     int
}

// none makes the node one that knows of no mirror.
func (d *deadMirror) none(t *testing.T) {
	t.Helper()
	d.write(t, d.noMirror())
}

func (d *deadMirror) noMirror() string {
	return fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", d.upstream.URL(), d.upstream.URL())
}

func (d *deadMirror) write(t *testing.T, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(d.file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// setup has mirror setup configure the node.
func (d *deadMirror) setup(t *testing.T, mirror string) {
	t.Helper()
	proc.Must(t, proc.Options{}, mirrord.Binary, "setup", "containerd", "--mirror", mirror, "--registry", "docker.io="+d.upstream.URL(),
		"--install="+d.dir, "--containerd-config", d.runtime.Config())
}

// pull is how long the pull of an image takes that is nowhere but in the registry.
func (d *deadMirror) pull(t *testing.T) time.Duration {
	t.Helper()
	d.pulls++
	repository := fmt.Sprintf("library/dead-%s-%d", strings.ReplaceAll(string(d.line), ".", "-"), d.pulls)
	layers := d.layers
	if layers == nil {
		layers = deadLayers
	}
	image.PushIndex(t, d.upstream.Host, repository, "v1", layers)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	start := time.Now()
	if _, err := d.runtime.Pull(ctx, "docker.io/"+repository+":v1"); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

// costs holds what a mirror costs to its bound. A machine that is busy with other tests is given three tries.
func (d *deadMirror) costs(t *testing.T, name string, state func()) {
	t.Helper()
	const bound = 2 * time.Second
	var cost time.Duration
	for range 3 {
		if cost = d.cost(t, name, state); cost <= bound {
			return
		}
	}
	t.Errorf("%s costs %s, want at most %s", name, cost, bound)
}

// cost is how much longer pulls take in a state of the node than without a mirror, as the difference of the medians of five that
// take turns.
func (d *deadMirror) cost(t *testing.T, name string, state func()) time.Duration {
	t.Helper()
	var with, without []time.Duration
	for range 5 {
		state()
		with = append(with, d.pull(t))
		d.none(t)
		without = append(without, d.pull(t))
	}
	slices.Sort(with)
	slices.Sort(without)
	cost := with[2] - without[2]
	t.Logf("containerd %s, %s costs %s; pulls of %s to %s, without a mirror %s to %s", d.line, name, cost.Round(time.Millisecond),
		with[0].Round(time.Millisecond), with[4].Round(time.Millisecond), without[0].Round(time.Millisecond), without[4].Round(time.Millisecond))
	return cost
}

// withdrawn has an agent write the configuration of a mirror, which then dies, and waits until the agent has withdrawn it.
func (d *deadMirror) withdrawn(t *testing.T) {
	t.Helper()
	m := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ready")) }))
	defer m.Close()
	a, err := proc.Launch(proc.Options{Name: "agent"}, mirrord.Binary, "node", "run", "--mirror", m.URL, "--registry", "docker.io="+d.upstream.URL(),
		"--dir", d.dir, "--every", "1s", "--listen", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.End() })
	ours := func(want bool) {
		t.Helper()
		wait.For(t, time.Minute, fmt.Sprintf("the agent to have its file there: %t", want), func() error {
			b, err := os.ReadFile(d.file)
			if err == nil && strings.Contains(string(b), m.URL) != want {
				err = fmt.Errorf("%s", b)
			}
			return err
		})
	}
	ours(true)
	m.Close()
	ours(false)
	a.Signal(t, syscall.SIGKILL) // as it is now it stays
	if b, err := os.ReadFile(d.file); err != nil || string(b) != d.noMirror() {
		t.Errorf("withdrawn: %q, %v", b, err)
	}
}

// refuses is an address at which nothing listens.
func refuses(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// blackHole is an address that answers no packet: its queue of connections is full, and so the kernel drops each SYN.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprint("127.0.0.1:", name.(*unix.SockaddrInet4).Port)
	for range 10 {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatalf("%s still takes connections", address)
	return ""
}
