package kube_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is an API server that knows pods and Events. It is an http.RoundTripper.
type cluster struct {
	mu     sync.Mutex
	pods   []pod
	events map[string]map[string]any // by namespace/name
	log    []string                  // method and path of each request
	times  []time.Time
	fail   func(r *http.Request) (status int, body string, header http.Header) // 0: go on
}

// pod is one of the cluster.
type pod struct {
	namespace, name, node, hostIP, phase string
	containers                           []box
}

// box is a container.
type box struct{ kind, name, image, waiting string }

func (p pod) json() map[string]any {
	spec, status := map[string]any{"nodeName": p.node}, map[string]any{
		"phase": cmp.Or(p.phase, "Pending"), "hostIP": p.hostIP, "hostIPs": []any{map[string]any{"ip": p.hostIP}},
	}
	for _, b := range p.containers {
		kind := cmp.Or(b.kind, "containers")
		one := strings.TrimSuffix(kind, "s") + "Statuses"
		state := map[string]any{"running": map[string]any{"startedAt": "2026-01-01T00:00:00Z"}}
		if b.waiting != "" {
			state = map[string]any{"waiting": map[string]any{"reason": b.waiting, "message": "..."}}
		}
		specs, _ := spec[kind].([]any)
		spec[kind] = append(specs, map[string]any{"name": b.name, "image": b.image})
		states, _ := status[one].([]any)
		status[one] = append(states, map[string]any{"name": b.name, "image": b.image, "state": state})
	}
	return map[string]any{
		"metadata": map[string]any{"namespace": p.namespace, "name": p.name, "uid": "uid-" + p.name},
		"spec":     spec, "status": status,
	}
}

func (c *cluster) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	c.serve(w, r)
	if w.Code == 0 || w.Code == 599 {
		return nil, errors.New("connection refused")
	}
	return w.Result(), nil
}

func (c *cluster) serve(w *httptest.ResponseRecorder, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, r.Method+" "+strings.TrimSuffix(r.URL.Path+"?"+r.URL.Query().Get("fieldSelector"), "?"))
	c.times = append(c.times, time.Now())
	if c.fail != nil {
		if status, body, header := c.fail(r); status != 0 {
			maps.Copy(w.Header(), header)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return
		}
	}
	if r.Header.Get("Authorization") != "Bearer sesame" {
		status(w, 401, "Unauthorized", "unknown token")
		return
	}
	if r.URL.Path == "/api/v1/pods" {
		c.list(w, r)
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/")
	ns, rest, ok2 := strings.Cut(rest, "/events")
	if !ok || !ok2 {
		status(w, 404, "NotFound", "no such path")
		return
	}
	key := ns + rest
	switch r.Method {
	case http.MethodPost:
		var e map[string]any
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			status(w, 400, "BadRequest", err.Error())
			return
		}
		meta := e["metadata"].(map[string]any)
		key = fmt.Sprintf("%v/%v", ns, meta["name"])
		if c.events[key] != nil {
			status(w, 409, "AlreadyExists", "it is there")
			return
		}
		if meta["namespace"] != ns {
			status(w, 400, "BadRequest", "another namespace")
			return
		}
		c.events[key] = e
		w.WriteHeader(201)
	case http.MethodPatch:
		if r.Header.Get("Content-Type") != "application/merge-patch+json" || c.events[key] == nil {
			status(w, 404, "NotFound", "no such event")
			return
		}
		var e map[string]any
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			status(w, 400, "BadRequest", err.Error())
			return
		}
		maps.Copy(c.events[key], e)
	case http.MethodGet:
		if c.events[key] == nil {
			status(w, 404, "NotFound", "no such event")
			return
		}
	}
	_ = json.NewEncoder(w).Encode(c.events[key])
}

func (c *cluster) list(w http.ResponseWriter, r *http.Request) {
	field, value, _ := strings.Cut(r.URL.Query().Get("fieldSelector"), "=")
	items := []any{}
	for _, p := range c.pods {
		if field == "status.phase" && cmp.Or(p.phase, "Pending") == value || field == "spec.nodeName" && p.node == value {
			items = append(items, p.json())
		}
	}
	// At least two a page, so that there are pages.
	from := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("continue"), &from)
	to, next := min(from+max(2, len(items)/3), len(items)), ""
	if to < len(items) {
		next = fmt.Sprint(to)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"metadata": map[string]any{"continue": next}, "items": items[from:to]})
}

func status(w http.ResponseWriter, code int, reason, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "reason": reason, "message": message, "code": code})
}

// only are the requests of a method, "POST" for instance.
func (c *cluster) only(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, l := range c.log {
		if strings.HasPrefix(l, method+" ") {
			n++
		}
	}
	return n
}

// all is how many requests there were.
func (c *cluster) all() int { return c.only("GET") + c.only("POST") + c.only("PATCH") }

func (c *cluster) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// under runs a test in a bubble of time, with a Poster on c.
func under(t *testing.T, c *cluster, test func(t *testing.T, p *kube.Poster, log *bytes.Buffer)) {
	t.Helper()
	c.events = make(map[string]map[string]any)
	synctest.Test(t, func(t *testing.T) {
		p, log := start(t, c)
		test(t, p, log)
	})
}

// start runs a Poster on c until the test ends.
func start(t *testing.T, c *cluster) (*kube.Poster, *bytes.Buffer) {
	t.Helper()
	client, err := kube.NewClient(kube.ClientOptions{Server: "https://api.test:6443", TokenFile: tokenFile(t), Transport: c})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	p := kube.NewPoster(kube.PosterOptions{
		Client: client, Instance: "mirror-0", Log: slog.New(slog.NewTextHandler(&log, nil)),
		Canonical: func(r oci.Ref) oci.Ref {
			if r.Host == "index.docker.test" {
				r.Host = "docker.io"
			}
			if rest, ok := strings.CutPrefix(r.Name, "docker.io/"); ok && r.Host == "mirror.test:5000" {
				r.Host, r.Name = "docker.io", rest
			}
			return r
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	synctest.Wait()
	c.set(func() { c.log, c.times = nil, nil }) // what it asks at its start
	return p, &log
}

func tokenFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// pass lets time pass, and waits until nothing moves.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func failure(image, client string) journal.Failure {
	return journal.Failure{
		Finding: diagnose.Finding{
			Reason: diagnose.TagNotFound, Class: diagnose.ClassMissing, Summary: "docker.io has no library/nginx:1.99",
			Remedy: "correct the tag",
		},
		ID: "7f3a0b1c", Image: image, Client: client, Outcome: journal.Failed,
	}
}

const missing = "docker.io/library/nginx:1.99"

func waiting(name, node, ip, image string) pod {
	return pod{
		namespace: "shop", name: name, node: node, hostIP: ip,
		containers: []box{{name: "web", image: image, waiting: "ImagePullBackOff"}},
	}
}
