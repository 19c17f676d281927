package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// TestEndpointWithAPath pulls through hosts.toml files in which the mirror's URL has the registry as its path, with
// override_path, as other caches want it. The registry itself is out of reach, so that nothing goes past the mirror.
func TestEndpointWithAPath(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	x := image.PushIndex(t, upstream.Host, appRepository, "v1", appLayers)
	m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}\nghcr.io: {endpoints: [" +
		upstream.URL() + "]}"})
	for _, line := range containerd.Lines {
		t.Run(string(line), func(t *testing.T) {
			t.Parallel()
			c := containerd.Start(t, line, containerd.Certs{Mirror: m.URL(), Path: true})
			for _, ref := range []string{app, "ghcr.io/" + appRepository + ":v1"} {
				p, err := c.Ctr(t, ref)
				if err != nil {
					t.Errorf("%s: %v", ref, err)
					continue
				}
				equal(t, "digest of "+ref, p.Digest, x.Digest.String())
			}
		})
	}
}

// TestMissingWithoutFallback pulls a tag that is not there: of clients that have nowhere else to go containerd prints
// what the mirror says, and not that the next host does not resolve.
func TestMissingWithoutFallback(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	image.PushIndex(t, upstream.Host, appRepository, "v1", image.Layers{1 << 10})
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}", More: "clientsFallBack: false",
	})
	for _, line := range containerd.Lines {
		t.Run(string(line), func(t *testing.T) {
			t.Parallel()
			c := containerd.Start(t, line, containerd.Certs{Mirror: m.URL(), Server: m.URL()})
			_, err := c.Ctr(t, "docker.io/library/app:v2")
			if err == nil || !strings.Contains(err.Error(), "mirror: docker.io has no library/app:v2") {
				t.Errorf("containerd says %v", err)
			}
		})
	}
	if code, _ := mirrord.Get(t, m.URL()+"/v2/docker.io/library/app/manifests/sha256-"+strings.Repeat("0", 64)+".sig"); code != http.StatusNotFound {
		t.Errorf("a signature that is not there: %d", code)
	}
}

// TestListsByClients lists the tags of a registry whose links to the next page name another host: crane and skopeo get all.
func TestListsByClients(t *testing.T) {
	t.Parallel()
	var want []string
	for i := range 201 {
		want = append(want, fmt.Sprintf("a%03d", i))
	}
	var mu sync.Mutex
	asked := 0
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/tags/list") {
			_, _ = io.WriteString(w, "{}")
			return
		}
		mu.Lock()
		asked++
		mu.Unlock()
		from, _ := slices.BinarySearch(want, r.URL.Query().Get("last"))
		if r.URL.Query().Has("last") {
			from++
		}
		page := want[from:min(from+100, len(want))]
		if from+100 < len(want) {
			w.Header().Set("Link", fmt.Sprintf(`<https://internal.example:8443/v2/library/app/tags/list?n=100&last=%s>; rel="next"`,
				page[len(page)-1]))
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"name": "library/app", "tags": page})
	}))
	t.Cleanup(upstream.Close)
	m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL + "]}"})
	name := m.Host + "/docker.io/library/app"
	for client, list := range map[string]func() []string{
		"crane": func() []string {
			return strings.Fields(proc.Must(t, proc.Options{}, tool.Built(t, "crane"), "ls", "--insecure", name))
		},
		"skopeo": func() []string {
			var doc struct{ Tags []string }
			out := proc.Must(t, proc.Options{}, tool.System(t, "skopeo"), "list-tags", "--tls-verify=false", "docker://"+name)
			if err := json.Unmarshal([]byte(out), &doc); err != nil {
				t.Error(err)
			}
			return doc.Tags
		},
	} {
		if got := list(); !slices.Equal(got, want) {
			t.Errorf("%s has %d of %d tags", client, len(got), len(want))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if asked != 4 { // crane asks for the first page with an n of its own; the others are the same question
		t.Errorf("the registry was asked for %d pages, want 4", asked)
	}
}
