package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/cert"
	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/registry"
)

// overTLS starts a mirror with a certificate that ca vouches for, before a registry with an image and one that is down.
func overTLS(t *testing.T, more string) (m *mirrord.Mirror, x *image.Index, ca string) {
	t.Helper()
	files, err := cert.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	upstream := registry.Start(t, registry.Options{})
	x = image.PushIndex(t, upstream.Host, appRepository, "v1", appLayers)
	m = mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}\nghcr.io: {endpoints: [http://127.0.0.1:9]}",
		More:      fmt.Sprintf("tls: {cert: %q, key: %q, %s}", files.Cert, files.Key, more),
	})
	return m, x, files.Cert
}

// TestTLS pulls over TLS from a mirror with a certificate that only the node's hosts.toml trusts. The mirror's
// sentence gets through there too.
func TestTLS(t *testing.T) {
	t.Parallel()
	m, x, ca := overTLS(t, "http2: false")
	for _, line := range containerd.Lines {
		t.Run(string(line), func(t *testing.T) {
			t.Parallel()
			c := containerd.Start(t, line, containerd.Certs{Mirror: "https://" + m.Host, CA: ca})
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

// TestHTTP2 pulls over HTTP/2 where that is offered: a client that speaks it, and containerd, whatever it chooses.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	m, x, ca := overTLS(t, "http2: true")
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+m.Host+"/v2/docker.io/"+appRepository+"/manifests/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	equal(t, "protocol", resp.Proto, "HTTP/2.0")
	equal(t, "status", resp.StatusCode, http.StatusOK)
	equal(t, "digest", resp.Header.Get("Docker-Content-Digest"), x.Digest.String())
	for _, line := range containerd.Lines {
		t.Run(string(line), func(t *testing.T) {
			t.Parallel()
			p, err := containerd.Start(t, line, containerd.Certs{Mirror: "https://" + m.Host, CA: ca}).CRI(t, app)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "digest in CRI", p.Digest, x.Digest.String())
		})
	}
}
