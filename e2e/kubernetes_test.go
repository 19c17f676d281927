package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// pullOfPod is a pod whose image does not come, and what is to be told of it.
type pullOfPod struct {
	name   string // of the pod
	host   string // of its image, among those of deploy/containerd
	tag    string
	class  string
	reason string
	// upstream is the value of the host's key under upstreams. Nil: the mirror has no such upstream.
	upstream func(t *testing.T) string
}

// originAs is an upstream with acme/app:v1 that misbehaves.
func originAs(o origin.Options, misbehave func(*origin.Origin)) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		g := origin.Start(t, o)
		g.AddImage("acme/app", "v1", origin.Image{})
		if misbehave != nil {
			misbehave(g)
		}
		return "endpoints: [" + g.URL() + "]"
	}
}

func answers(status int, header http.Header) func(*origin.Origin) {
	return func(g *origin.Origin) {
		g.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{Status: status, Header: header, Body: "<html>no</html>"}})
	}
}

// pullsOfPods has a pod of each class of reasons. What only a client knows of itself is not among them: no pod of a
// healthy node leaves, or is too slow.
var pullsOfPods = []pullOfPod{
	{"refused", "docker.io", "v1", "network", "connect-refused", originAs(origin.Options{}, (*origin.Origin).Down)},
	{"untrusted", "ghcr.io", "v1", "tls", "tls-untrusted", originAs(origin.Options{TLS: true}, nil)},
	{"rejected", "quay.io", "v1", "auth", "credentials-rejected", func(t *testing.T) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte("yesterday's"), 0o600); err != nil {
			t.Fatal(err)
		}
		g := originAs(origin.Options{Auth: origin.Auth{Kind: "basic", Username: "bot", Password: "today's"}}, nil)
		return g(t) + fmt.Sprintf(", access: rules, credentials: [{name: team, username: bot, passwordFile: %q}]", file)
	}},
	{"mistyped", "gcr.io", "v9", "missing", "tag-not-found", originAs(origin.Options{}, nil)},
	// The mirror has seen which platform of an index this node takes: that of the image below its pods.
	{"elsewhere", "registry.gitlab.com", "arm", "missing", "platform-missing", originAs(origin.Options{}, func(g *origin.Origin) {
		g.AddImage("acme/app", "arm", origin.Image{Platforms: []string{"linux/arm64", "windows/amd64"}})
	})},
	{"private", "registry.k8s.io", "v1", "undecided", "not-found-or-no-access", originAs(origin.Options{Auth: origin.Auth{
		Kind: "bearer", Username: "bot", Password: "x", Anonymous: true, Private: func(string) bool { return true },
	}}, nil)},
	{"limited", "nvcr.io", "v1", "limit", "rate-limited", originAs(origin.Options{}, answers(http.StatusTooManyRequests, http.Header{"Retry-After": {"600"}}))},
	{"down", "public.ecr.aws", "v1", "upstream", "upstream-error", originAs(origin.Options{}, answers(http.StatusServiceUnavailable, nil))},
	{"unknown", "cgr.dev", "v1", "mirror", "unknown-upstream", nil},
}

// told is a failure as the mirror's API tells it.
type told struct{ ID, Image, Class, Reason, Summary, Remedy, Outcome string }

// startCluster starts the control plane, or skips the test where its programs are not there.
func startCluster(t *testing.T) *kubernetes.Cluster {
	t.Helper()
	if missing := kubernetes.Missing(); missing != "" {
		if os.Getenv("MIRROR_E2E_KUBERNETES") != "" {
			t.Fatalf("%s is not there", missing)
		}
		t.Skipf("%s is not there; make e2e-kubernetes installs it and runs this", missing)
	}
	return kubernetes.Start(t)
}

