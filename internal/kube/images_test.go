package kube_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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
	for i := range got { // their form is TestRunningImages'
		for k := range got[i].Images {
			got[i].Images[k].Field, got[i].Images[k].Config = "", ""
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(s.queries) != 4 || !strings.Contains(s.queries[0], "status.phase%21%3DSucceeded") {
		t.Errorf("requests: %q", s.queries)
	}
}

// The forms of imageID of containerd, of images that were imported into it, of Docker and of CRI-O before and since 1.28.
func TestRunningImages(t *testing.T) {
	t.Parallel()
	list := func(name string) string {
		return `[{"name":"` + name + `","image":"nginx:1.27","imagePullPolicy":"Always"}]`
	}
	status := func(name, id, state string) string {
		return `[{"name":"` + name + `","imageID":"` + id + `","state":` + state + `}]`
	}
	running := `{"running":{"startedAt":"2026-11-30T10:00:00Z"}}`
	for _, tt := range []struct{ id, digest, config string }{
		{"docker.io/library/nginx@sha256:" + sum, sum, ""},
		{"docker-pullable://nginx@sha256:" + sum, sum, ""},
		{"registry.corp:5000/nginx@sha256:" + sum, sum, ""},
		{"docker://sha256:" + sum, "", sum},
		{"sha256:" + sum, "", sum},
		{sum, "", sum},
		{"", "", ""},
		{"docker.io/library/import-2026-11-30@sha256:" + sum, sum, ""},
		{"nginx:1.27", "", ""},
	} {
		s := &transport{answers: map[string][]string{"/api/v1/pods": {`{"items":[{
			"metadata":{"namespace":"prod","name":"web-1","uid":"u1","ownerReferences":[{"uid":"x"},{"uid":"rs","controller":true}]},
			"spec":{"nodeName":"n1","initContainers":` + list("i") + `,"containers":` + list("c") + `,"ephemeralContainers":` + list("e") + `},
			"status":{"hostIP":"10.0.0.1","hostIPs":[{"ip":"10.0.0.1"},{"ip":"2001:db8::1"}],
				"initContainerStatuses":` + status("i", tt.id, `{"terminated":{"startedAt":"2026-11-30T10:00:00Z"}}`) + `,
				"containerStatuses":` + status("c", tt.id, running) + `,"ephemeralContainerStatuses":` + status("e", tt.id, `{"waiting":{}}`) + `}}]}`}}}
		got, all, err := clientOf(t, s).AllPods(t.Context(), 1)
		if err != nil || !all {
			t.Fatal(err)
		}
		want := kube.Pod{Namespace: "prod", Name: "web-1", UID: "u1", Node: "n1", Controller: "rs", Addresses: []string{"10.0.0.1", "2001:db8::1"}}
		at := time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)
		for _, c := range []struct {
			field   string
			started time.Time
		}{{"spec.initContainers{i}", at}, {"spec.containers{c}", at}, {"spec.ephemeralContainers{e}", time.Time{}}} {
			i := kube.RunningImage{Image: "nginx:1.27", Policy: "Always", Field: c.field, Started: c.started}
			if tt.digest != "" {
				i.Digest = oci.Digest("sha256:" + tt.digest)
			}
			if tt.config != "" {
				i.Config = oci.Digest("sha256:" + tt.config)
			}
			want.Images = append(want.Images, i)
		}
		if diff := cmp.Diff([]kube.Pod{want}, got); diff != "" {
			t.Errorf("%q: %s", tt.id, diff)
		}
	}
}

// The texts of kubelets of 1.17, 1.26, 1.30 and later, also of Events that the API server has joined; an image that was there is
// not a pull.
func TestImagePulls(t *testing.T) {
	t.Parallel()
	event := func(uid, message, at string) string {
		return `{"involvedObject":{"uid":"` + uid + `","fieldPath":"spec.containers{c}"},"message":` + strconv.Quote(message) + `,` + at + `}`
	}
	const last = `"lastTimestamp":"2026-11-30T10:00:00Z"`
	s := &transport{answers: map[string][]string{"/api/v1/events": {`{"items":[` + strings.Join([]string{
		event("a", `Successfully pulled image "nginx:1.27"`, last),
		event("b", `Successfully pulled image "nginx:1.27" in 2.5s`, last),
		event("c", `Successfully pulled image "nginx:1.27" in 2.5s (1m2.5s including waiting)`, last),
		event("d", `Successfully pulled image "nginx:1.27" in 250ms (350ms including waiting). Image size: 1169083618 bytes.`, last),
		event("e", `(combined from similar events): Successfully pulled image "nginx:1.27" in 1s (1s including waiting)`, last),
		event("f", `Successfully pulled image "nginx:1.27" in 1s`, `"lastTimestamp":null,"eventTime":"2026-11-30T10:00:00.000000Z"`),
		event("g", `Container image "nginx:1.27" already present on machine`, last),
		event("h", `Container image "nginx:1.27" already present on machine and can be accessed by the pod`, last),
	}, ",") + `]}`}}}
	got, allowed, err := clientOf(t, s).ImagePulls(t.Context())
	if err != nil || !allowed {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)
	var want []kube.ImagePull
	for uid, took := range map[string]time.Duration{
		"a": 10 * time.Minute, "b": 2500 * time.Millisecond, "c": 62500 * time.Millisecond, "d": 350 * time.Millisecond, "e": time.Second, "f": time.Second,
	} {
		want = append(want, kube.ImagePull{PodUID: uid, Field: "spec.containers{c}", Began: at.Add(-took), Ended: at})
	}
	slices.SortFunc(want, func(a, b kube.ImagePull) int { return strings.Compare(a.PodUID, b.PodUID) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, allowed, err := clientOf(t, &transport{}).ImagePulls(t.Context()); allowed || err != nil {
		t.Errorf("without the right: %v, %v", allowed, err)
	}
}

// The API server says what our account may do.
func TestAllowed(t *testing.T) {
	t.Parallel()
	const path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	for answer, want := range map[string]bool{`{"status":{"allowed":true}}`: true, `{"status":{"allowed":false,"reason":"no"}}`: false} {
		s := &transport{answers: map[string][]string{path: {answer}}}
		if got, err := clientOf(t, s).Allowed(t.Context(), "list", "apps", "deployments"); err != nil || got != want {
			t.Errorf("%s: %v, %v", answer, got, err)
		}
	}
	if _, err := clientOf(t, &transport{}).Allowed(t.Context(), "list", "", "pods"); err == nil {
		t.Error("a refusal is not an error")
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
