package e2e_test

import (
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
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestKubernetesCredentialProvider: a real kubelet runs mirror credential-provider, and pods pull by their service accounts what a rule
// names these for. The kubelet asks the provider for names of a registry, too, and gets no login for them.
func TestKubernetesCredentialProvider(t *testing.T) {
	c := startCluster(t)
	program := pause(t)
	files := origin.Start(t, origin.Options{}) // other content: a node that has an image already pulls no manifest of it
	image.Give(t, files, "acme/app", "v1", image.Program(t, "linux/amd64", append(slices.Clip(program), "sandbox"...)))
	team := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: registryPassword}})
	image.Give(t, team, "acme/app", "v1", image.Program(t, "linux/amd64", append(slices.Clip(program), "rules"...)))

	own := c.Account(t, "mirror-system", "mirror")
	c.Kubectl(t, "create", "clusterrolebinding", "mirror", "--clusterrole", "system:auth-delegator", "--serviceaccount", "mirror-system:mirror")
	for _, name := range []string{"web", "second", "other"} {
		c.Kubectl(t, "create", "serviceaccount", name, "--namespace", "default")
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/pass", []byte(registryPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("mcr.microsoft.com: {endpoints: [%s]}\n", files.URL()) +
			fmt.Sprintf("ghcr.io: {endpoints: [%s], access: rules, credentials: [{name: team, username: bot, passwordFile: %q}]}", team.URL(), dir+"/pass"),
		More: fmt.Sprintf("kubernetes: {server: %q, caFile: %q, tokenFile: %q}\nclients: {kubernetes: {audience: mirror}}\n", c.Server, c.CA, own) +
			"rules: [{who: ['sa:default/web', 'sa:default/second'], pull: ['ghcr.io/acme/*']}]",
	})
	const sandbox = "mcr.microsoft.com/acme/app:v1"
	nodes := containerd.Certs{Made: nodeFolders(t, m.URL(), "mcr.microsoft.com", "ghcr.io")}
	runtime := containerd.StartWith(t, containerd.V2, nodes, kubernetes.Containerd(sandbox))
	if _, err := runtime.CRI(t, sandbox); err != nil {
		t.Fatal(err)
	}
	binary, err := filepath.Abs(mirrord.Binary)
	if err != nil {
		t.Fatal(err)
	}
	bin, config := filepath.Join(dir, "providers"), filepath.Join(dir, "providers.yaml")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(bin, "mirror")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: mirror
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [credential-provider, --mirror, %q, --audience, mirror]
    matchImages: [%q, ghcr.io]
    defaultCacheDuration: 0s
    tokenAttributes: {serviceAccountTokenAudience: mirror, cacheType: Token, requireServiceAccount: true}
`, m.Host, m.Host), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Join(t, runtime, "--image-credential-provider-config", config, "--image-credential-provider-bin-dir", bin)

	app := m.Host + "/ghcr.io/acme/app:v1"
	for _, tt := range []struct {
		pod, image, account string
		refused             string // what kubectl describe pod says; empty: the pod runs
	}{
		{"registry", "ghcr.io/acme/app:v1", "web", "403 Forbidden (mirror: has no rule that lets clients pull ghcr.io/acme/app"},
		{"other-first", app, "other", "403 Forbidden (mirror: has no rule that lets service account default/other pull"},
		{"right", app, "web", ""},
		{"again", app, "web", ""},
		{"second", app, "second", ""},
		{"other", app, "other", "403 Forbidden (mirror: has no rule that lets service account default/other pull"}, // the image is there
		{"none", app, "", "no basic auth credentials"},
	} {
		c.RunAccount(t, tt.pod, tt.image, tt.account)
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
