package e2e_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/podman"
)

// TestFailureText reads what clients print when the upstream fails. They go on to the upstream themselves, which fails
// them the same way, and still show the mirror's sentence.
func TestFailureText(t *testing.T) {
	t.Parallel()
	for _, f := range []struct {
		name   string
		break_ func(*origin.Origin)
		phrase string // what containerd of every version prints of the status line
		podman string // what Podman prints: of a 4xx the body's message, else the status line
	}{
		{
			name: "403",
			break_: func(o *origin.Origin) {
				o.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{
					Status: http.StatusForbidden,
					Body:   `{"errors":[{"code":"DENIED","message":"the trial of acme is over"}]}`,
				}})
			},
			phrase: `403 Forbidden \(mirror: has no credentials for docker\.io/acme/app[^)]*\[[0-9a-f]{8}\]\)`,
		},
		{
			name: "503",
			break_: func(o *origin.Origin) {
				o.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{
					Status: http.StatusServiceUnavailable,
					Body:   "<html>down for maintenance</html>",
				}})
			},
			phrase: `502 Bad Gateway \(mirror: [^)]*503[^)]*\[[0-9a-f]{8}\]\)`,
			podman: `502 Bad Gateway \(mirror: [^)]*503[^)]*\[[0-9a-f]{8}\]\)`,
		},
		{
			name:   "refused",
			break_: (*origin.Origin).Down,
			phrase: `502 Bad Gateway \(mirror: [^)]*refused the connection[^)]*\[[0-9a-f]{8}\]\)`,
			podman: `502 Bad Gateway \(mirror: [^)]*refused the connection[^)]*\[[0-9a-f]{8}\]\)`,
		},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			upstream := origin.Start(t, origin.Options{})
			upstream.AddImage("acme/app", "v1", origin.Image{})
			m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}"})
			f.break_(upstream)
			message := messageOf(t, m.URL()+"/v2/docker.io/acme/app/manifests/v1")
			phrase := regexp.MustCompile(f.phrase)
			const ref = "docker.io/acme/app:v1"
			for _, line := range containerd.Lines {
				t.Run("containerd "+string(line), func(t *testing.T) {
					t.Parallel()
					c := containerd.Start(t, line, containerd.Certs{Mirror: m.URL(), Server: upstream.URL()})
					if _, err := c.Ctr(t, ref); err == nil || !phrase.MatchString(err.Error()) {
						t.Errorf("ctr printed:\n%v\nwant in it: %s", err, phrase)
					}
					if _, err := c.CRI(t, ref); err == nil || !phrase.MatchString(err.Error()) {
						t.Errorf("CRI answered:\n%v\nwant in it: %s", err, phrase)
					}
				})
			}
			t.Run("podman", func(t *testing.T) {
				t.Parallel()
				_, err := podman.New(t, podman.Options{Mirror: m.Host, Registry: "docker.io", Location: upstream.Host()}).Pull(t, ref)
				switch {
				case err == nil:
					t.Fatal("Podman pulled it")
				// To the first comma of what to do: the rest depends on what was learnt meanwhile of the repository.
				case f.podman == "" && !strings.Contains(err.Error(), upToRemedy.FindString(message)):
					t.Errorf("Podman printed:\n%v\nwant in it: %s", err, upToRemedy.FindString(message))
				case !regexp.MustCompile(f.podman).MatchString(err.Error()):
					t.Errorf("Podman printed:\n%v\nwant in it: %s", err, f.podman)
				}
			})
		})
	}
}

var upToRemedy = regexp.MustCompile(`^[^;]+; [^,;]+`)

// messageOf is the message in the body of a failing answer.
func messageOf(t *testing.T, url string) string {
	t.Helper()
	code, body := mirrord.Get(t, url)
	var doc struct{ Errors []struct{ Message string } }
	if err := json.Unmarshal([]byte(body), &doc); err != nil || code < 400 || len(doc.Errors) != 1 || doc.Errors[0].Message == "" {
		t.Fatalf("%s: %d %s (%v); want a failure with one message", url, code, body, err)
	}
	return doc.Errors[0].Message
}
