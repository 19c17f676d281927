package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/buildkit"
	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/dockerd"
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
	for _, line := range containerd.All {
		for _, way := range []string{"--default", "--no-fallback"} {
			t.Run(string(line)+" "+way, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "certs.d")
				name := "node-" + string(line) + strings.TrimLeft(way, "-")
				c := containerd.Start(t, line, containerd.Certs{Made: dir})
				out := setup(t, "containerd", "--mirror", m.URL(), "--registry", "docker.io", "--node", name, "--default", way, "--install="+dir,
					"--containerd-config", c.Config())
				if !strings.Contains(out, "written") || !strings.Contains(out, "reads this folder: "+c.Config()) {
					t.Errorf("setup says: %s", out)
				}
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
	t.Run("buildkit", func(t *testing.T) {
		t.Parallel()
		var doc struct {
			Files []struct{ Content string }
		}
		args := []string{"buildkit", "--mirror", m.URL(), "--registry", "docker.io", "--registry", "quay.io", "-o", "json"}
		if err := json.Unmarshal([]byte(setup(t, args...)), &doc); err != nil {
			t.Fatal(err)
		}
		b := buildkit.Start(t, doc.Files[0].Content)
		for _, ref := range []string{app, other} { // both are out of reach but for the mirror
			if err := b.Build(t, ref); err != nil {
				t.Error(err)
			}
		}
		if err := b.Build(t, "ghcr.io/"+appRepository+":v1"); err == nil {
			t.Error("an image of a registry that has no entry was built from")
		}
	})
	t.Run("docker", func(t *testing.T) {
		t.Parallel()
		var doc struct {
			Files []struct{ Path, Content string }
		}
		if err := json.Unmarshal([]byte(setup(t, "docker", "--mirror", m.URL(), "--registry", "docker.io", "-o", "json")), &doc); err != nil {
			t.Fatal(err)
		}
		var daemon map[string]any
		if err := json.Unmarshal([]byte(doc.Files[0].Content), &daemon); err != nil || doc.Files[0].Path != "/etc/docker/daemon.json" {
			t.Fatalf("%s: %v", doc.Files[0].Path, err)
		}
		got, err := dockerd.StartWith(t, daemon).Pull(t, app)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "image id", got.ID, x.Config(t, "linux/amd64"))
	})
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

// TestConfigPath: where config_path is not set, "mirror setup" prints the exact change for the containerd that runs, after which its CRI
// pulls through the mirror. Where mirrors is set it refuses, and is right to: with both, CRI does not load.
func TestConfigPath(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	x := image.PushIndex(t, upstream.Host, appRepository, "v1", image.Layers{1 << 10})
	m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}"})
	const merged = "version = 3\nimports = [\"conf.d/*.toml\"]\n[grpc]\n  address = \"SOCKET\"\n"
	const whole = "version = 2\n[grpc]\n  address = \"SOCKET\"\n"
	for _, tt := range []struct {
		name string
		line containerd.Line
		main string
		file string // that is to be changed
		more string // behind it
	}{
		{"1.6", containerd.V1, whole, "config.toml", ""},
		{"1.6 with the table that containerd config default writes", containerd.V1, whole, "config.toml", "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n" +
			"  config_path = \"\"\n\n  [plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n\n  [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n"},
		{"2.3", containerd.LTS, merged, "conf.d/99-mirror.toml", ""},
		{"2.4", containerd.V2, merged, "conf.d/99-mirror.toml", ""},
		{"2.4 without imports", containerd.V2, "version = 3\n[grpc]\n  address = \"SOCKET\"\n", "config.toml", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			certs := filepath.Join(t.TempDir(), "certs.d")
			c := containerd.StartWith(t, tt.line, containerd.Certs{Made: certs}, containerd.Settings{Node: tt.main, TOML: tt.more})
			args := []string{"setup", "containerd", "--mirror", m.URL(), "--registry", "docker.io", "--install=" + certs, "--containerd-config", c.Config(), "-o", "json"}
			var doc struct {
				Files []struct {
					Path, Content string
					Merge         bool
					Line          int
				}
				Notes []string
			}
			if err := json.Unmarshal([]byte(proc.Must(t, proc.Options{}, mirrord.Binary, args...)), &doc); err != nil {
				t.Fatal(err)
			}
			if len(doc.Files) != 1 || !strings.Contains(doc.Notes[0], "containerd "+string(tt.line)+".") || !strings.Contains(doc.Notes[0], "it answers at "+c.Socket()) {
				t.Fatalf("%+v", doc)
			}
			f := doc.Files[0]
			equal(t, "the file to change", f.Path, filepath.Join(filepath.Dir(c.Config()), tt.file))
			content := []byte(f.Content)
			if f.Merge {
				before, err := os.ReadFile(f.Path)
				if err != nil {
					t.Fatal(err)
				}
				lines := strings.SplitAfter(string(before), "\n")
				if f.Line > 0 {
					lines[f.Line-1] = ""
				} else {
					f.Line = len(lines)
				}
				content = []byte(strings.Join(slices.Insert(lines, f.Line, f.Content), ""))
			}
			if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f.Path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			c.Restart(t) // its CRI answers
			if p, err := c.CRI(t, app); err != nil || p.Digest != x.Digest.String() {
				t.Errorf("CRI: %+v, %v", p, err)
			}
			if out := proc.Must(t, proc.Options{}, mirrord.Binary, args...); !strings.Contains(out, "reads this folder") {
				t.Errorf("after the change: %s", out)
			}
		})
	}
	for _, line := range containerd.All {
		t.Run(string(line)+" with mirrors", func(t *testing.T) {
			t.Parallel()
			certs := filepath.Join(t.TempDir(), "certs.d")
			table, main := "io.containerd.cri.v1.images", merged
			if line == containerd.V1 {
				table, main = "io.containerd.grpc.v1.cri", whole
			}
			const mirrors = "[plugins.%q.registry.mirrors.\"docker.io\"]\n  endpoint = [%q]\n"
			c := containerd.StartWith(t, line, containerd.Certs{Made: certs}, containerd.Settings{
				Node: main, TOML: fmt.Sprintf(mirrors+"[plugins.%q.registry]\n  config_path = %q\n", table, m.URL(), table, certs), Broken: true,
			})
			r := proc.Run(t, proc.Options{}, mirrord.Binary, "setup", "containerd", "--mirror", m.URL(), "--registry", "docker.io", "--install="+certs,
				"--containerd-config", c.Config())
			if _, err := os.Stat(certs); r.Code != 1 || !strings.Contains(r.Stderr, "keeps the CRI plugin from loading") || err == nil {
				t.Errorf("code %d, %s", r.Code, r.Text())
			}
			if plugins := c.Plugins(t); !strings.Contains(plugins, "error") {
				t.Errorf("plugins:\n%s", plugins)
			}
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
	var nodes []*containerd.Containerd
	for _, line := range containerd.All {
		nodes = append(nodes, containerd.Start(t, line, containerd.Certs{Made: dir}))
	}
	pull := func(tag string) {
		t.Helper()
		push(tag)
		for _, c := range nodes {
			if _, err := c.CRI(t, "docker.io/library/app:"+tag); err != nil {
				t.Fatal(err)
			}
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
