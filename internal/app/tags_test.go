package app_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/origin"
)

// apiServer is the API server of a cluster that answers a path with items, and all others with 403.
func apiServer(t *testing.T, dir string, items map[string][]any) config.Kubernetes {
	t.Helper()
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list, ok := items[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"items": list})
	}))
	t.Cleanup(api.Close)
	write(t, filepath.Join(dir, "token"), "sesame")
	write(t, filepath.Join(dir, "ca.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})))
	return config.Kubernetes{Events: true, Server: api.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt")}
}

// body gets a body of the admin API.
func body[T any](t *testing.T, a *app.App, path string) (v T) {
	t.Helper()
	status, text := get(t, "http://"+a.AdminAddr().String()+"/api/v1/"+path)
	if err := json.Unmarshal([]byte(text), &v); err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %s: %v", path, status, text, err)
	}
	return v
}

func port(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

// driftMetric is mirror_tag_drift as it is scraped, without the upstream.
func driftMetric(t *testing.T, a *app.App) string {
	t.Helper()
	_, text := get(t, "http://"+a.AdminAddr().String()+"/metrics")
	var found []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "mirror_tag_drift{kind="); ok {
			kind, rest, _ := strings.Cut(rest, ",")
			found = append(found, strings.Trim(kind, `"`)+rest[strings.LastIndexByte(rest, ' '):len(rest)-1])
		}
	}
	slices.Sort(found)
	return strings.Join(found, ", ")
}

// The tags that a node only asks for by HEAD are in the ledger and in drift; a pod and a workload of no pods keep tags in use; and
// what may not be listed is named. The metric has what the last look has found.
func TestTagsOfACluster(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	old := o.AddImage("acme/app", "main", origin.Image{Layers: []int64{10 << 10}}).Root.Digest.String()
	o.AddImage("acme/app", "main", origin.Image{Layers: []int64{20 << 10}})
	o.AddImage("acme/idle", "1", origin.Image{Layers: []int64{30 << 10}})
	o.AddImage("acme/unused", "1", origin.Image{Layers: []int64{30 << 10}})
	image := func(name string) map[string]any {
		return map[string]any{"name": "c", "image": "127.0.0.1:5000/" + nameOf(o) + "/" + name}
	}
	meta := func(name string) map[string]any { return map[string]any{"namespace": "shop", "name": name} }
	dir := t.TempDir()
	c := parse(t, dir, upstreamOf(o))
	c.Kubernetes = apiServer(t, dir, map[string][]any{
		"/api/v1/pods": {map[string]any{
			"metadata": meta("web-1"), "spec": map[string]any{"containers": []any{image("acme/app:main")}},
			"status": map[string]any{"containerStatuses": []any{map[string]any{"name": "c", "imageID": "x@" + old}}},
		}},
		"/apis/apps/v1/deployments": {map[string]any{"metadata": meta("idle"), "spec": map[string]any{
			"replicas": 0, "template": map[string]any{"spec": map[string]any{"containers": []any{image("acme/idle:1")}}},
		}}},
		"/apis/apps/v1/statefulsets": {}, "/apis/apps/v1/daemonsets": {},
	})
	r := run(t, c)
	if got := driftMetric(t, r.App); got != "" {
		t.Errorf("before the first look: %s", got)
	}
	for _, name := range []string{"acme/app/manifests/main", "acme/idle/manifests/1"} {
		if got := r.asks(t, http.MethodHead, name+"?ns="+nameOf(o)); got.status != "200 OK" {
			t.Fatalf("%s: %+v", name, got)
		}
	}
	uses := make(map[string]string)
	list := body[admin.TagList](t, r.App, "tags")
	for _, x := range list.Tags {
		uses[strings.TrimPrefix(x.Image, nameOf(o)+"/")] = strings.Join(x.UsedBy, " ")
	}
	if uses["acme/app:main"] != "shop/web-1" || uses["acme/idle:1"] != "shop/Deployment/idle" || len(uses) != 2 {
		t.Errorf("tags in use: %v", uses)
	}
	if len(list.Notes) != 1 || !strings.Contains(list.Notes[0], "may not list cronjobs") {
		t.Errorf("notes: %q", list.Notes)
	}
	for _, host := range []string{r.Addr().String(), r.AdminAddr().String(), "mirror.test:" + port(r.Addr())} {
		if got := body[admin.Tag](t, r.App, "tags?image="+host+"/"+nameOf(o)+"/acme/app:main"); got.Image != nameOf(o)+"/acme/app:main" {
			t.Errorf("below %s: %s", host, got.Image)
		}
	}
	for _, name := range []string{"mirror.test:1/" + nameOf(o) + "/acme/app:main", r.Addr().String() + "/other.test/acme/app:main", r.Addr().String() + "/acme/app:main"} {
		if status, text := get(t, "http://"+r.AdminAddr().String()+"/api/v1/tags?image="+name); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	drift := body[admin.DriftList](t, r.App, "tags/drift")
	var found []string
	for _, x := range drift.Drift {
		found = append(found, fmt.Sprint(x.Image, " ", x.Kind))
	}
	want := []string{nameOf(o) + "/acme/app:main restart", nameOf(o) + "/acme/app:main running"}
	if slices.Sort(found); !slices.Equal(found, want) {
		t.Errorf("drift: %q, want %q", found, want)
	}
	if got := driftMetric(t, r.App); got != "pulled 0, restart 1, running 1" {
		t.Errorf("metric: %s", got)
	}
}

// Without a cluster the metric has what clients got.
func TestDriftOfClients(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	o.AddImage("acme/app", "main", origin.Image{Layers: []int64{10 << 10}})
	r := run(t, parse(t, t.TempDir(), fmt.Sprintf("  %s: {endpoints: [%q], tags: {maxAge: 0s}}\n", nameOf(o), o.URL())))
	for seed, node := range []string{"node-1", "node-2"} {
		o.AddImage("acme/app", "main", origin.Image{Seed: int64(seed)})
		r.asks(t, http.MethodHead, "acme/app/manifests/main?ns="+nameOf(o), "Mirror-Node", node)
	}
	if d := body[admin.DriftList](t, r.App, "tags/drift"); len(d.Drift) != 1 || len(d.Drift[0].Digests) != 2 || len(d.Notes) != 1 {
		t.Errorf("drift: %+v", d)
	}
	if got := driftMetric(t, r.App); got != "pulled 1" {
		t.Errorf("metric: %s", got)
	}
}
