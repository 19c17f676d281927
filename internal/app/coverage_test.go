package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/internal/origin"
)

// One node pulls an image through the mirror, one past it; a registry that is not an upstream does not count. The record outlasts a
// restart.
func TestCoverageOfACluster(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	im := o.AddImage("acme/app", "main", origin.Image{Layers: []int64{10 << 10}})
	now := time.Now()
	var pods, events []any
	for i, image := range []string{nameOf(o) + "/acme/app:main", nameOf(o) + "/acme/app:main", "elsewhere.test/acme/app:main"} {
		uid := fmt.Sprint("uid-", i)
		pods = append(pods, map[string]any{
			"metadata": map[string]any{"namespace": "shop", "name": fmt.Sprint("web-", i), "uid": uid},
			"spec":     map[string]any{"nodeName": fmt.Sprint("node-", i%2), "containers": []any{map[string]any{"name": "c", "image": image}}},
			"status": map[string]any{"hostIP": fmt.Sprint("10.0.0.", i%2), "containerStatuses": []any{map[string]any{
				"name": "c", "imageID": nameOf(o) + "/acme/app@" + im.Root.Digest.String(),
				"state": map[string]any{"running": map[string]any{"startedAt": now.Add(3 * time.Minute).Format(time.RFC3339)}},
			}}},
		})
		events = append(events, map[string]any{ // a little in the future, since the record has just begun
			"involvedObject": map[string]any{"uid": uid, "fieldPath": "spec.containers{c}"},
			"message":        `Successfully pulled image "x" in 1s (1s including waiting)`, "lastTimestamp": now.Add(2 * time.Minute).Format(time.RFC3339),
		})
	}
	dir := t.TempDir()
	c := parse(t, dir, upstreamOf(o))
	c.Kubernetes = apiServer(t, dir, map[string][]any{"/api/v1/pods": pods, "/api/v1/events": events})
	c.Kubernetes.Events, c.Kubernetes.Coverage = false, true
	r := run(t, c)
	r.asks(t, http.MethodGet, "acme/app/manifests/main?ns="+nameOf(o), "Mirror-Node", "node-0")
	summary := func(l admin.CoverageList) string {
		var nodes []string
		for _, n := range l.Nodes {
			nodes = append(nodes, fmt.Sprintf("%s %d/%d+%d %s", n.Node, n.Through, n.Images, n.Unknown, n.Reason))
		}
		return strings.Join(nodes, "; ")
	}
	want := "node-1 0/1+0 no request of this node since "
	got := body[admin.CoverageList](t, r.App, "coverage")
	if s := summary(got); !strings.HasPrefix(s, want) || !strings.HasSuffix(s, "; node-0 1/1+0 ") || got.Nodes[0].Details != nil {
		t.Errorf("%s", s)
	}
	if s := (coverage.Summary{Nodes: 2, Images: 2, Through: 1, Missed: 1}); got.Summary != s || len(got.Notes) != 0 {
		t.Errorf("%+v", got)
	}
	one := body[admin.CoverageList](t, r.App, "coverage?node=node-1")
	if len(one.Nodes) != 1 || len(one.Nodes[0].Details) != 1 || one.Nodes[0].Details[0].Pods[0] != "shop/web-1" {
		t.Errorf("one node: %+v", one)
	}
	if none := body[admin.CoverageList](t, r.App, "coverage?node=node-9"); len(none.Nodes) != 0 || !strings.Contains(none.Notes[0], `"node-9"`) {
		t.Errorf("an unknown node: %+v", none)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	again := run(t, c)
	if s := summary(body[admin.CoverageList](t, again.App, "coverage")); !strings.Contains(s, "node-0 1/1+0") {
		t.Errorf("after a restart: %s", s)
	}
}

// Without a cluster, and without the rights, the answer says what to do.
func TestCoverageWithoutRights(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	r := run(t, parse(t, t.TempDir(), upstreamOf(o)))
	if got := body[admin.CoverageList](t, r.App, "coverage"); len(got.Nodes) != 0 || !strings.Contains(strings.Join(got.Notes, ""), "kubernetes.coverage") {
		t.Errorf("without a cluster: %+v", got)
	}
	dir := t.TempDir()
	c := parse(t, dir, upstreamOf(o))
	c.Kubernetes = apiServer(t, dir, nil)
	r = run(t, c)
	if status, text := get(t, "http://"+r.AdminAddr().String()+"/api/v1/coverage"); status != http.StatusServiceUnavailable || !strings.Contains(text, "deploy/kubernetes/events.yaml") {
		t.Errorf("without the rights: %d %s", status, text)
	}
}
