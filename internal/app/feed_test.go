package app_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/origin"
)

// TestFeed: the images of pods and of workloads without pods are brought, once each, and then pull without their registry. Those
// of an excluded namespace, and of other registries, are not.
func TestFeed(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	for i, tag := range []string{"pod", "idle", "later", "excluded"} {
		o.AddImage("acme/app", tag, origin.Image{Layers: []int64{int64(i+1) << 10}})
	}
	object := func(namespace, name, tag string) string {
		return fmt.Sprintf(`{"metadata":{"namespace":%q,"name":%q,"resourceVersion":"8"},"spec":{"containers":[{"image":"%s/acme/app:%s"},{"image":"elsewhere.example/x:1"}]}}`,
			namespace, name, nameOf(o), tag)
	}
	later := make(chan string)
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		items := ""
		switch {
		case r.Header.Get("Authorization") != "Bearer sesame":
			w.WriteHeader(http.StatusUnauthorized)
			return
		case r.URL.Query().Get("watch") != "":
			w.(http.Flusher).Flush()
			for r.Context().Err() == nil {
				select {
				case <-r.Context().Done():
				case text := <-map[bool]chan string{true: later}[r.URL.Path == "/api/v1/pods"]:
					_, _ = io.WriteString(w, text)
					w.(http.Flusher).Flush()
				}
			}
			return
		case r.URL.Path == "/api/v1/pods":
			items = object("prod", "a", "pod") + "," + object("kube-system", "b", "excluded")
		case r.URL.Path == "/apis/apps/v1/deployments":
			items = fmt.Sprintf(`{"metadata":{"namespace":"prod","name":"idle"},"spec":{"replicas":0,"template":%s}}`, object("", "", "idle"))
		}
		fmt.Fprintf(w, `{"metadata":{"resourceVersion":"9"},"items":[%s]}`, items)
	}))
	t.Cleanup(api.Close)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "sesame")
	write(t, filepath.Join(dir, "ca.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})))
	c := parse(t, dir, upstreamOf(o))
	c.Kubernetes = config.Kubernetes{
		Feed: true, FeedNamespaces: []string{"*"}, FeedExcluded: []string{"kube-*"},
		Server: api.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt"),
	}
	r := run(t, c)
	warm := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d images are warm", n), func() bool {
			_, metrics := get(t, "http://"+r.AdminAddr().String()+"/metrics")
			return strings.Contains(metrics, fmt.Sprintf("\nmirror_feed_images_warm %d\n", n))
		})
	}
	warm(2)
	later <- `{"type":"ADDED","object":` + object("prod", "c", "later") + "}\n"
	warm(3)
	if n := o.CountRef(origin.KindManifest, "excluded"); n != 0 {
		t.Errorf("the image of an excluded namespace was asked for %d times", n)
	}
	if n := o.Count(origin.KindManifest, http.MethodGet); n != 3 {
		t.Errorf("%d manifests were fetched, want 3", n)
	}
	o.Down()
	for _, tag := range []string{"pod", "idle", "later"} {
		if err := r.pull(t, o, "acme/app:"+tag); err != nil {
			t.Errorf("%s without its registry: %v", tag, err)
		}
	}
}

func TestFeedWithoutACluster(t *testing.T) {
	t.Parallel()
	c := parse(t, t.TempDir(), "  docker.io: {}\n")
	c.Kubernetes = config.Kubernetes{Feed: true, Server: "https://127.0.0.1:1", TokenFile: "none"}
	_, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "kubernetes.feed: read the token") {
		t.Errorf("got %v", err)
	}
}

// TestScheduleOnMove: a schedule brings what its tags mean at the start, and what they mean after a report that they have moved. A
// reload changes the schedules.
func TestScheduleOnMove(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	o.AddImage("acme/app", "main", origin.Image{Layers: []int64{100 << 10}})
	o.AddImage("acme/web", "main", origin.Image{Layers: []int64{100 << 10}})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "hook"), hookSecret)
	settings := func(images string) *config.Config {
		return parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], aliases: [corp.example], tags: {maxAge: 24h}}\nwebhooks: {ci: {type: generic, secretFile: hook}}\n"+
			"warm: {schedules: [{name: main, onTagMove: true, images: [%s]}]}\n", nameOf(o), o.URL(), images))
	}
	r := run(t, settings("corp.example/acme/app:main"))
	done := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d jobs are done", n), func() bool {
			_, metrics := get(t, "http://"+r.AdminAddr().String()+"/metrics")
			return strings.Contains(metrics, fmt.Sprintf("\nmirror_warm_jobs_total{state=\"done\"} %d\n", n))
		})
	}
	done(1)
	second := o.AddImage("acme/app", "main", origin.Image{Layers: []int64{200 << 10}})
	o.ClearRequests()
	status, text := report(t, r.App, "/webhooks/ci", fmt.Sprintf(`{"image":"%s/acme/app:main"}`, nameOf(o)), "Authorization", "Bearer "+hookSecret)
	if status != http.StatusAccepted {
		t.Fatalf("the report is %d %s", status, text)
	}
	done(2)
	if n := o.Count(origin.KindManifest, http.MethodHead); n != 1 {
		t.Errorf("%d checks of the tag, want 1", n)
	}
	for _, d := range second.Blobs() {
		if n := o.CountRef(origin.KindBlob, string(d.Digest), http.MethodGet); n != 1 {
			t.Errorf("blob %s: %d GETs, want 1", d.Digest, n)
		}
	}
	if err := r.Reload(settings("corp.example/acme/app:main, corp.example/acme/web:main")); err != nil {
		t.Fatal(err)
	}
	done(3)
	o.Down()
	for _, image := range []string{"acme/app:main", "acme/web:main"} {
		if err := r.pull(t, o, image); err != nil {
			t.Errorf("%s without its registry: %v", image, err)
		}
	}
	_, metrics := get(t, "http://"+r.AdminAddr().String()+"/metrics")
	if want := `mirror_warm_schedule_runs_total{name="main",result="started"} 3`; !strings.Contains(metrics, want) {
		t.Errorf("no %s in the metrics", want)
	}
}
