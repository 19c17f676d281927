package kube_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/journal"
)

func TestEvent(t *testing.T) {
	t.Parallel()
	c := &cluster{pods: []pod{
		waiting("well", "node-a", "10.0.0.1", "docker.io/library/redis:7"),
		waiting("cart", "node-a", "10.0.0.1", "nginx:1.99"),
	}}
	under(t, c, func(t *testing.T, p *kube.Poster, _ *bytes.Buffer) {
		p.Failed(failure(missing, "10.0.0.1"))
		pass(5 * time.Second)
		got := slices.Collect(maps.Values(c.events))
		if len(got) != 1 {
			t.Fatalf("want one Event, got %v", got)
		}
		b, err := json.MarshalIndent(got[0], "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		want := `{
  "apiVersion": "v1",
  "count": 1,
  "firstTimestamp": "2000-01-01T00:00:02Z",
  "involvedObject": {
    "apiVersion": "v1",
    "fieldPath": "spec.containers{web}",
    "kind": "Pod",
    "name": "cart",
    "namespace": "shop",
    "uid": "uid-cart"
  },
  "kind": "Event",
  "lastTimestamp": "2000-01-01T00:00:02Z",
  "message": "Failed to pull image \"docker.io/library/nginx:1.99\": (mirror: docker.io has no library/nginx:1.99; correct the tag [7f3a0b1c])",
  "metadata": {
    "name": "cart.cb6174d8b9788294",
    "namespace": "shop"
  },
  "reason": "Failed",
  "reportingComponent": "mirror",
  "reportingInstance": "mirror-0",
  "source": {
    "component": "mirror",
    "host": "node-a"
  },
  "type": "Warning"
}`
		if diff := cmp.Diff(want, string(b)); diff != "" {
			t.Error(diff)
		}
		// mirror explain reads it, by the failure's id.
		r, err := symptom.Read(strings.NewReader(fmt.Sprintf(`{"kind":"List","items":[%s]}`, b)))
		if err != nil || len(r.Failures) != 1 || r.Failures[0].Reason != diagnose.TagNotFound || r.Failures[0].ID != "7f3a0b1c" {
			t.Errorf("mirror explain reads it as %+v, %v", r, err)
		}
	})
}

// TestWhoGetsAnEvent: each case names the pods that do.
func TestWhoGetsAnEvent(t *testing.T) {
	t.Parallel()
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	one := func(image string) []pod { return []pod{waiting("one", "node-a", "10.0.0.1", image)} }
	tests := []struct {
		name          string
		image, client string
		pods          []pod
		want          []string
	}{
		{"by its short name", missing, "10.0.0.1", one("nginx:1.99"), []string{"one"}},
		{"another tag", missing, "10.0.0.1", one("nginx:1.98"), nil},
		{"another repository", missing, "10.0.0.1", one("other/nginx:1.99"), nil},
		{"another registry", missing, "10.0.0.1", one("ghcr.io/library/nginx:1.99"), nil},
		{"by an alias of the registry", missing, "10.0.0.1", one("index.docker.test/library/nginx:1.99"), []string{"one"}},
		{"through the mirror's own name", missing, "10.0.0.1", one("mirror.test:5000/docker.io/library/nginx:1.99"), []string{"one"}},
		{"by digest", "docker.io/library/nginx@" + digest, "10.0.0.1", one("nginx:1.27@" + digest), []string{"one"}},
		{"by another digest", "docker.io/library/nginx@" + digest, "10.0.0.1", one("nginx:1.27@" + strings.Replace(digest, "e3b", "e3c", 1)), nil},
		{"a tag that is what failed, beside a digest", "docker.io/library/nginx@" + digest, "10.0.0.1", one("nginx:1.27"), nil},
		{"a name that is none", missing, "10.0.0.1", one("NGINX:::"), nil},
		{
			"pods of two nodes, by address", missing, "10.0.0.1",
			[]pod{waiting("one", "node-a", "10.0.0.1", "nginx:1.99"), waiting("two", "node-b", "10.0.0.2", "nginx:1.99")},
			[]string{"one"},
		},
		{
			"pods of two nodes, by name", missing, "node-b",
			[]pod{waiting("one", "node-a", "10.0.0.1", "nginx:1.99"), waiting("two", "node-b", "10.0.0.2", "nginx:1.99")},
			[]string{"two"},
		},
		{
			"an address that is not a node's", missing, "192.0.2.7",
			[]pod{waiting("one", "node-a", "10.0.0.1", "nginx:1.99"), waiting("two", "node-b", "10.0.0.2", "nginx:1.99"), waiting("three", "node-b", "10.0.0.2", "nginx:1")},
			[]string{"one", "two"},
		},
		{
			"a node's name that no pod is on", missing, "node-c",
			[]pod{waiting("one", "node-a", "10.0.0.1", "nginx:1.99")},
			nil,
		},
		{
			"a container that ran before, where the node's name is known", missing, "node-a",
			[]pod{{
				namespace: "shop", name: "one", node: "node-a", hostIP: "10.0.0.1", phase: "Running",
				containers: []box{{name: "web", image: "nginx:1.99", waiting: "ErrImagePull"}},
			}},
			[]string{"one"},
		},
		{
			"an init container, a debug container", missing, "10.0.0.1",
			[]pod{
				{
					namespace: "shop", name: "one", node: "node-a", hostIP: "10.0.0.1",
					containers: []box{{kind: "initContainers", name: "init", image: "nginx:1.99", waiting: "ErrImagePull"}, {name: "web", image: "a", waiting: "PodInitializing"}},
				},
				{
					namespace: "shop", name: "two", node: "node-a", hostIP: "10.0.0.1",
					containers: []box{{name: "web", image: "a"}, {kind: "ephemeralContainers", name: "debug", image: "nginx:1.99", waiting: "ImagePullBackOff"}},
				},
			},
			[]string{"one", "two"},
		},
		{
			"one that is only slow", missing, "10.0.0.1",
			[]pod{{
				namespace: "shop", name: "one", node: "node-a", hostIP: "10.0.0.1",
				containers: []box{{name: "web", image: "nginx:1.99", waiting: "ContainerCreating"}},
			}},
			nil,
		},
		{
			"one that runs", missing, "10.0.0.1",
			[]pod{{namespace: "shop", name: "one", node: "node-a", hostIP: "10.0.0.1", containers: []box{{name: "web", image: "nginx:1.99"}}}},
			nil,
		},
		{
			"two containers of a pod are one Event", missing, "10.0.0.1",
			[]pod{{
				namespace: "shop", name: "one", node: "node-a", hostIP: "10.0.0.1",
				containers: []box{{name: "web", image: "nginx:1.99", waiting: "ErrImagePull"}, {name: "side", image: "nginx:1.99", waiting: "ErrImagePull"}},
			}},
			[]string{"one"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{pods: tt.pods}
			under(t, c, func(t *testing.T, p *kube.Poster, _ *bytes.Buffer) {
				p.Failed(failure(tt.image, tt.client))
				pass(2 * time.Minute)
				var got []string
				for _, e := range c.events {
					got = append(got, e["involvedObject"].(map[string]any)["name"].(string))
				}
				slices.Sort(got)
				slices.Sort(tt.want)
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestLooks: a pod says that it waits some time after the pull failed, or never.
func TestLooks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		from   time.Duration // the pod waits from then on
		lists  int
		events int
	}{
		{"at once", 0, 1, 1},
		{"after 5 s", 5 * time.Second, 2, 1},
		{"after 15 s", 15 * time.Second, 3, 1},
		{"after 50 s", 50 * time.Second, 4, 1},
		{"never", time.Hour, 4, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{}
			under(t, c, func(t *testing.T, p *kube.Poster, _ *bytes.Buffer) {
				p.Failed(failure(missing, "10.0.0.1"))
				pass(tt.from)
				c.set(func() { c.pods = []pod{waiting("one", "node-a", "10.0.0.1", "nginx:1.99")} })
				pass(30 * time.Minute)
				if n := c.only("GET"); n != tt.lists {
					t.Errorf("asked for pods %d times, want %d: %v", n, tt.lists, c.times)
				}
				if n := c.only("POST"); n != tt.events {
					t.Errorf("%d Events, want %d", n, tt.events)
				}
			})
		})
	}
}

// TestSameAgain: a pull that fails again and again is one Event, whose count goes up every ten minutes.
func TestSameAgain(t *testing.T) {
	t.Parallel()
	c := &cluster{pods: []pod{waiting("one", "node-a", "10.0.0.1", "nginx:1.99")}}
	under(t, c, func(t *testing.T, p *kube.Poster, _ *bytes.Buffer) {
		for range 25 * 6 {
			p.Failed(failure(missing, "10.0.0.1"))
			p.Failed(failure(missing, "10.0.0.1"))
			pass(10 * time.Second)
		}
		if post, patch := c.only("POST"), c.only("PATCH"); post != 1 || patch != 2 {
			t.Errorf("in 25 minutes %d Events were made and %d changed, want 1 and 2", post, patch)
		}
		for _, e := range c.events {
			if e["count"] != 3.0 || e["firstTimestamp"] == e["lastTimestamp"] {
				t.Errorf("the Event is %v", e)
			}
		}
		if s := p.Stats(); s != (kube.Stats{Posted: 3}) {
			t.Errorf("counted as %+v", s)
		}
		// It expires on the server: the next change finds nothing, and the one after it makes it anew.
		c.set(func() { clear(c.events) })
		for range 3 {
			pass(11 * time.Minute)
			p.Failed(failure(missing, "10.0.0.1"))
		}
		pass(time.Minute)
		if len(c.events) != 1 || c.only("POST") != 2 {
			t.Errorf("after it had expired there are %d Events, of %d that were made", len(c.events), c.only("POST"))
		}
	})
}

// TestOtherMirror: two mirrors, or one before and after a restart, count on one Event.
func TestOtherMirror(t *testing.T) {
	t.Parallel()
	c := &cluster{pods: []pod{waiting("one", "node-a", "10.0.0.1", "nginx:1.99")}}
	under(t, c, func(t *testing.T, p *kube.Poster, _ *bytes.Buffer) {
		p.Failed(failure(missing, "10.0.0.1"))
		pass(5 * time.Second)
		c.set(func() {
			for _, e := range c.events {
				e["count"] = 41.0
			}
		})
		other, _ := start(t, c)
		other.Failed(failure(missing, "10.0.0.1"))
		pass(5 * time.Second)
		if len(c.events) != 1 {
			t.Fatalf("there are %d Events", len(c.events))
		}
		for _, e := range c.events {
			if e["count"] != 42.0 {
				t.Errorf("its count is %v, want 42", e["count"])
			}
		}
	})
}

// TestTrouble: what the API server may do to us, and what comes of it.
func TestTrouble(t *testing.T) {
	t.Parallel()
	lists := func(r *http.Request) bool { return r.Method == http.MethodGet }
	creates := func(r *http.Request) bool { return r.Method == http.MethodPost }
	tests := []struct {
		name   string
		which  func(*http.Request) bool
		status int
		body   string
		header http.Header
		says   string // part of the one warning
		atMost int    // requests in the ten minutes in which it is so
	}{
		{"no right to list pods", lists, 403, `{"kind":"Status","reason":"Forbidden","message":"pods is forbidden"}`, nil, "apply deploy/kubernetes/events.yaml", 11},
		{"token that is refused", lists, 401, `{"kind":"Status","reason":"Unauthorized"}`, nil, "kubernetes.tokenFile is refused", 11},
		{"server that fails", lists, 500, `oops`, nil, "see whether the API server can be reached", 61},
		{"server that limits", lists, 429, `{"reason":"TooManyRequests"}`, http.Header{"Retry-After": {"120"}}, "see whether the API server", 6},
		{"server that asks for a day of rest", lists, 429, ``, http.Header{"Retry-After": {"86400"}}, "see whether the API server", 3},
		{"server that isn't there", lists, 599, ``, nil, "see whether the API server can be reached", 61},
		{"another server", lists, 404, `<html>`, nil, "see that kubernetes.server is the API server", 11},
		{"answer that is not JSON", lists, 200, `<html>`, nil, "see whether the API server can be reached", 61},
		{"Events can't be made for a time", creates, 503, ``, nil, "see whether the API server", 2 * 61},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{pods: []pod{waiting("one", "node-a", "10.0.0.1", "nginx:1.99")}}
			c.fail = func(r *http.Request) (int, string, http.Header) {
				if tt.which(r) {
					return tt.status, tt.body, tt.header
				}
				return 0, "", nil
			}
			under(t, c, func(t *testing.T, p *kube.Poster, log *bytes.Buffer) {
				p.Failed(failure(missing, "10.0.0.1"))
				pass(10 * time.Minute)
				if n := c.all(); n == 0 || n > tt.atMost {
					t.Errorf("%d requests, want at most %d", n, tt.atMost)
				}
				if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), tt.says) {
					t.Errorf("the log says %d times, and not %q:\n%s", n, tt.says, log)
				}
				c.set(func() { c.fail = nil })
				pass(10 * time.Minute)
				if len(c.events) != 1 || !strings.Contains(log.String(), "posted again") {
					t.Errorf("once it is over: %d Events, and in the log\n%s", len(c.events), log)
				}
				if strings.Contains(log.String(), "sesame") {
					t.Error("the log has the token")
				}
			})
		})
	}
}

// TestNamespaceThatGoes: an Event that can't be posted on one pod delays no other.
func TestNamespaceThatGoes(t *testing.T) {
	t.Parallel()
	gone := waiting("aaa", "node-a", "10.0.0.1", "nginx:1.99")
	gone.namespace = "gone"
	c := &cluster{pods: []pod{gone, waiting("one", "node-a", "10.0.0.1", "nginx:1.99")}}
	c.fail = func(r *http.Request) (int, string, http.Header) {
		if strings.Contains(r.URL.Path, "/namespaces/gone/") {
			return 403, `{"reason":"Forbidden","message":"namespace gone is being terminated"}`, nil
		}
		return 0, "", nil
	}
	under(t, c, func(t *testing.T, p *kube.Poster, _ *bytes.Buffer) {
		p.Failed(failure(missing, "10.0.0.1"))
		pass(time.Minute)
		if len(c.events) != 1 || p.Stats() != (kube.Stats{Posted: 1, Errors: 1}) {
			t.Errorf("%d Events, %+v", len(c.events), p.Stats())
		}
		if n := c.only("POST"); n != 2 {
			t.Errorf("%d tries, want 2", n)
		}
	})
}

// TestFlood: a broken deployment costs five requests a second and a bounded queue, whatever it does.
func TestFlood(t *testing.T) {
	t.Parallel()
	c := &cluster{}
	for i := range 300 {
		c.pods = append(c.pods, waiting(fmt.Sprintf("pod-%d", i), "node-a", "10.0.0.1", fmt.Sprintf("app%d:1", i)))
	}
	under(t, c, func(t *testing.T, p *kube.Poster, _ *bytes.Buffer) {
		for i := range 10_000 {
			f := failure(fmt.Sprintf("docker.io/library/app%d:1", i), "10.0.0.1")
			f.ID = fmt.Sprintf("%08x", i)
			p.Failed(f)
		}
		if s := p.Stats(); s.Dropped != 9_000 {
			t.Errorf("%d dropped, want 9,000", s.Dropped)
		}
		start := c.all()
		pass(time.Minute)
		if n := c.all() - start; n > 5*60+10 {
			t.Errorf("%d requests in a minute", n)
		}
		pass(10 * time.Minute)
		if len(c.events) != 300 {
			t.Errorf("%d Events, want 300", len(c.events))
		}
	})
}

func TestWhatIsNoPodsFailure(t *testing.T) {
	t.Parallel()
	left := failure(missing, "10.0.0.1")
	left.Reason = diagnose.ClientGone
	c := &cluster{pods: []pod{waiting("one", "node-a", "10.0.0.1", "nginx:1.99")}}
	under(t, c, func(t *testing.T, p *kube.Poster, _ *bytes.Buffer) {
		for _, f := range []journal.Failure{left, failure("", "10.0.0.1"), failure("no image!", "10.0.0.1")} {
			p.Failed(f)
		}
		pass(5 * time.Minute)
		if n := c.all(); n != 0 {
			t.Errorf("%d requests, want none", n)
		}
	})
}

// TestLongNames: names and texts at their limits stay what the API server takes.
func TestLongNames(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("a", 235) + ".-" + strings.Repeat("b", 16)
	c := &cluster{pods: []pod{waiting(name, "node-a", "10.0.0.1", "nginx:1.99")}}
	under(t, c, func(t *testing.T, p *kube.Poster, _ *bytes.Buffer) {
		f := failure(missing, "10.0.0.1")
		f.Summary = strings.Repeat("größer ", 400)
		p.Failed(f)
		pass(time.Minute)
		if len(c.events) != 1 {
			t.Fatal("no Event")
		}
		for key, e := range c.events {
			_, name, _ := strings.Cut(key, "/")
			text := e["message"].(string)
			if len(name) > 253 || strings.Contains(name, "..") || strings.Contains(name, "-.") || url.PathEscape(name) != name {
				t.Errorf("name %q of %d bytes", name, len(name))
			}
			if len(text) > 1024 || !utf8.ValidString(text) || !strings.HasSuffix(text, " [7f3a0b1c])") {
				t.Errorf("text of %d bytes: %q", len(text), text)
			}
		}
	})
}
