package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/cert"
	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/registry"
)

// TestTLS pulls over TLS from a mirror with a certificate that nobody but the node's hosts.toml trusts. The mirror's
// sentence gets through there too.
func TestTLS(t *testing.T) {
	t.Parallel()
	files, err := cert.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	upstream := registry.Start(t, registry.Options{})
	x := image.PushIndex(t, upstream.Host, appRepository, "v1", appLayers)
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}\nghcr.io: {endpoints: [http://127.0.0.1:9]}",
		More:      fmt.Sprintf("tls: {cert: %q, key: %q}", files.Cert, files.Key),
	})
	for _, line := range containerd.Lines {
		t.Run(string(line), func(t *testing.T) {
			t.Parallel()
			c := containerd.Start(t, line, containerd.Certs{Mirror: "https://" + m.Host, CA: files.Cert})
			p, err := c.CRI(t, app)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "digest in CRI", p.Digest, x.Digest.String())
			if _, err := c.CRI(t, "ghcr.io/acme/app:v1"); err == nil || !strings.Contains(err.Error(), "502 Bad Gateway (mirror: ") {
				t.Errorf("CRI answered:\n%v\nwant the mirror's sentence in it", err)
			}
			// Without the CA the mirror is passed by, and the registry itself is out of reach here.
			c = containerd.Start(t, line, containerd.Certs{Mirror: "https://" + m.Host})
			if _, err := c.CRI(t, app); err == nil {
				t.Error("containerd took a certificate that nothing vouches for")
			}
		})
	}
}