// pause builds a program that waits to be stopped.
func pause(t *testing.T) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "pause")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./internal/pause")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build pause: %v\n%s", err, out)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// TestKubernetes: a real kubelet, API server and containerd. "kubectl describe pod" shows cause and remedy of a failing
// pull of each class, and "mirror explain" reads the cluster's events right. The mirror's rights are those of
// deploy/kubernetes.
//
// The programs take ten minutes to build, so they are not there everywhere: "make e2e-kubernetes" installs them, and
// then this is part of every run.
func TestKubernetes(t *testing.T) {
	c := startCluster(t)
	files := registry.Start(t, registry.Options{})
	image.PushProgram(t, files.Host, "acme/app", "v1", pause(t))

	upstreams := "mcr.microsoft.com: {endpoints: [" + files.URL() + "]}\n"
	for _, p := range pullsOfPods {
		if p.upstream != nil {
			upstreams += fmt.Sprintf("%s: {%s}\n", p.host, p.upstream(t))
		}
	}
	m := mirrord.Start(t, mirrord.Options{Upstreams: upstreams, More: fmt.Sprintf(
		"rules: [{who: [anonymous], pull: [\"quay.io/acme/**\"]}]\nkubernetes: {events: true, server: %q, tokenFile: %q, caFile: %q}",
		c.Server, c.Account(t, "mirror", "mirror"), c.CA)})
	wait.For(t, 30*time.Second, "the mirror to miss its rights", func() error {
		if line, ok := m.Line("cannot post Kubernetes Events for failed pulls"); ok && strings.Contains(fmt.Sprint(line["remedy"]), "deploy/kubernetes/events.yaml") {
			return nil
		}
		return fmt.Errorf("it has not said what it needs")
	})
	c.Kubectl(t, "apply", "-f", "../deploy/kubernetes/events.yaml")

	// Where the node goes on to there is nothing, so that what is shown is the mirror's.
	nothing := origin.Start(t, origin.Options{})
	const sandbox = "mcr.microsoft.com/acme/app:v1"
	runtime := containerd.StartWith(t, containerd.V2, containerd.Certs{Mirror: m.URL(), Server: nothing.URL()}, kubernetes.Containerd(sandbox))
	if _, err := runtime.CRI(t, sandbox); err != nil {
		t.Fatal(err)
	}
	c.Join(t, runtime)
	c.Run(t, "fine", sandbox)
	for _, p := range pullsOfPods {
		c.Run(t, p.name, p.host+"/acme/app:"+p.tag)
	}

	failures := make(map[string]told) // by image
	wait.For(t, 2*time.Minute, "all to fail", func() error {
		var list struct{ Failures []told }
		_, body := m.Get(t, "/api/v1/failures?declined=true&limit=1000")
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			return err
		}
		for _, f := range list.Failures {
			failures[f.Image] = f
		}
		for _, p := range pullsOfPods {
			if failures[p.host+"/acme/app:"+p.tag].ID == "" {
				return fmt.Errorf("nothing is recorded of %s", p.name)
			}
		}
		return nil
	})
	for _, p := range pullsOfPods {
		f := failures[p.host+"/acme/app:"+p.tag]
		if f.Reason != p.reason || f.Class != p.class {
			t.Errorf("%s: recorded as %s, %s; want %s, %s", p.name, f.Class, f.Reason, p.class, p.reason)
		}
		var text string
		err := wait.Until(t.Context(), 2*time.Minute, func() error {
			text = c.Kubectl(t, "describe", "pod", p.name)
			for _, want := range []string{strings.TrimPrefix(f.Summary, "the mirror "), f.Remedy, "[" + f.ID + "]"} {
				if !strings.Contains(text, want) {
					return fmt.Errorf("%q is not there", want)
				}
			}
			return nil
		})
		_, events, _ := strings.Cut(text, "Events:")
		t.Logf("%s: %s\n%s", p.name, p.reason, strings.TrimSpace(events))
		if err != nil {
			t.Errorf("kubectl describe pod %s: %v", p.name, err)
		}
	}
	wait.For(t, time.Minute, "the pod whose image is there", func() error {
		if phase := c.Kubectl(t, "get", "pod", "fine", "-o", "jsonpath={.status.phase}"); phase != "Running" {
			return fmt.Errorf("it is %s", phase)
		}
		return nil
	})
	if events := c.Kubectl(t, "get", "events", "--field-selector", "involvedObject.name=fine,reason=Failed", "-o", "name"); events != "" {
		t.Errorf("the pod whose image is there has %s", events)
	}

	explain(t, c.Kubectl(t, "get", "events", "-A", "-o", "json"), failures)
	explain(t, c.Kubectl(t, "get", "events", "-A", "--field-selector", "reason=Failed", "-o", "json"), failures)
}

// explain reads events as "mirror explain" does, and expects each failure of the mirror's record, and nothing else: but
// for what the mirror declined, of which there is also what the node met where it went on to.
func explain(t *testing.T, events string, failures map[string]told) {
	t.Helper()
	r := proc.Run(t, proc.Options{Stdin: []byte(events)}, mirrord.Binary, "explain", "-o", "json", "-")
	var report struct {
		Failures []struct{ Reason, Image, ID, Text string }
	}
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || r.Code != 0 {
		t.Fatalf("mirror explain: %v, exit code %d\n%s", err, r.Code, r.Text())
	}
	seen := make(map[string]bool)
	for _, f := range report.Failures {
		want, ok := failures[f.Image]
		seen[f.Image] = seen[f.Image] || f.Reason == want.Reason
		if !ok || f.Reason != want.Reason && (want.Outcome != "declined" || f.Reason == "unknown") {
			t.Errorf("mirror explain says of %s: %s, want %s\n%s", f.Image, f.Reason, want.Reason, f.Text)
		}
	}
	for image, f := range failures {
		if !seen[image] {
			t.Errorf("mirror explain says nothing of %s, which is %s", image, f.Reason)
		}
	}
}
