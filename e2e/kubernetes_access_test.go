package e2e_test

import (
	"fmt"
	"os"
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
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestKubernetesAccess: a real kubelet, API server and containerd. Under each access a pod with the right secret, one with a wrong one
// and one without come one after the other, and one with another secret when the image is there: the kubelet asks the mirror by that
// secret, and what the mirror says decides.
func TestKubernetesAccess(t *testing.T) {
	c := startCluster(t)
	program := pause(t)
	files := origin.Start(t, origin.Options{}) // other content: a node that has an image already pulls no manifest of it
	image.Give(t, files, "acme/app", "v1", image.Program(t, "linux/amd64", append(slices.Clip(program), "sandbox"...)))
	hub := origin.Start(t, origin.Options{})
	image.Give(t, hub, "library/app", "v1", image.Program(t, "linux/amd64", append(slices.Clip(program), "public"...)))
	team := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: registryPassword}})
	image.Give(t, team, "acme/app", "v1", image.Program(t, "linux/amd64", append(slices.Clip(program), "rules"...)))
	quay := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Users: map[string]origin.User{
		"alice":  {Password: "alice-41c7", Reads: func(string) bool { return true }},
		"second": {Password: "second-41c7", Reads: func(string) bool { return true }},
		"other":  {Password: "other-41c7"},
	}}})
	image.Give(t, quay, "acme/app", "v1", image.Program(t, "linux/amd64", append(slices.Clip(program), "client"...)))

	dir := t.TempDir()
	token := func(name string) string {
		return strings.TrimSpace(proc.Must(t, proc.Options{}, mirrord.Binary, "token", "new", name, "--file", dir+"/tokens.yaml"))
	}
	ci, second, other := token("ci"), token("second"), token("other")
	if err := os.WriteFile(dir+"/pass", []byte(registryPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("mcr.microsoft.com: {endpoints: [%s]}\ndocker.io: {endpoints: [%s]}\n", files.URL(), hub.URL()) +
			fmt.Sprintf("ghcr.io: {endpoints: [%s], access: rules, credentials: [{name: team, username: bot, passwordFile: %q}]}\n", team.URL(), dir+"/pass") +
			fmt.Sprintf("quay.io: {endpoints: [%s], access: client}", quay.URL()),
		More: fmt.Sprintf("clients: {tokens: %q}\nrules: [{who: [ci, second], pull: ['ghcr.io/acme/*']}]", dir+"/tokens.yaml"),
	})
	const sandbox = "mcr.microsoft.com/acme/app:v1"
	nodes := containerd.Certs{Made: nodeFolders(t, m.URL(), "mcr.microsoft.com", "docker.io", "ghcr.io", "quay.io")}
	runtime := containerd.StartWith(t, containerd.V2, nodes, kubernetes.Containerd(sandbox))
	if _, err := runtime.CRI(t, sandbox); err != nil {
		t.Fatal(err)
	}
	c.Join(t, runtime)
	c.Secret(t, "hub", "docker.io", "me", "a secret of docker.io")
	c.Secret(t, "hub-other", "docker.io", "me", "another")
	c.Secret(t, "mirror", m.Host, "ci", ci)
	c.Secret(t, "mirror-second", m.Host, "second", second)
	c.Secret(t, "mirror-other", m.Host, "other", other)
	c.Secret(t, "mirror-wrong", m.Host, "ci", "wrong")
	c.Secret(t, "team", "ghcr.io", "bot", registryPassword)
	for _, user := range []string{"alice", "second", "other"} {
		c.Secret(t, "quay-"+user, "quay.io", user, user+"-41c7")
	}
	c.Secret(t, "quay-wrong", "quay.io", "alice", "wrong")

	own := m.Host + "/ghcr.io/acme/app:v1"
	for _, tt := range []struct {
		pod, image, secret string
		refused            string // what kubectl describe pod says; empty: the pod runs
	}{
		{"public-none", "docker.io/library/app:v1", "", ""},
		{"public-secret", "docker.io/library/app:v1", "hub", ""},
		{"public-other", "docker.io/library/app:v1", "hub-other", ""},

		// By the registry's name a node without an identity has no right, and the secret for the registry gives it none.
		{"rules-registry-none", "ghcr.io/acme/app:v1", "", "403 Forbidden (mirror: has no rule that lets clients pull ghcr.io/acme/app"},
		{"rules-registry-secret", "ghcr.io/acme/app:v1", "team", "403 Forbidden (mirror: has no rule that lets clients pull ghcr.io/acme/app"},
		// By the mirror's name the pod's secret is the mirror's.
		{"rules-wrong-first", own, "mirror-wrong", "401 Unauthorized"},
		{"rules-right", own, "mirror", ""},
		{"rules-again", own, "mirror", ""},
		{"rules-second", own, "mirror-second", ""},
		{"rules-wrong", own, "mirror-wrong", "401 Unauthorized"},
		{"rules-none", own, "", "no basic auth credentials"},
		{"rules-other", own, "mirror-other", "403 Forbidden (mirror: has no rule that lets user other pull"},

		// The pod's secret is the registry's, which decides.
		{"client-wrong-first", "quay.io/acme/app:v1", "quay-wrong", "quay.io doesn't let the client's login pull acme/app"},
		{"client-right", "quay.io/acme/app:v1", "quay-alice", ""},
		{"client-again", "quay.io/acme/app:v1", "quay-alice", ""},
		{"client-second", "quay.io/acme/app:v1", "quay-second", ""},
		{"client-wrong", "quay.io/acme/app:v1", "quay-wrong", "quay.io doesn't let the client's login pull acme/app"},
		{"client-none", "quay.io/acme/app:v1", "", "no basic auth credentials"},
		{"client-other", "quay.io/acme/app:v1", "quay-other", "quay.io doesn't let the client's login pull acme/app"},
	} {
		c.RunSecret(t, tt.pod, tt.image, tt.secret)
		if tt.refused == "" {
			running(t, c, tt.pod)
			continue
		}
		wait.For(t, 2*time.Minute, tt.pod+" to fail", func() error {
			text := c.Kubectl(t, "describe", "pod", tt.pod)
			if !strings.Contains(text, tt.refused) {
				_, events, _ := strings.Cut(text, "Events:")
				return fmt.Errorf("%q is not there:%s", tt.refused, events)
			}
			return nil
		})
		if phase := c.Kubectl(t, "get", "pod", tt.pod, "-o", "jsonpath={.status.phase}"); phase != "Pending" {
			t.Errorf("%s is %s", tt.pod, phase)
		}
	}
}
