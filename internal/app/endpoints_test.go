package app_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"
)

// up reports whether metrics say that an endpoint of two.test is up.
func (r *running) up(t *testing.T, endpoint string) bool {
	t.Helper()
	_, text := get(t, "http://"+r.AdminAddr().String()+"/metrics")
	for _, name := range []string{"mirror_upstream_transfers", "mirror_upstream_transfers_waiting"} {
		if idle := fmt.Sprintf("%s{endpoint=%q,upstream=\"two.test\"} 0\n", name, endpoint); !strings.Contains(text, idle) {
			t.Errorf("no %s", idle)
		}
	}
	line := fmt.Sprintf("mirror_upstream_endpoint_up{endpoint=%q,upstream=\"two.test\"} ", endpoint)
	_, rest, ok := strings.Cut(text, line)
	if !ok {
		t.Fatalf("no %s", line)
	}
	return strings.HasPrefix(rest, "1\n")
}

// Of two endpoints the first dies in the middle of a blob: the client sees nothing, and no byte comes twice. It is down
// until it answers a ping.
func TestEndpointDiesInTheMiddle(t *testing.T) {
	t.Parallel()
	const size, cut = 5 << 20, 3_000_001
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	a, b := origin.Start(t, origin.Options{}), origin.Start(t, origin.Options{
		Auth: origin.Auth{Kind: "bearer", Anonymous: true},
	})
	d := a.AddBlob("acme/app", content)
	b.AddBlob("hub/acme/app", content)
	r := run(t, parse(t, t.TempDir(),
		fmt.Sprintf("  two.test: {endpoints: [%q, {url: %q, prefix: hub}]}\n", a.URL(), b.URL())))
	bringBack := a.Script(origin.Rule{Do: origin.Fault{Drop: true, Reset: true}})
	a.Script(origin.Rule{Kind: origin.KindBlob, Times: 1, Do: origin.Fault{Cut: &origin.Cut{At: cut}}, Method: "GET"})
	a.Script(origin.Rule{Kind: origin.KindBlob, Times: 1, Method: "HEAD"})

	status, got := get(t, "http://"+r.Addr().String()+"/v2/two.test/acme/app/blobs/"+string(d.Digest))
	if status != http.StatusOK || got != string(content) {
		t.Fatalf("%d with %d bytes", status, len(got))
	}
	if sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(got))); sum != string(d.Digest) {
		t.Errorf("digest %s, want %s", sum, d.Digest)
	}
	if first, rest := a.Bytes(d.Digest), b.Bytes(d.Digest); first != cut || rest != size-cut {
		t.Errorf("%d and %d bytes were sent, want %d and %d", first, rest, cut, size-cut)
	}

	// The first endpoint answers with errors alone: it is tried a few times, and then no pull waits for it.
	b.AddImage("hub/acme/app", "v1", origin.Image{})
	for i := range 20 {
		b.AddManifest("hub/acme/app", fmt.Sprint("tag", i), "", []byte(`{"schemaVersion":2,"mediaType":`+
			`"application/vnd.oci.image.index.v1+json","manifests":[]}`))
		at := "http://" + r.Addr().String() + "/v2/two.test/acme/app/manifests/tag" + fmt.Sprint(i)
		if status, text := get(t, at); status != http.StatusOK {
			t.Fatalf("%d %s", status, text)
		}
	}
	if n := a.Count(origin.KindManifest); n > 6 { // each of three is tried twice, for the connection could be an old one
		t.Errorf("the dead endpoint was asked %d times for a manifest", n)
	}
	if r.up(t, a.URL()) || !r.up(t, b.URL()+"/hub") {
		t.Error("metrics don't say which endpoint is down")
	}
	bringBack()
	eventually(t, "it is back", func() bool { return r.up(t, a.URL()) })
	if a.Count(origin.KindPing) == 0 {
		t.Error("it was not pinged")
	}
}

