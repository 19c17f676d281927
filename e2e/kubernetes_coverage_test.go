package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/kubernetes"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestKubernetesCoverage: a real kubelet, API server and containerd. An image that the node pulls through the mirror, and one for whose
// registry the node has another entry: the command names the second one, its pod and the registry. mirror doctor finds the right that
// is missing at first.
func TestKubernetesCoverage(t *testing.T) {
	c := startCluster(t)
	const (
		sandbox = "mcr.microsoft.com/acme/app:v1"
		through = "docker.io/acme/web:main"
		past    = "quay.io/acme/other:v1"
	)
	files := registry.Start(t, registry.Options{})
	program := pause(t)
	// Other content: a node that has an image already pulls nothing.
	image.PushProgram(t, files.Host, "acme/app", "v1", append(slices.Clip(program), "sandbox"...))
	image.PushProgram(t, files.Host, "acme/web", "main", program)
	image.PushProgram(t, files.Host, "acme/other", "v1", append(slices.Clip(program), "other"...))
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("mcr.microsoft.com: {endpoints: [%s]}\ndocker.io: {endpoints: [%s]}\nquay.io: {endpoints: [%s]}", files.URL(), files.URL(), files.URL()),
		More: fmt.Sprintf("platforms: [linux/amd64]\nkubernetes: {coverage: true, server: %q, tokenFile: %q, caFile: %q}",
			c.Server, c.Account(t, "mirror", "mirror"), c.CA),
	})
	if r := proc.Run(t, proc.Options{}, mirrord.Binary, "doctor", "--admin", m.Admin); r.Code != 1 || !strings.Contains(r.Text(), "may not list pods, list events") {
		t.Errorf("doctor without rights: %d %s", r.Code, r.Text())
	}
	c.Kubectl(t, "apply", "-f", "../deploy/kubernetes/events.yaml")

	nothing := origin.Start(t, origin.Options{})
	certs := containerd.Certs{Mirror: m.URL(), Server: nothing.URL(), Node: kubernetes.Node}.Write(t)
	runtime := containerd.StartWith(t, containerd.V2, containerd.Certs{Made: certs}, kubernetes.Containerd(sandbox))
	if _, err := runtime.CRI(t, sandbox); err != nil {
		t.Fatal(err)
	}
	c.Join(t, runtime)
	coverage := func() (report struct {
		Since time.Time
		Nodes []struct {
			Node, Reason             string
			Images, Through, Unknown int
			Details                  []struct {
				Image, State, Why string
				Pods              []string
			}
		}
	},
	) {
		if err := json.Unmarshal([]byte(command(t, m, "coverage", "-o", "json", "--node", kubernetes.Node)), &report); err != nil {
			t.Fatal(err)
		}
		return report
	}
	wait.For(t, time.Minute, "a record that is older than clocks may be off", func() error {
		if age := time.Since(coverage().Since); age < 40*time.Second {
			return fmt.Errorf("it is %s old", age)
		}
		return nil
	})
	c.Run(t, "through", through)
	running(t, c, "through")
	direct := fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", files.URL(), files.URL())
	if err := os.WriteFile(filepath.Join(certs, "quay.io", "hosts.toml"), []byte(direct), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Run(t, "past", past)
	running(t, c, "past")
	wait.For(t, time.Minute, "the Event of the second image", func() error {
		if n := coverage().Nodes; len(n) != 1 || n[0].Images != 2 {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	n := coverage().Nodes[0]
	if n.Through != 1 || n.Unknown != 0 || !strings.HasPrefix(n.Reason, "no image of quay.io came through the mirror") {
		t.Errorf("%+v", n)
	}
	for _, i := range n.Details {
		want := map[string]string{through: "through  default/through", past: "missed past default/past"}[i.Image]
		if got := i.State + " " + i.Why + " " + strings.Join(i.Pods, " "); got != want {
			t.Errorf("%s: %s, want %s", i.Image, got, want)
		}
	}
	if r := proc.Run(t, proc.Options{}, mirrord.Binary, "coverage", "--fail", "--admin", m.Admin); r.Code != 1 {
		t.Errorf("--fail: %d %s", r.Code, r.Text())
	}
	if r := proc.Run(t, proc.Options{}, mirrord.Binary, "doctor", "--admin", m.Admin); r.Code != 0 {
		t.Errorf("doctor with the rights: %d %s", r.Code, r.Text())
	}
	t.Log(command(t, m, "coverage", "-o", "wide"))
}
