package app_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/origin"
)

// checks are those of a running mirror, by area and name.
func (r *running) checks(t *testing.T) map[string]doctor.Check {
	t.Helper()
	report := body[doctor.MirrorReport](t, r.App, "doctor")
	list := make(map[string]doctor.Check)
	for _, c := range report.Checks {
		key := c.Area
		if c.Name != "" && (c.Area == doctor.AreaUpstream || c.Area == doctor.AreaWebhooks || c.Name == "room") {
			key += " " + c.Name
		}
		list[key] = c
		if (c.State == doctor.Broken || c.State == doctor.Warning) && c.Remedy == "" {
			t.Errorf("%s has no remedy: %+v", key, c)
		}
	}
	return list
}

// A mirror that is well says so. An upstream without a pull is asked once, for /v2/; after one, its tag is asked for, too, by HEAD.
func TestSelfCheck(t *testing.T) {
	t.Parallel()
	o, other := origin.Start(t, origin.Options{}), origin.Start(t, origin.Options{})
	o.AddImage("acme/app", "main", origin.Image{Layers: []int64{10 << 10}})
	r := run(t, parse(t, t.TempDir(), upstreamOf(o)+upstreamOf(other)))
	r.asks(t, http.MethodGet, "acme/app/manifests/main?ns="+nameOf(o))
	before := len(o.Requests())
	list := r.checks(t)
	for _, area := range []string{"version", "config", "listener", "admin", "data", "state", "open-files", "proxy", "upstream " + nameOf(o), "upstream " + nameOf(other)} {
		if c, ok := list[area]; !ok || c.State != doctor.OK || c.Detail == "" {
			t.Errorf("%s: %+v", area, c)
		}
	}
	if c := list["kubernetes"]; c.State != doctor.NotTried {
		t.Errorf("kubernetes: %+v", c)
	}
	if n := len(other.Requests()); n != 1 {
		t.Errorf("%d requests to a registry of which nothing was pulled, want 1", n)
	}
	if n := len(o.Requests()) - before; n != 2 {
		t.Errorf("%d requests to the other one, want /v2/ and a HEAD", n)
	}
	before = len(o.Requests())
	for range 20 {
		r.checks(t)
	}
	if n := len(o.Requests()) - before; n != 0 {
		t.Errorf("%d requests for a report that is remembered", n)
	}
}

// What is broken is named, with what to do, and no secret is shown.
func TestSelfCheckFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	dir := t.TempDir()
	const secret = "a-secret-of-32-characters-or-more"
	write(t, filepath.Join(dir, "hub.secret"), secret)
	write(t, filepath.Join(dir, "token"), "sesame-of-the-cluster")
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"status":{"allowed":false}}`))
	}))
	t.Cleanup(api.Close)
	write(t, filepath.Join(dir, "ca.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})))
	host := strings.TrimPrefix(gone.URL, "http://")
	c := parse(t, dir, fmt.Sprintf("  %q: {endpoints: [%q]}\nwebhooks: {hub: {type: dockerhub, secretFile: hub.secret, upstream: %q}}\n", host, gone.URL, host))
	c.Kubernetes = config.Kubernetes{Coverage: true, Server: api.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt")}
	r := run(t, c)
	if err := os.WriteFile(filepath.Join(dir, "hub.secret"), []byte(secret+"-new"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := r.checks(t)
	for area, want := range map[string]struct {
		state doctor.State
		text  string
	}{
		"upstream " + host: {doctor.Broken, "refused the connection"},
		"webhooks hub":     {doctor.Warning, "secret file has changed"},
		"kubernetes":       {doctor.Broken, "may not list pods, list events"},
	} {
		if got := list[area]; got.State != want.state || !strings.Contains(got.Detail, want.text) {
			t.Errorf("%s: %+v", area, got)
		}
	}
	_, text := get(t, "http://"+r.AdminAddr().String()+"/api/v1/doctor")
	for _, hidden := range []string{secret, "sesame-of-the-cluster"} {
		if strings.Contains(text, hidden) {
			t.Errorf("the report shows a secret: %s", text)
		}
	}
}
