package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// feedCronJob has an image volume beside its container.
const feedCronJob = `apiVersion: batch/v1
kind: CronJob
metadata: {name: night, namespace: default}
spec:
  schedule: "0 5 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: docker.io/acme/night:v1}]
          volumes: [{name: model, image: {reference: docker.io/acme/model:v1}}]
`

// TestKubernetesFeed: a real API server. The images of pods, of a Deployment without pods and of a CronJob are brought, with the rights
// of deploy/kubernetes alone, and go on to be after the API server was restarted: its changes from before that are too old then. The
// images pull when their registry has stopped.
func TestKubernetesFeed(t *testing.T) {
	c := startCluster(t)
	files := registry.Start(t, registry.Options{})
	names := []string{"pod", "idle", "night", "model", "later", "last", "excluded"}
	for _, name := range names {
		image.PushProgram(t, files.Host, "acme/"+name, "v1", []byte("the program of "+name))
	}
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + files.URL() + "]}",
		More: fmt.Sprintf("platforms: [linux/amd64]\nkubernetes: {feed: true, feedExcluded: [kube-*], server: %q, tokenFile: %q, caFile: %q}",
			c.Server, c.Account(t, "mirror", "mirror"), c.CA),
	})
	const refused = "cannot read the images of the cluster; those that are known are kept warm"
	wait.For(t, 30*time.Second, "the mirror to miss its rights", func() error {
		if line, ok := m.Line(refused); ok && strings.Contains(fmt.Sprint(line["remedy"]), "deploy/kubernetes/feed.yaml") {
			return nil
		}
		return fmt.Errorf("it has not said what it needs")
	})
	c.Kubectl(t, "apply", "-f", "../deploy/kubernetes/feed.yaml")
	pod := func(namespace, name string) {
		t.Helper()
		c.Kubectl(t, "run", name, "--namespace", namespace, "--image", "docker.io/acme/"+name+":v1")
	}
	pod("default", "pod")
	pod("kube-system", "excluded")
	c.Kubectl(t, "create", "deployment", "idle", "--image", "docker.io/acme/idle:v1", "--replicas", "0")
	c.Apply(t, feedCronJob)
	warm := func(n int64) {
		t.Helper()
		wait.For(t, 3*time.Minute, fmt.Sprintf("%d images to be warm", n), func() error {
			if got := metric(t, m, "mirror_feed_images_warm"); got != n {
				return fmt.Errorf("%d are", got)
			}
			return nil
		})
	}
	warm(4)
	pod("default", "later")
	warm(5)

	c.Restart(t)
	pod("default", "last")
	warm(6)
	c.Kubectl(t, "delete", "pod", "pod", "--grace-period", "0", "--force")
	warm(5) // what is no longer used is no longer counted

	files.End()
	for _, name := range names {
		resp, err := http.Get(m.URL() + "/v2/acme/" + name + "/manifests/v1?ns=docker.io")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if want := name != "excluded"; (resp.StatusCode == http.StatusOK) != want {
			t.Errorf("acme/%s without its registry: %s", name, resp.Status)
		}
	}
	var warnings []string
	for _, line := range m.Log() {
		if line["level"] == "WARN" && line["msg"] == refused {
			warnings = append(warnings, fmt.Sprint(line["name"]))
		}
	}
	slices.Sort(warnings)
	if want := []string{"cronjobs", "daemonsets", "deployments", "pods", "statefulsets"}; !slices.Equal(slices.Compact(slices.Clone(warnings)), want) {
		t.Errorf("warned of %q", warnings)
	}
	t.Logf("warnings: %q", warnings)
}
