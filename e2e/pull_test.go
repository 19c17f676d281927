package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/dockerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/podman"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// client is a real one. Its pull makes a fresh one, with nothing in its storage, lets it pull the image through the
// mirror and checks what it got.
type client struct {
	name string
	pull func(t *testing.T, mirror string, x *image.Index)
}

// app is the image's name on docker.io. The repository is one that needs library/ before it in the short form.
const (
	appRepository = "library/app"
	app           = "docker.io/library/app:v1"
)

func clients() []client {
	var list []client
	for _, line := range containerd.Lines {
		list = append(list,
			client{"containerd " + string(line) + " ctr", func(t *testing.T, mirror string, x *image.Index) {
				c := containerd.Start(t, line, containerd.Certs{Mirror: "http://" + mirror})
				p, err := c.Ctr(t, app)
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "digest in containerd", p.Digest, x.Digest.String())
			}},
			client{"containerd " + string(line) + " CRI", func(t *testing.T, mirror string, x *image.Index) {
				c := containerd.Start(t, line, containerd.Certs{Mirror: "http://" + mirror})
				p, err := c.CRI(t, app)
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "digest in CRI", p.Digest, x.Digest.String())
				equal(t, "image id in CRI", p.Config, x.Config(t, "linux/amd64"))
			}},
		)
	}
	return append(list,
		client{"podman", func(t *testing.T, mirror string, x *image.Index) {
			id, err := podman.New(t, podman.Options{Mirror: mirror, Registry: "docker.io"}).Pull(t, app)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "image id in Podman", id, x.Config(t, "linux/amd64"))
		}},
		client{"skopeo", func(t *testing.T, mirror string, x *image.Index) {
			copied, err := podman.New(t, podman.Options{Mirror: mirror, Registry: "docker.io"}).Copy(t, app)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range x.Content(t) {
				if !slices.Contains(copied, d) {
					t.Errorf("skopeo's copy has no %s", d)
				}
			}
		}},
		client{"crane", func(t *testing.T, mirror string, x *image.Index) {
			dst := filepath.Join(t.TempDir(), "layout")
			proc.Must(t, proc.Options{}, tool.Built(t, "crane"), "pull", "--format", "oci", mirror+"/"+app, dst)
			path, err := layout.FromPath(dst)
			if err != nil {
				t.Fatal(err)
			}
			root, err := path.ImageIndex()
			if err != nil {
				t.Fatal(err)
			}
			index, err := root.ImageIndex(x.Digest)
			if err != nil {
				t.Fatalf("crane pulled another image: %v", err)
			}
			if err := validate.Index(index); err != nil {
				t.Errorf("crane's copy: %v", err)
			}
		}},
		client{"docker", func(t *testing.T, mirror string, x *image.Index) {
			img, err := dockerd.Start(t, "http://"+mirror).Pull(t, "app:v1")
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "image id in Docker", img.ID, x.Config(t, "linux/amd64"))
			if !slices.ContainsFunc(img.RepoDigests, func(d string) bool { return strings.HasSuffix(d, x.Digest.String()) }) {
				t.Errorf("Docker has %v, not %s", img.RepoDigests, x.Digest)
			}
		}},
	)
}

// appLayers are one of each kind: read in one go, verified before its headers, streamed.
var appLayers = image.Layers{3 << 10, 2 << 20, 9 << 20}

