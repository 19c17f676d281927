package e2e_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestPlatforms has a node that the mirror knows nothing of pull an image that has nothing for it: the configuration says
// what the nodes are, and so why it failed.
func TestPlatforms(t *testing.T) {
	t.Parallel()
	for _, line := range containerd.Lines {
		t.Run("containerd "+string(line), func(t *testing.T) {
			t.Parallel()
			o := origin.Start(t, origin.Options{})
			o.AddImage("acme/app", "v1", origin.Image{Platforms: []string{"linux/s390x"}, Index: true})
			m := mirrord.Start(t, mirrord.Options{
				Upstreams: "docker.io: {endpoints: [" + o.URL() + "]}", More: "platforms: [linux/" + runtime.GOARCH + "]",
			})
			c := containerd.Start(t, line, containerd.Certs{Mirror: m.URL(), Server: o.URL()})
			if _, err := c.CRI(t, "docker.io/acme/app:v1"); err == nil {
				t.Fatal("it was pulled")
			}
			want := "docker.io/acme/app:v1 has linux/s390x, and nothing for linux/" + runtime.GOARCH + ", which your nodes are"
			wait.For(t, time.Minute, "the failure", func() error {
				_, body := mirrord.Get(t, m.Admin+"/api/v1/failures")
				var list struct {
					Failures []struct {
						Reason, Summary string
						Evidence        []string
					}
				}
				if err := json.Unmarshal([]byte(body), &list); err != nil {
					return err
				}
				if len(list.Failures) != 1 || list.Failures[0].Reason != "platform-missing" || list.Failures[0].Summary != want ||
					!strings.Contains(strings.Join(list.Failures[0].Evidence, "\n"), "platforms in the configuration") {
					return fmt.Errorf("%s", body)
				}
				return nil
			})
		})
	}
}
