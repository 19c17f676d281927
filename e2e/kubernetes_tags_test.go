package e2e_test

import (
	"encoding/json"
	"fmt"
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

// drifting is a case of drift as the API has it.
type drifting struct {
	Image, Kind string
	Digests     []struct {
		Digest  string
		Current bool
		Pods    []string
	}
	Change *struct {
		From, To string
		Layers   int
	}
}

// TestKubernetesTags: a real kubelet, API server and containerd. The drift of a tag names the pod that runs the old image, and what
// would change if it restarted; so it does for a Deployment that is scaled to zero. Without the rights the command says which are
// missing.
func TestKubernetesTags(t *testing.T) {
	c := startCluster(t)
	const (
		sandbox = "mcr.microsoft.com/acme/app:v1"
		web     = "docker.io/acme/web:main"
	)
	files := registry.Start(t, registry.Options{})
	program := pause(t)
	// Other content: a node that has an image already pulls no manifest of it.
	image.PushProgram(t, files.Host, "acme/app", "v1", append(slices.Clip(program), "sandbox"...))
	image.PushProgram(t, files.Host, "acme/web", "main", program)
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("mcr.microsoft.com: {endpoints: [%s]}\ndocker.io: {endpoints: [%s], tags: {maxAge: 1h}}", files.URL(), files.URL()),
		More: fmt.Sprintf("platforms: [linux/amd64]\nkubernetes: {events: true, server: %q, tokenFile: %q, caFile: %q}",
			c.Server, c.Account(t, "mirror", "mirror"), c.CA),
	})
	if r := proc.Run(t, proc.Options{}, mirrord.Binary, "tags", "drift", "--admin", m.Admin); r.Code != 1 || !strings.Contains(r.Text(), "deploy/kubernetes/events.yaml") {
		t.Errorf("without rights: %d %s", r.Code, r.Text())
	}
	c.Kubectl(t, "apply", "-f", "../deploy/kubernetes/events.yaml")

	nothing := origin.Start(t, origin.Options{})
	runtime := containerd.StartWith(t, containerd.V2, containerd.Certs{Mirror: m.URL(), Server: nothing.URL(), Node: kubernetes.Node}, kubernetes.Containerd(sandbox))
	if _, err := runtime.CRI(t, sandbox); err != nil {
		t.Fatal(err)
	}
	c.Join(t, runtime)
	c.Run(t, "old", web)
	c.Kubectl(t, "create", "deployment", "idle", "--image", web, "--replicas", "0")
	running(t, c, "old")

	find := func() (list []drifting) {
		var body struct{ Drift []drifting }
		if err := json.Unmarshal([]byte(command(t, m, "tags", "drift", "-o", "json")), &body); err != nil {
			t.Fatal(err)
		}
		return body.Drift
	}
	if got := find(); len(got) != 0 {
		t.Errorf("drift before the tag has moved: %+v", got)
	}
	image.PushProgram(t, files.Host, "acme/web", "main", append(slices.Clip(program), "another build"...))
	command(t, m, "tags", "refresh", web)
	got := find()
	var kinds []string
	for _, d := range got {
		kinds = append(kinds, d.Kind)
		equal(t, "image", d.Image, web)
		if len(d.Digests) != 2 || !d.Digests[0].Current || d.Digests[1].Current {
			t.Fatalf("%s: %+v", d.Kind, d.Digests)
		}
		want := map[string]string{"running": "default/old", "restart": "default/Deployment/idle default/old"}[d.Kind]
		equal(t, "pods of "+d.Kind, strings.Join(d.Digests[1].Pods, " "), want)
	}
	slices.Sort(kinds)
	if !slices.Equal(kinds, []string{"restart", "running"}) {
		t.Fatalf("kinds: %v", kinds)
	}

	// A pod that starts now gets the new image; then the mirror knows what would change for the old one.
	c.Run(t, "new", web)
	running(t, c, "new")
	for _, d := range find() {
		switch {
		case d.Kind == "running" && strings.Join(d.Digests[0].Pods, " ") != "default/new":
			t.Errorf("running: %+v", d.Digests)
		case d.Kind == "restart" && (d.Change == nil || d.Change.Layers != 1 || d.Change.From != got[0].Digests[1].Digest || d.Change.To != got[0].Digests[0].Digest):
			t.Errorf("restart: %+v", d.Change)
		}
	}
	t.Log(command(t, m, "tags", "drift"))

	// Pinned back, the new pod is the one that would change, and the Deployment, whose image was pulled last as the new one.
	command(t, m, "tags", "pin", web+"@"+got[0].Digests[1].Digest, "--reason", "INC-1")
	for _, d := range find() {
		if d.Kind == "restart" && strings.Join(d.Digests[1].Pods, " ") != "default/Deployment/idle default/new" {
			t.Errorf("pinned back: %+v", d.Digests)
		}
	}
}

// running waits until a pod runs.
func running(t *testing.T, c *kubernetes.Cluster, pod string) {
	t.Helper()
	wait.For(t, 2*time.Minute, "the pod "+pod, func() error {
		if phase := c.Kubectl(t, "get", "pod", pod, "-o", "jsonpath={.status.phase}"); phase != "Running" {
			return fmt.Errorf("it is %s", phase)
		}
		return nil
	})
}
