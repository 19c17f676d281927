package kube_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/oci"
)

const sum = "8d3f30fecb15daccf30ce8cdb80a567420db3337d838eb2f9732b8f3fa6ffb1a"

// transport answers requests by path, and notes the queries.
type transport struct {
	answers map[string][]string // by path: the pages
	queries []string
	expire  int // how many continued lists have expired
}

func (s *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.queries = append(s.queries, r.URL.Path+"?"+r.URL.RawQuery)
	pages := s.answers[r.URL.Path]
	if len(pages) == 0 {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.WriteString(`{"kind":"Status","reason":"Forbidden","message":"no"}`)
		return w.Result(), nil
	}
	page := pages[0]
	if r.URL.Query().Get("continue") != "" && s.expire > 0 {
		s.expire--
		w.WriteHeader(http.StatusGone)
		_, _ = w.WriteString(`{"kind":"Status","reason":"Expired","message":"the provided continue parameter is too old"}`)
		return w.Result(), nil
	}
	if r.URL.Query().Get("continue") != "" {
		page = pages[1]
	}
	_, _ = w.WriteString(page)
	return w.Result(), nil
}

func clientOf(t *testing.T, s http.RoundTripper) *kube.Client {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := kube.NewClient(kube.ClientOptions{Server: "https://10.0.0.1:6443", TokenFile: token, Transport: s})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The image of a container is known by its name and by its digest, which each runtime writes in its own way. A list that expires
// between its pages is read once more.
func TestPods(t *testing.T) {
	t.Parallel()
	s := &transport{answers: map[string][]string{"/api/v1/pods": {
		`{"metadata":{"continue":"x"},"items":[{"metadata":{"namespace":"prod","name":"web-1"},
			"spec":{"nodeName":"n1","initContainers":[{"name":"i","image":"busybox"}],"containers":[
				{"name":"a","image":"nginx:1.27","imagePullPolicy":"IfNotPresent"},{"name":"b","image":"ghcr.io/acme/app:main","imagePullPolicy":"Always"}]},
			"status":{"containerStatuses":[
				{"name":"b","image":"ghcr.io/acme/app:main","imageID":"ghcr.io/acme/app@sha256:` + sum + `"},
				{"name":"a","image":"docker.io/library/nginx:1.27","imageID":"docker-pullable://nginx@sha256:` + sum + `"}],
				"initContainerStatuses":[{"name":"i","imageID":"sha256:` + sum + `"}]}}]}`,
		`{"items":[{"metadata":{"namespace":"prod","name":"web-2"},"spec":{"containers":[{"name":"a","image":"nginx:1.27"}]},
			"status":{"containerStatuses":[{"name":"a","imageID":""}]}},
			{"metadata":{"namespace":"old","name":"d"},"spec":{"nodeName":"n2","containers":[{"name":"a","image":"x"}]},
			"status":{"containerStatuses":[{"name":"a","imageID":"docker://sha256:` + sum + `"}]}},
			{"metadata":{"namespace":"old","name":"going","deletionTimestamp":"2026-11-30T12:00:00Z"},"spec":{"containers":[{"name":"a","image":"x"}]}}]}`,
	}}, expire: 1}
	got, err := clientOf(t, s).Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := oci.Digest("sha256:" + sum)
	want := []kube.Pod{
		{Namespace: "prod", Name: "web-1", Node: "n1", Images: []kube.RunningImage{
			{Image: "busybox"},
			{Image: "nginx:1.27", Digest: d, Policy: "IfNotPresent"},
			{Image: "ghcr.io/acme/app:main", Digest: d, Policy: "Always"},
		}},
		{Namespace: "prod", Name: "web-2", Images: []kube.RunningImage{{Image: "nginx:1.27"}}},
		{Namespace: "old", Name: "d", Node: "n2", Images: []kube.RunningImage{{Image: "x"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(s.queries) != 4 || !strings.Contains(s.queries[0], "status.phase%21%3DSucceeded") {
		t.Errorf("requests: %q", s.queries)
	}
}

// Workloads that are scaled to zero, and those that run at times, are idle. What may not be listed is named.
func TestWorkloads(t *testing.T) {
	t.Parallel()
	s := &transport{answers: map[string][]string{
		"/apis/apps/v1/deployments": {`{"items":[
			{"metadata":{"namespace":"prod","name":"web"},"spec":{"replicas":3,"template":{"spec":{"containers":[{"image":"nginx:1.27"}]}}}},
			{"metadata":{"namespace":"prod","name":"idle"},"spec":{"replicas":0,"template":{"spec":{"initContainers":[{"image":"a"}],"containers":[{"image":"b"}]}}}}]}`},
		"/apis/apps/v1/daemonsets": {`{"items":[{"metadata":{"namespace":"sys","name":"log"},"spec":{"template":{"spec":{"containers":[{"image":"c"}]}}}}]}`},
		"/apis/batch/v1/cronjobs": {`{"items":[{"metadata":{"namespace":"prod","name":"night"},"spec":{"suspend":false,
			"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"d"}]}}}}}}]}`},
	}}
	got, refused, err := clientOf(t, s).Workloads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []kube.Workload{
		{Namespace: "prod", Kind: "Deployment", Name: "web", Images: []string{"nginx:1.27"}},
		{Namespace: "prod", Kind: "Deployment", Name: "idle", Idle: true, Images: []string{"a", "b"}},
		{Namespace: "sys", Kind: "DaemonSet", Name: "log", Images: []string{"c"}},
		{Namespace: "prod", Kind: "CronJob", Name: "night", Idle: true, Images: []string{"d"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"statefulsets"}, refused); diff != "" {
		t.Error(diff)
	}
}
