package app_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/webhook"
)

const hookSecret = "5b1d7e9042c64f3a8d0e1f2a3b4c5d6e"

// The words of the configuration are the kinds of sender that there are.
func TestWebhookTypes(t *testing.T) {
	t.Parallel()
	f, _ := reflect.TypeFor[config.Webhook]().FieldByName("Type")
	words := strings.Split(f.Tag.Get("enum"), ",")
	slices.Sort(words)
	if !slices.Equal(words, webhook.Types()) {
		t.Errorf("the configuration has %q, the package %q", words, webhook.Types())
	}
}

// report sends a report to a webhook by the listener for clients.
func report(t *testing.T, a *app.App, path, body string, header ...string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+a.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(b)
}

// means is the digest that a client gets of a tag.
func (r *running) means(t *testing.T, o *origin.Origin, image string) string {
	t.Helper()
	ref, err := name.ParseReference(r.Addr().String()+"/"+nameOf(o)+"/"+image, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	d, err := remote.Get(ref, remote.WithContext(t.Context()), remote.WithTransport(tr))
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest.String()
}

// A push is visible to the next pull after its report, at the price of one HEAD. Without it the tag is served as long as its
// policy says. A report by another's secret, of another repository or of a tag that is not known changes nothing, and none asks
// the registry by itself.
func TestWebhook(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	first := o.AddImage("acme/app", "latest", origin.Image{Layers: []int64{10 << 10}})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "hook"), hookSecret+"\n")
	c := func() *config.Config {
		return parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], aliases: [corp], tags: {maxAge: 24h}}\nwebhooks:\n"+
			"  ci: {type: generic, secretFile: hook}\n  registry: {type: distribution, secretFile: hook, upstream: corp}\n", nameOf(o), o.URL()))
	}
	a, log := start(t, c())
	r := &running{App: a}
	for range 2 {
		if got := r.means(t, o, "acme/app:latest"); got != first.Root.Digest.String() {
			t.Fatalf("at first: %s", got)
		}
	}
	second := o.AddImage("acme/app", "latest", origin.Image{Layers: []int64{20 << 10}})
	o.ClearRequests()
	bearer := []string{"Authorization", "Bearer " + hookSecret}
	event := func(repo, tag string) string {
		return fmt.Sprintf(`{"events":[{"action":"push","target":{"repository":%q,"tag":%q},"request":{"host":"registry:5000"}}]}`, repo, tag)
	}
	for _, tt := range []struct {
		path, body string
		header     []string
		status     int
	}{
		{"/webhooks/ci", fmt.Sprintf(`{"image":%q}`, nameOf(o)+"/acme/app:latest"), []string{"Authorization", "Bearer " + hookSecret + "x"}, 403},
		{"/webhooks/ci", fmt.Sprintf(`{"image":%q}`, nameOf(o)+"/acme/app:latest"), nil, 403},
		{"/webhooks/ci", `{"image":"registry.example/acme/app:latest"}`, bearer, 404},
		{"/webhooks/ci", fmt.Sprintf(`{"image":%q}`, nameOf(o)+"/acme/other:latest"), bearer, 202},
		{"/webhooks/registry", event("acme/app", "never-pulled"), bearer, 202},
		{"/webhooks/missing", "{}", bearer, 404},
	} {
		if status, text := report(t, a, tt.path, tt.body, tt.header...); status != tt.status {
			t.Errorf("%s %s: %d %s", tt.path, tt.body, status, text)
		}
	}
	if got := r.means(t, o, "acme/app:latest"); got != first.Root.Digest.String() {
		t.Errorf("without a report: %s", got)
	}
	if n := len(o.Requests()); n != 0 {
		t.Errorf("%d requests to the registry", n)
	}
	pulled := 0
	push := func(what, path, body string, want string) {
		t.Helper()
		o.ClearRequests()
		if status, text := report(t, a, path, body, bearer...); status != http.StatusAccepted || !strings.Contains(text, "acme/app:latest") {
			t.Errorf("%s: %d %s", what, status, text)
		}
		if n := len(o.Requests()); n != 0 {
			t.Errorf("%s: the report itself made %d requests", what, n)
		}
		for range 3 {
			if got := r.means(t, o, "acme/app:latest"); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		if n := o.CountRef(origin.KindManifest, "latest", http.MethodHead); n != 1 {
			t.Errorf("%s: %d HEADs of the tag, want 1", what, n)
		}
		if n := o.CountRef(origin.KindManifest, "latest", http.MethodGet); n > 1 {
			t.Errorf("%s: %d GETs of the tag, want 1 at most", what, n)
		}
		pulled++
	}
	push("generic", "/webhooks/ci", fmt.Sprintf(`{"image":%q}`, nameOf(o)+"/acme/app:latest"), second.Root.Digest.String())
	third := o.AddImage("acme/app", "latest", origin.Image{Layers: []int64{30 << 10}})
	push("distribution, under another name", "/webhooks/registry", event("acme/app", "latest"), third.Root.Digest.String())
	push("nothing new", "/webhooks/ci", fmt.Sprintf(`{"image":%q}`, nameOf(o)+"/acme/app"), third.Root.Digest.String())

	// The history says how the new digests were learnt.
	if _, text := get(t, "http://"+a.AdminAddr().String()+"/api/v1/tags?image="+url.QueryEscape(nameOf(o)+"/acme/app:latest")); strings.Count(text, `"source":"webhook"`) != 2 {
		t.Errorf("the history: %s", text)
	}

	// The secret is replaced by a reload.
	write(t, filepath.Join(dir, "hook"), "short\n")
	if err := a.Reload(c()); err == nil || !strings.Contains(err.Error(), "webhooks.ci.secretFile") || !strings.Contains(err.Error(), "less than 16") {
		t.Errorf("a short secret: %v", err)
	}
	write(t, filepath.Join(dir, "hook"), strings.Repeat("n", 32)+"\n")
	if err := a.Reload(c()); err != nil {
		t.Fatal(err)
	}
	if status, text := report(t, a, "/webhooks/ci", "{}", bearer...); status != http.StatusForbidden {
		t.Errorf("the old secret: %d %s", status, text)
	}
	if strings.Contains(log.String(), hookSecret) {
		t.Errorf("the log has the secret:\n%s", log)
	}
}

// A report over the listener for clients that announces ten MiB is refused before they are sent.
func TestWebhookLargeBody(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "hook"), hookSecret)
	a, _ := start(t, parse(t, dir, upstreamOf(o)+"webhooks: {hub: {type: dockerhub, secretFile: hook}}\n"))
	conn, err := net.Dial("tcp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /webhooks/hub/%s HTTP/1.1\r\nHost: mirror\r\nContent-Length: %d\r\n\r\n{", hookSecret, 10<<20)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge || !res.Close {
		t.Errorf("%s, closes %v", res.Status, res.Close)
	}
}
