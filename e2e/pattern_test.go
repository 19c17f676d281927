package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
)

// TestPatterns has one entry stand for the registries of Azure, all of which are one here, behind a proxy: each host is
// asked at its own name, what is written out goes first, and clients that name any number of hosts make neither series of
// metrics nor an endless list.
func TestPatterns(t *testing.T) {
	t.Parallel()
	names := []string{"special.azurecr.io"}
	for i := range 120 {
		names = append(names, fmt.Sprintf("acme%d.azurecr.io", i))
	}
	o := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{Names: names}})
	im := o.AddImage("app", "1", origin.Image{})
	var mu sync.Mutex
	asked := map[string]int{} // by host
	o.Script(origin.Rule{Match: func(r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		host, _, _ := net.SplitHostPort(r.Host + ":443")
		asked[strings.TrimSuffix(host, ":443")]++
		return false
	}})
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := net.Dial("tcp", o.Host())
		if err != nil || r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = out.Close()
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(out, in)
			_ = out.Close()
		}()
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}))
	t.Cleanup(proxy.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, o.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"SSL_CERT_FILE=" + ca, "HTTPS_PROXY=" + proxy.URL, "NO_PROXY="}
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: `"*.azurecr.io": {}
special.azurecr.io: {access: rules}`,
		Env: env,
	})
	status := func(path string) int {
		code, _ := mirrord.Get(t, m.URL()+"/v2/"+path)
		return code
	}
	layer := im.Layers[0][0].Digest.String()
	for path, want := range map[string]int{
		"acme0.azurecr.io/app/manifests/1": 200, "ACME0.azurecr.io/app/manifests/1": 200, "app/manifests/1?ns=acme1.azurecr.io": 200,
		"acme0.azurecr.io/app/blobs/" + layer: 200, "acme0.azurecr.io/app/manifests/2": 404, "acme0.azurecr.io/app/tags/list": 200,
		"special.azurecr.io/app/manifests/1": 401, "a.b.azurecr.io/app/manifests/1": 404, "azurecr.io/app/manifests/1": 404,
		"acme0.azurecr.io.evil.example/app/manifests/1": 404, "acme0.azurecr.cn/app/manifests/1": 404,
	} {
		if got := status(path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	// What is cached of one host is another's no more than of any other registry.
	if code := status("acme1.azurecr.io/app/blobs/" + layer); code != 200 {
		t.Errorf("a blob that it has, too: %d", code)
	}
	for _, host := range names[1:] {
		if code := status(host + "/app/manifests/1"); code != 200 {
			t.Errorf("%s: %d", host, code)
		}
	}
	mu.Lock()
	if len(asked) != 120 || asked["special.azurecr.io"] != 0 {
		t.Errorf("%d hosts were asked, want 120: %v", len(asked), asked)
	}
	mu.Unlock()
	_, metrics := m.Get(t, "/metrics")
	if n := strings.Count(metrics, "acme"); n > 100*10 {
		t.Errorf("%d mentions of hosts in the metrics", n)
	}
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, "acme") && !strings.HasPrefix(line, "mirror_upstream_endpoint_up{") &&
			!strings.HasPrefix(line, "mirror_upstream_transfers") {
			t.Errorf("a series of a client's making: %s", line)
		}
	}
	if !strings.Contains(metrics, `mirror_requests_total{kind="manifest",result="miss",upstream="*.azurecr.io"}`) {
		t.Errorf("no requests of the pattern:\n%s", metrics)
	}
	_, upstreams := m.Get(t, "/api/v1/upstreams")
	if n := strings.Count(upstreams, `"name":"acme`); n != 100 {
		t.Errorf("%d hosts are in use, want 100", n)
	}
	if !strings.Contains(upstreams, `"name":"*.azurecr.io"`) {
		t.Errorf("the pattern is not shown: %s", upstreams)
	}
	if code := status("acme0.azurecr.io/app/manifests/1"); code != 200 {
		t.Errorf("one that was dropped: %d", code)
	}
	for _, how := range [][]string{{"--config", m.File, "--straight"}, {"--admin", m.Admin}} {
		r := proc.Run(t, proc.Options{Env: env}, mirrord.Binary, append([]string{"doctor", "image", "acme7.azurecr.io/app:1"}, how...)...)
		if r.Code != 0 || !strings.Contains(r.Text(), "acme7.azurecr.io") {
			t.Errorf("mirror doctor %v: %d %s", how, r.Code, r.Text())
		}
	}
	if code, _ := m.Get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d", code)
	}
}
