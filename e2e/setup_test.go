package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/podman"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
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