// Nothing upstream is needed at the start, nor is anything in the way once it is there.
func TestStartWithEverythingDown(t *testing.T) {
	t.Parallel()
	a, b := origin.Start(t, origin.Options{}), origin.Start(t, origin.Options{})
	b.AddManifest("acme/app", "v1", "", []byte(`{"schemaVersion":2,"mediaType":`+
		`"application/vnd.oci.image.index.v1+json","manifests":[]}`))
	a.Down()
	b.Down()
	r := run(t, parse(t, t.TempDir(), fmt.Sprintf("  two.test: {endpoints: [%q, %q]}\n", a.URL(), b.URL())))
	at := "http://" + r.Addr().String() + "/v2/two.test/acme/app/manifests/v"
	status, text := get(t, at+"2")
	if status != http.StatusBadGateway || !strings.Contains(text, "refused the connection") {
		t.Errorf("%d %s", status, text)
	}
	b.Up()
	if status, text := get(t, at+"1"); status != http.StatusOK {
		t.Errorf("%d %s", status, text)
	}
}

// An endpoint's certificates and proxy are those that are written.
func TestEndpointThroughAProxyWithACertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair(t, dir, "client.test")
	var shown string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown = r.TLS.PeerCertificates[0].DNSNames[0]
		_, _ = io.WriteString(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	write(t, filepath.Join(dir, "ca.crt"), string(pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: s.Certificate().Raw,
	})))
	through := connector(t, s.Listener.Addr().String())
	conf := func(more string) string {
		return fmt.Sprintf("  two.test: {endpoints: [{url: 'https://example.com', ca: ca.crt, proxy: %q%s}]}\n", through, more)
	}
	r := run(t, parse(t, dir, conf(", clientCert: tls.crt, clientKey: tls.key")))
	at := "http://" + r.Addr().String() + "/v2/two.test/acme/app/manifests/v"
	if status, text := get(t, at+"1"); status != http.StatusOK || shown != "client.test" {
		t.Errorf("%d %s, with the certificate of %q", status, text, shown)
	}
	// Another certificate in the same file is another endpoint.
	pair(t, dir, "renewed.test")
	if err := r.Reload(parse(t, dir, conf(", clientCert: tls.crt, clientKey: tls.key"))); err != nil {
		t.Fatal(err)
	}
	if status, text := get(t, at+"2"); status != http.StatusOK || shown != "renewed.test" {
		t.Errorf("%d %s, with the certificate of %q", status, text, shown)
	}
	if err := r.Reload(parse(t, dir, conf(""))); err != nil {
		t.Fatal(err)
	}
	if status, text := get(t, at+"3"); status != http.StatusBadGateway || !strings.Contains(text, "certificate") {
		t.Errorf("without a certificate: %d %s", status, text)
	}
	other, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "tls.crt"), string(other))
	err = r.Reload(parse(t, dir, conf(", clientCert: tls.crt, clientKey: tls.key")))
	if err == nil || !strings.Contains(err.Error(), "belong together") {
		t.Errorf("a key of another certificate: %v", err)
	}
}

// The limits that a registry reports are in the metrics and in the list of upstreams, by credential.
func TestLimitsAreShown(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{
		Auth:  origin.Auth{Kind: "bearer", Username: "bot", Password: "s3cret", Anonymous: true},
		Limit: origin.Limit{Manifests: 100, Window: 6 * time.Hour},
	})
	o.AddImage("app", "1", origin.Image{})
	o.AddImage("app", "2", origin.Image{Seed: 2})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pass"), []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, parse(t, t.TempDir(), fmt.Sprintf(
		"  two.test: {endpoints: [%q], credentials: [{name: hub, username: bot, passwordFile: %q}]}\n", o.URL(), dir+"/pass")))
	for _, tag := range []string{"1", "2"} {
		if status, body := get(t, "http://"+r.Addr().String()+"/v2/two.test/app/manifests/"+tag); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	_, text := get(t, "http://"+r.AdminAddr().String()+"/metrics")
	for _, line := range []string{
		`mirror_ratelimit_limit{credential="hub",upstream="two.test"} 100`,
		`mirror_ratelimit_remaining{credential="hub",upstream="two.test"} 99`,
		`mirror_ratelimit_remaining{credential="anonymous",upstream="two.test"} 99`, // by the GET that shows that it is public
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	_, text = get(t, "http://"+r.AdminAddr().String()+"/api/v1/upstreams")
	for _, part := range []string{
		`"limits":[{"source":"127.0.0.1",`, `"limit":100,"remaining":99,"windowSeconds":21600,"saidAt":`, `{"credential":"hub",`, `"remaining":99,`,
		`"requests":1,"repositories":[{"repository":"app","requests":1}]}`,
	} {
		if !strings.Contains(text, part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
}
