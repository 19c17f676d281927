package e2e_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// TestConformance runs the conformance suite of the OCI distribution spec, what it has for registries that take no
// pushes, against the mirror in front of a registry.
func TestConformance(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	x := image.PushIndex(t, upstream.Host, "conformance/repo1", "t1", appLayers)
	image.Push(t, upstream.Host, "conformance/repo1", "t2", image.New(t, "linux/amd64", image.Layers{100}))
	image.Push(t, upstream.Host, "conformance/repo1", "t3", image.Referrer(t, x.Descriptor()))
	m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}"})

	dir := t.TempDir()
	var manifests, blobs []string
	for _, platform := range x.Platforms {
		img := x.Images[platform]
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, d.String())
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			d, err := l.Digest()
			if err != nil {
				t.Fatal(err)
			}
			blobs = append(blobs, d.String())
		}
		blobs = append(blobs, x.Config(t, platform))
	}
	// The suite ends with a panic where pushes are off, after its verdict: so the verdict counts, not the exit code.
	r := proc.Run(t, proc.Options{Dir: dir, Env: []string{
		"OCI_REGISTRY=" + m.Host, "OCI_TLS=disabled", "OCI_REPO1=docker.io/conformance/repo1", "OCI_VERSION=1.1",
		"OCI_API_PUSH=false", "OCI_API_TAGS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_BLOBS_DELETE=false",
		"OCI_RO_DATA_TAGS=t1 t2", "OCI_RO_DATA_MANIFESTS=" + strings.Join(append(manifests, x.Digest.String()), " "),
		"OCI_RO_DATA_BLOBS=" + strings.Join(blobs, " "), "OCI_RO_DATA_REFERRERS=" + x.Digest.String(),
		"OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=false",
		"OCI_RESULTS_DIR=" + dir,
	}}, tool.Built(t, "conformance"))
	if !regexp.MustCompile(`(?m)^OCI Conformance Result: Pass`).MatchString(r.Stdout) {
		t.Errorf("the suite does not say Pass:\n%s", r.Text())
	}
	// A suite that has switched everything off passes as well.
	for _, group := range []string{"tag-list", "head", "pull", "referrers"} {
		if line := "read-only/" + group + ": Pass"; !strings.Contains(r.Stdout, line) {
			t.Errorf("the suite does not say %q:\n%s", line, r.Text())
		}
	}
}
