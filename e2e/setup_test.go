package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/podman"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestSetup: real clients pull with the files that "mirror setup" writes, and the mirror knows the node by its name.
func TestSetup(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	x := image.PushIndex(t, upstream.Host, appRepository, "v1", image.Layers{1 << 10})
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}\nquay.io: {endpoints: [" + upstream.URL() + "]}",
	})
	const other = "quay.io/" + appRepository + ":v1"
	setup := func(t *testing.T, args ...string) string {
		t.Helper()
		return proc.Must(t, proc.Options{}, mirrord.Binary, append([]string{"setup"}, args...)...)
	}
	for _, line := range containerd.Lines {
		for _, way := range []string{"--default", "--no-fallback"} {
			t.Run(string(line)+" "+way, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "certs.d")
				name := "node-" + string(line) + strings.TrimLeft(way, "-")
				out := setup(t, "containerd", "--mirror", m.URL(), "--registry", "docker.io", "--node", name, "--default", way, "--install="+dir)
				if !strings.Contains(out, "written") {
					t.Errorf("setup says: %s", out)
				}
				c := containerd.Start(t, line, containerd.Certs{Made: dir})
				for _, ref := range []string{app, other} { // the second by _default
					p, err := c.Ctr(t, ref)
					if err != nil {
						t.Fatal(err)
					}
					equal(t, "digest of "+ref, p.Digest, x.Digest.String())
				}
				if p, err := c.CRI(t, app); err != nil || p.Digest != x.Digest.String() {
					t.Errorf("CRI: %+v, %v", p, err)
				}
				if pulls := command(t, m, "tags", "show", app, "-o", "json"); !strings.Contains(pulls, `"`+name+`"`) {
					t.Errorf("no client %s in %s", name, pulls)
				}
				setup(t, "containerd", "--uninstall="+dir)
				left, err := os.ReadDir(dir)
				if err != nil || len(left) > 0 {
					t.Errorf("after --uninstall: %v, %v", left, err)
				}
			})
		}
	}
	for _, way := range []string{"", "--no-fallback"} {
		t.Run("podman "+way, func(t *testing.T) {
			t.Parallel()
			args := []string{"podman", "--mirror", m.URL(), "--registry", "docker.io", "-o", "json"}
			if way != "" {
				args = append(args, way)
			}
			var doc struct{ Files []struct{ Content string } }
			if err := json.Unmarshal([]byte(setup(t, args...)), &doc); err != nil {
				t.Fatal(err)
			}
			id, err := podman.New(t, podman.Options{Made: doc.Files[0].Content}).Pull(t, app)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "image id", id, x.Config(t, "linux/amd64"))
		})
	}
}

// TestNodeAgent: a node pulls through the mirror while that answers, and from the registry, without a delay, soon after it is dead.
// The agent dies in between, and the next one goes on; a stop leaves the node as it was.
func TestNodeAgent(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	push := func(tag string) {
		image.PushIndex(t, upstream.Host, appRepository, tag, image.Layers{1 << 10, len(tag)})
	}
	o := mirrord.Options{Dir: t.TempDir(), Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}"}
	m := mirrord.Start(t, o)
	dir := filepath.Join(t.TempDir(), "certs.d")
	by := filepath.Join(dir, "docker.io", "hosts.toml")
	if err := os.MkdirAll(filepath.Dir(by), 0o755); err != nil {
		t.Fatal(err)
	}
	hand := fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", upstream.URL(), upstream.URL())
	if err := os.WriteFile(by, []byte(hand), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := func() *proc.Process {
		t.Helper()
		p, err := proc.Launch(proc.Options{Name: "agent"}, mirrord.Binary, "node", "run", "--mirror", m.URL(), "--registry",
			"docker.io="+upstream.URL(), "--node", "node-1", "--dir", dir, "--every", "2s", "--listen", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.End() })
		return p
	}
	inUse := func(want bool) {
		t.Helper()
		wait.For(t, time.Minute, fmt.Sprintf("the mirror to be in use: %t", want), func() error {
			b, err := os.ReadFile(by)
			if err == nil && strings.Contains(string(b), m.Host) != want {
				err = fmt.Errorf("hosts.toml is\n%s", b)
			}
			return err
		})
	}
	a := agent()
	inUse(true)
	c := containerd.Start(t, containerd.V2, containerd.Certs{Made: dir})
	pull := func(tag string) {
		t.Helper()
		push(tag)
		if _, err := c.Ctr(t, "docker.io/library/app:"+tag); err != nil {
			t.Fatal(err)
		}
	}
	pull("a")
	seen := func() string { return command(t, m, "tags", "list", "-o", "json") }
	if !strings.Contains(seen(), "app:a") {
		t.Errorf("the pull did not come through the mirror: %s", seen())
	}

	a.Signal(t, syscall.SIGKILL)
	a.WaitExit(t, time.Minute)
	inUse(true) // it stays
	m.Signal(t, syscall.SIGKILL)
	m.WaitExit(t, time.Minute)
	a = agent() // which finds the mirror dead
	inUse(false)
	pull("bb")

	a.Signal(t, syscall.SIGTERM)
	equal(t, "exit code of the agent", a.WaitExit(t, time.Minute), 0)
	b, err := os.ReadFile(by)
	if err != nil || string(b) != hand {
		t.Errorf("after the stop: %q, %v", b, err)
	}
}