// TestPullThrough pulls a multi-platform image out of a real registry, stops the registry, and pulls it again with a
// second client that has nothing. The tag is checked at each pull: nothing is served because it is young.
func TestPullThrough(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			upstream := registry.Start(t, registry.Options{})
			x := image.PushIndex(t, upstream.Host, appRepository, "v1", appLayers)
			m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "], tags: {maxAge: 0s}}"})
			if !t.Run("cold", func(t *testing.T) { c.pull(t, m.Host, x) }) {
				t.FailNow()
			}
			upstream.Stop(t)
			t.Run("upstream gone", func(t *testing.T) { c.pull(t, m.Host, x) })
		})
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// TestHostsFiles pulls through each of the hosts.toml files that nodes are given: the name of its folder is a registry
// that the mirror knows by that name, without any configuration of it beyond where it is.
func TestHostsFiles(t *testing.T) {
	t.Parallel()
	folders, err := os.ReadDir(filepath.Join(containerd.Deploy, "certs.d"))
	if err != nil {
		t.Fatal(err)
	}
	upstream := registry.Start(t, registry.Options{})
	want := image.Push(t, upstream.Host, "acme/tool", "v1", image.New(t, "linux/amd64", image.Layers{1 << 10}))
	var names, config []string
	for _, f := range folders {
		name := f.Name()
		if name == "_default" {
			name = "registry.corp.example"
		}
		names = append(names, name)
		config = append(config, name+": {endpoints: ["+upstream.URL()+"]}")
	}
	if len(names) < 10 {
		t.Fatalf("only %d folders", len(names))
	}
	m := mirrord.Start(t, mirrord.Options{Upstreams: strings.Join(config, "\n")})
	for _, line := range containerd.Lines {
		t.Run(string(line), func(t *testing.T) {
			t.Parallel()
			c := containerd.Start(t, line, containerd.Certs{Mirror: m.URL()})
			for _, name := range names {
				p, err := c.CRI(t, name+"/acme/tool:v1")
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				equal(t, "digest from "+name, p.Digest, want.String())
			}
		})
	}
}

// TestNoWayAroundTheMirror pulls through the hosts.toml of nodes that have nowhere else to go. What the mirror refuses is
// asked for nowhere else, and its sentence is what the node says.
func TestNoWayAroundTheMirror(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	want := image.Push(t, upstream.Host, "acme/tool", "v1", image.New(t, "linux/amd64", image.Layers{1 << 10}))
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}\nregistry.corp.example: {endpoints: [" + upstream.URL() + "]}",
		More:      "clientsFallBack: false",
	})
	for _, line := range containerd.Lines {
		t.Run(string(line), func(t *testing.T) {
			t.Parallel()
			c := containerd.Start(t, line, containerd.Certs{Mirror: m.URL(), Only: true})
			for _, name := range []string{"docker.io", "registry.corp.example"} {
				p, err := c.CRI(t, name+"/acme/tool:v1")
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				equal(t, "digest from "+name, p.Digest, want.String())
			}
			_, err := c.CRI(t, "other.example/acme/tool:v1")
			if err == nil || !strings.Contains(err.Error(), "(mirror: ") || strings.Contains(err.Error(), "lookup ") {
				t.Errorf("a registry that the mirror does not have: %v", err)
			}
		})
	}
}

// TestArtifacts pulls an artifact, with unknown media types, and what refers to an image.
func TestArtifacts(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	chart := image.Push(t, upstream.Host, "charts/app", "1.0.0", image.Chart(t))
	x := image.PushIndex(t, upstream.Host, appRepository, "v1", appLayers)
	sbom := image.Push(t, upstream.Host, appRepository, "sbom", image.Referrer(t, x.Descriptor()))
	m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}"})
	crane := tool.Built(t, "crane")
	prefix := m.Host + "/docker.io/"

	direct := proc.Must(t, proc.Options{}, crane, "manifest", upstream.Host+"/charts/app:1.0.0")
	mirrored := proc.Must(t, proc.Options{}, crane, "manifest", prefix+"charts/app:1.0.0")
	equal(t, "the chart's manifest", mirrored, direct)
	equal(t, "the chart's digest", strings.TrimSpace(proc.Must(t, proc.Options{}, crane, "digest", prefix+"charts/app:1.0.0")),
		chart.String())
	proc.Must(t, proc.Options{}, crane, "validate", "--remote", prefix+"charts/app:1.0.0")
	proc.Must(t, proc.Options{}, crane, "validate", "--remote", prefix+appRepository+"@"+sbom.String())

	code, body := mirrord.Get(t, m.URL()+"/v2/docker.io/"+appRepository+"/referrers/"+x.Digest.String())
	if code != http.StatusOK || !strings.Contains(body, sbom.String()) {
		t.Errorf("referrers of %s: %d %s\nwant %s in it", x.Digest, code, body, sbom)
	}
	tags := proc.Must(t, proc.Options{}, crane, "ls", prefix+appRepository)
	equal(t, "the list of tags", tags, proc.Must(t, proc.Options{}, crane, "ls", upstream.Host+"/"+appRepository))
}
