package kube_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/internal/testlog"
)

const podsPath = "/api/v1/pods"

// step is a piece of a watch.
type step struct {
	wait time.Duration // before it
	text string
}

// answer is one of a server to a list or a watch.
type answer struct {
	status int // 0: 200
	header http.Header
	body   string // of a list
	steps  []step // of a watch
	end    string // of a watch: "" when its time is over, "close", "cut", or "never"
	refuse bool   // the connection
	holds  bool   // the headers of a watch until its first event, as some proxies do
}

// server answers lists and watches as an API server does. It is an http.RoundTripper.
type server struct {
	mu       sync.Mutex
	lists    map[string][]answer // by path: the next ones; the last one is repeated
	watches  map[string][]answer
	requests []request
	read     int64 // bytes of watches that were read
	open     int   // watches that have not ended
}

type request struct {
	path  string
	query url.Values
	at    time.Time
}

func newServer() *server {
	return &server{lists: make(map[string][]answer), watches: make(map[string][]answer)}
}

// next takes the next answer.
func next(list map[string][]answer, path string) (a answer) {
	if len(list[path]) > 0 {
		a = list[path][0]
		if len(list[path]) > 1 {
			list[path] = list[path][1:]
		}
	}
	return a
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	query := r.URL.Query()
	s.requests = append(s.requests, request{r.URL.Path, query, time.Now()})
	watch := query.Get("watch") != ""
	a := answer{body: `{"metadata":{"resourceVersion":"10"},"items":[]}`}
	if watch {
		a = next(s.watches, r.URL.Path)
	} else if len(s.lists[r.URL.Path]) > 0 {
		a = next(s.lists, r.URL.Path)
	}
	if a.refuse {
		return nil, errors.New("connection refused")
	}
	resp := &http.Response{StatusCode: max(a.status, 200), Header: a.header, Request: r}
	if !watch || a.status != 0 {
		resp.Body = io.NopCloser(strings.NewReader(a.body))
		return resp, nil
	}
	seconds, _ := strconv.Atoi(query.Get("timeoutSeconds"))
	if a.holds {
		s.mu.Unlock()
		defer s.mu.Lock()
		if len(a.steps) == 0 {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		time.Sleep(a.steps[0].wait)
		a.steps[0].wait = 0
	}
	reader, writer := io.Pipe()
	context.AfterFunc(r.Context(), func() { writer.CloseWithError(r.Context().Err()) })
	go func() {
		began := time.Now()
		s.set(func() { s.open++ })
		for _, x := range a.steps {
			time.Sleep(x.wait)
			n, err := io.WriteString(writer, x.text)
			s.mu.Lock()
			s.read += int64(n)
			s.mu.Unlock()
			if err != nil {
				break
			}
		}
		switch a.end {
		case "":
			select {
			case <-r.Context().Done():
			case <-time.After(time.Duration(seconds)*time.Second - time.Since(began)):
			}
		case "never":
			<-r.Context().Done()
		case "cut":
			writer.CloseWithError(io.ErrUnexpectedEOF)
		}
		writer.Close()
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	}()
	resp.Body = reader
	return resp, nil
}

// asked are the requests for a path: "list" or "watch VERSION".
func (s *server) asked(path string) (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.path != path {
			continue
		}
		what := "list"
		if r.query.Get("watch") != "" {
			what = "watch " + r.query.Get("resourceVersion")
		} else if r.query.Get("continue") != "" {
			what += " " + r.query.Get("continue")
		}
		list = append(list, what)
	}
	return list
}

func (s *server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// podJSON is a pod as a server has it, with what we do not read.
func podJSON(namespace, name, version string, images ...string) string {
	var boxes []string
	for i, image := range images {
		boxes = append(boxes, fmt.Sprintf(`{"name":"c%d","image":%q,"resources":{"limits":{"cpu":"1"}}}`, i, image))
	}
	return fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":%q,"namespace":%q,"uid":"u","resourceVersion":%q,"managedFields":[{"manager":"kubelet"}]},`+
		`"spec":{"volumes":[{"name":"v","projected":{"sources":[]}}],"containers":[%s]},"status":{"phase":"Running"}}`, name, namespace, version, strings.Join(boxes, ","))
}

func event(kind, object string) string {
	return fmt.Sprintf(`{"type":%q,"object":%s}`+"\n", kind, object)
}

func listJSON(version, next string, items ...string) string {
	return fmt.Sprintf(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":%q,"continue":%q,"remainingItemCount":7},"items":[%s]}`,
		version, next, strings.Join(items, ","))
}

func bookmark(version string) string {
	return event("BOOKMARK", fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":%q,"creationTimestamp":null},"spec":{"containers":null},"status":{}}`, version))
}

func statusJSON(code int, reason, message string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":%q,"reason":%q,"code":%d}`, message, reason, code)
}

// sink keeps what it is told, by "Kind NAMESPACE/NAME".
type sink struct {
	mu     sync.Mutex
	all    map[string][]string
	listed map[string]bool // since Listing; nil: it is not listing
	calls  int
}

func (s *sink) Put(kind, object string, images []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.all[kind+" "+object] = images
	if kind == "Pod" && s.listed != nil {
		s.listed[kind+" "+object] = true
	}
}

func (s *sink) Delete(kind, object string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, kind+" "+object)
}

func (s *sink) Listing(kind string) {
	if kind == "Pod" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.listed = make(map[string]bool)
	}
}

func (s *sink) Listed(kind string) {
	if kind != "Pod" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.all {
		if strings.HasPrefix(key, "Pod ") && !s.listed[key] {
			delete(s.all, key)
		}
	}
	s.listed = nil
}

func (s *sink) has(t *testing.T, want map[string][]string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.all); diff != "" {
		t.Error(diff)
	}
}

// following runs a Follower on a server in a bubble of time.
func following(t *testing.T, s *server, test func(t *testing.T, k *sink, f *kube.Follower, log *testlog.Log)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client, err := kube.NewClient(kube.ClientOptions{Server: "https://api.test:6443", TokenFile: tokenFile(t), Transport: s})
		if err != nil {
			t.Fatal(err)
		}
		var log testlog.Log
		k := &sink{all: make(map[string][]string)}
		f := kube.NewFollower(kube.FollowerOptions{
			Client: client, Sink: k, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Namespace: func(name string) bool { return name != "kube-system" },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		synctest.Wait()
		test(t, k, f, &log)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		synctest.Wait()
		s.set(func() {
			if s.open != 0 {
				t.Errorf("%d watches are still open", s.open)
			}
		})
	})
}

// TestFollow: a list in pages, then its changes, and the next watch from where the last one ended.
func TestFollow(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.lists[podsPath] = []answer{
		{body: listJSON("100", "more", podJSON("prod", "a", "7", "nginx:1"), podJSON("kube-system", "dns", "8", "coredns:1"))},
		{body: listJSON("100", "", podJSON("prod", "b", "9", "redis:7", "busybox"))},
	}
	s.lists["/apis/batch/v1/cronjobs"] = []answer{{body: `{"metadata":{"resourceVersion":"50"},"items":[{"metadata":{"namespace":"prod","name":"night"},
		"spec":{"schedule":"0 5 * * *","jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"backup:1"}],
		"volumes":[{"name":"m","image":{"reference":"ghcr.io/acme/model:1","pullPolicy":"Always"}},{"name":"e","emptyDir":{}}]}}}}}}]}`}}
	s.watches[podsPath] = []answer{
		{steps: []step{
			{10 * time.Second, event("ADDED", podJSON("prod", "c", "101", "web:1")) + event("MODIFIED", podJSON("prod", "a", "102", "nginx:2"))},
			{10 * time.Second, event("DELETED", podJSON("prod", "b", "103", "redis:7"))},
			{10 * time.Second, event("ADDED", podJSON("kube-system", "proxy", "104", "proxy:1")) + event("NEWER", podJSON("prod", "x", "105", "x:1"))},
			{10 * time.Second, bookmark("150")},
		}},
		{},
	}
	following(t, s, func(t *testing.T, k *sink, f *kube.Follower, log *testlog.Log) {
		night := []string{"backup:1", "ghcr.io/acme/model:1"}
		k.has(t, map[string][]string{"Pod prod/a": {"nginx:1"}, "Pod prod/b": {"redis:7", "busybox"}, "CronJob prod/night": night})
		pass(time.Minute)
		k.has(t, map[string][]string{"Pod prod/a": {"nginx:2"}, "Pod prod/c": {"web:1"}, "CronJob prod/night": night})
		pass(11 * time.Minute)
		if diff := cmp.Diff([]string{"list", "list more", "watch 100", "watch 150"}, s.asked(podsPath)[:4]); diff != "" {
			t.Error(diff)
		}
		for _, r := range s.requests {
			seconds, _ := strconv.Atoi(r.query.Get("timeoutSeconds"))
			switch {
			case r.path == podsPath && r.query.Get("fieldSelector") != "status.phase!=Succeeded,status.phase!=Failed":
				t.Errorf("the selector of pods is %q", r.query.Get("fieldSelector"))
			case r.path != podsPath && r.query.Has("fieldSelector"):
				t.Errorf("workloads are selected by %q", r.query.Get("fieldSelector"))
			case r.query.Get("watch") == "" && r.query.Get("limit") != "500":
				t.Errorf("a page has %q", r.query.Get("limit"))
			case r.query.Get("watch") != "" && (seconds < 300 || seconds > 600 || r.query.Get("allowWatchBookmarks") != "true"):
				t.Errorf("a watch is asked for by %v", r.query)
			}
		}
		if st := f.Stats(); st.Lists != 5 || st.Errors != 0 || log.String() != "" {
			t.Errorf("%+v, and the log says\n%s", st, log)
		}
	})
}

// TestFollowTrouble: what a server may do, the requests for pods that come of it, and whether the log tells it.
func TestFollowTrouble(t *testing.T) {
	t.Parallel()
	one, two := podJSON("prod", "a", "90", "nginx:1"), podJSON("prod", "b", "190", "redis:7")
	first, second := answer{body: listJSON("100", "", one)}, answer{body: listJSON("200", "", two)}
	onlyOne, onlyTwo := map[string][]string{"Pod prod/a": {"nginx:1"}}, map[string][]string{"Pod prod/b": {"redis:7"}}
	both := map[string][]string{"Pod prod/a": {"nginx:1"}, "Pod prod/b": {"redis:7"}}
	fails := func(code int, reason, message string, header http.Header) answer {
		return answer{status: code, body: statusJSON(code, reason, message), header: header}
	}
	sends := func(texts ...string) answer {
		a := answer{end: "close"}
		for _, x := range texts {
			a.steps = append(a.steps, step{2 * time.Second, x})
		}
		return a
	}
	cut := func(a answer) answer { a.end = "cut"; return a }
	after := func(seconds string) http.Header { return http.Header{"Retry-After": {seconds}} }
	tests := []struct {
		name           string
		lists, watches []answer      // of pods; the last watch lasts
		pass           time.Duration // zero: until the server was asked for all of asked
		want           map[string][]string
		asked          []string
		errors         int64
		says           string // part of the one warning; empty: there is none
	}{
		{
			"too old, as an event",
			[]answer{first, second},
			[]answer{sends(event("ERROR", statusJSON(410, "Expired", "too old resource version: 100 (180)"))), {}},
			time.Minute, onlyTwo,
			[]string{"list", "watch 100", "list", "watch 200"},
			0, "",
		},
		{
			"too old, as an event of an old server",
			[]answer{first, second},
			[]answer{sends(event("ERROR", statusJSON(410, "Gone", "The resourceVersion for the provided watch is too old."))), {}},
			time.Minute, onlyTwo,
			[]string{"list", "watch 100", "list", "watch 200"},
			0, "",
		},
		{
			"too old, as a status",
			[]answer{first, second},
			[]answer{fails(410, "Expired", "The resourceVersion for the provided watch is too old.", nil), {}},
			time.Minute, onlyTwo,
			[]string{"list", "watch 100", "list", "watch 200"},
			0, "",
		},
		{
			"too new, after a server was restored",
			[]answer{first, second},
			[]answer{sends(event("ERROR", `{"kind":"Status","status":"Failure","message":"Too large resource version: 100, current: 50","reason":"Timeout",`+
				`"details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}`)), {}},
			time.Minute, onlyTwo,
			[]string{"list", "watch 100", "list", "watch 200"},
			1, "",
		},
		{
			"too many requests, as an event",
			[]answer{first, second},
			[]answer{sends(event("ERROR", statusJSON(429, "TooManyRequests", "slow down"))), {}},
			time.Minute, onlyOne,
			[]string{"list", "watch 100", "watch 100"},
			1, "",
		},
		{
			"a connection that is cut in the middle of an object",
			[]answer{first, second},
			[]answer{cut(sends(event("ADDED", podJSON("prod", "b", "101", "redis:7")), event("MODIFIED", podJSON("prod", "a", "102", "nginx:2"))[:90])), {}},
			time.Minute, both,
			[]string{"list", "watch 100", "watch 101"},
			1, "",
		},
		{
			"a stream that ends in the middle of an object",
			[]answer{first, second},
			[]answer{sends(event("ADDED", two)[:90]), {}},
			time.Minute, onlyOne,
			[]string{"list", "watch 100", "watch 100"},
			1, "",
		},
		{
			"a watch that may not be yet",
			[]answer{first, second},
			[]answer{fails(429, "TooManyRequests", "storage is (re)initializing", after("30")), {}},
			time.Minute, onlyOne,
			[]string{"list", "watch 100", "watch 100"},
			1, "",
		},
		{
			"a list that may not be yet",
			[]answer{fails(429, "TooManyRequests", "", after("40")), second},
			[]answer{{}},
			39 * time.Second,
			map[string][]string{},
			[]string{"list"},
			1, "",
		},
		{
			"a pause of a day",
			[]answer{fails(429, "TooManyRequests", "", after("86400")), second},
			[]answer{{}},
			301 * time.Second, onlyTwo,
			[]string{"list", "list", "watch 200"},
			1, "",
		},
		{
			"a page that expires",
			[]answer{
				{body: listJSON("100", "p2", one)}, fails(410, "Expired", "The provided continue parameter is too old to display a consistent list result.", nil), second,
			},
			[]answer{{}},
			time.Minute, onlyTwo,
			[]string{"list", "list p2", "list", "watch 200"},
			0, "",
		},
		{
			"a server that is restarted",
			[]answer{first, second},
			[]answer{cut(sends(bookmark("150"))), {refuse: true}, {refuse: true}, {}},
			time.Minute, onlyOne,
			[]string{"list", "watch 100", "watch 150", "watch 150", "watch 150"},
			3, "see whether the API server can be reached",
		},
		{
			"something else in the stream",
			[]answer{first, second},
			[]answer{sends("<html>\n"), {}},
			time.Minute, onlyTwo,
			[]string{"list", "watch 100", "list", "watch 200"},
			1, "",
		},
		{
			"an object of another form",
			[]answer{first, second},
			[]answer{sends(event("ADDED", `{"metadata":{"name":5}}`)), {}},
			time.Minute, onlyTwo,
			[]string{"list", "watch 100", "list", "watch 200"},
			1, "",
		},
		{
			"no right to list",
			[]answer{fails(403, "Forbidden", `pods is forbidden: User "system:serviceaccount:mirror:mirror" cannot list resource "pods"`, nil), second},
			[]answer{{}},
			59 * time.Second,
			map[string][]string{},
			[]string{"list"},
			1, "list and watch pods in all namespaces: apply deploy/kubernetes/feed.yaml",
		},
		{
			"no right to watch",
			[]answer{first, second},
			[]answer{fails(403, "Forbidden", `cannot watch resource "pods"`, nil), {}},
			70 * time.Second, onlyTwo,
			[]string{"list", "watch 100", "list", "watch 200"},
			1, "list and watch pods in all namespaces",
		},
		{
			"a token that has expired",
			[]answer{fails(401, "Unauthorized", "Unauthorized", nil), second},
			[]answer{{}},
			time.Minute, onlyTwo,
			[]string{"list", "list", "watch 200"},
			1, "kubernetes.tokenFile is refused",
		},
		{
			"another server",
			[]answer{{status: 404, body: "<html>"}, second},
			[]answer{{}},
			61 * time.Second, onlyTwo,
			[]string{"list", "list", "watch 200"},
			1, "see that kubernetes.server is the API server",
		},
		{
			"a list without a version",
			[]answer{{body: `{"items":[]}`}, second},
			[]answer{{}},
			time.Minute, onlyTwo,
			[]string{"list", "list", "watch 200"},
			1, "",
		},
		{
			"a watch without headers",
			[]answer{first, second},
			[]answer{{holds: true}, {}},
			0, onlyTwo,
			[]string{"list", "watch 100", "list", "watch 200"},
			1, "",
		},
		{
			"headers that come with the first event",
			[]answer{first, second},
			[]answer{{holds: true, end: "close", steps: []step{{time.Minute, event("ADDED", podJSON("prod", "b", "101", "redis:7"))}}}, {}},
			2 * time.Minute, both,
			[]string{"list", "watch 100", "watch 101"},
			0, "",
		},
		{
			"a watch without an end or an event",
			[]answer{first, second},
			[]answer{{end: "never"}, {}},
			0, onlyTwo,
			[]string{"list", "watch 100", "list", "watch 200"},
			1, "",
		},
		{
			"a watch without an end",
			[]answer{first, second},
			[]answer{{end: "never", steps: []step{{time.Minute, bookmark("140")}}}, {}},
			0, onlyOne,
			[]string{"list", "watch 100", "watch 140"},
			0, "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			s.lists[podsPath], s.watches[podsPath] = slices.Clone(tt.lists), slices.Clone(tt.watches)
			following(t, s, func(t *testing.T, k *sink, f *kube.Follower, log *testlog.Log) {
				pass(tt.pass)
				for range 11 * 60 { // how long a watch lasts is random
					if tt.pass > 0 || len(s.asked(podsPath)) >= len(tt.asked) {
						break
					}
					pass(time.Second)
				}
				k.has(t, tt.want)
				if diff := cmp.Diff(tt.asked, s.asked(podsPath)); diff != "" {
					t.Error(diff)
				}
				if st := f.Stats(); st.Errors != tt.errors {
					t.Errorf("%d errors are counted, want %d", st.Errors, tt.errors)
				}
				warnings := strings.Count(log.String(), "level=WARN")
				if tt.says == "" && warnings != 0 || tt.says != "" && (warnings != 1 || !strings.Contains(log.String(), tt.says)) {
					t.Errorf("want %q once in the log:\n%s", tt.says, log)
				}
				pass(11 * time.Minute)
				if tt.says != "" && !strings.Contains(log.String(), "are read again") {
					t.Errorf("the log does not say that it is over:\n%s", log)
				}
			})
		})
	}
}

// TestFollowKeepsAway: whatever a server does for an hour, it is not asked without a pause.
func TestFollowKeepsAway(t *testing.T) {
	t.Parallel()
	list := answer{body: listJSON("100", "", podJSON("prod", "a", "90", "nginx:1"))}
	gone := answer{status: 410, body: statusJSON(410, "Expired", "too old")}
	tests := []struct {
		name        string
		list, watch answer
		most        int // requests for pods in the hour
	}{
		{"watches that end at once", list, answer{end: "close"}, 110},
		{"watches that are too old at once", list, gone, 110},
		{"watches that are cut", list, answer{end: "cut", steps: []step{{0, bookmark("101")}}}, 110},
		{"a server that is not there", answer{refuse: true}, answer{}, 90},
		{"a server that fails", answer{status: 500, body: "oops"}, answer{}, 90},
		{"no rights", answer{status: 403, body: statusJSON(403, "Forbidden", "no")}, answer{}, 61},
		{"a list without an end", answer{body: listJSON("100", "more", podJSON("prod", "a", "90", "nginx:1"))}, answer{}, 40_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			s.lists[podsPath], s.watches[podsPath] = []answer{tt.list}, []answer{tt.watch}
			following(t, s, func(t *testing.T, _ *sink, _ *kube.Follower, log *testlog.Log) {
				pass(time.Hour)
				if n := len(s.asked(podsPath)); n > tt.most || n < 5 {
					t.Errorf("%d requests, want at most %d", n, tt.most)
				}
				if n := strings.Count(log.String(), "\n"); n > 1 {
					t.Errorf("%d lines in the log:\n%s", n, log)
				}
			})
		})
	}
}

// TestFollowLargeObject: an event without an end costs its bound, and the list is read instead.
func TestFollowLargeObject(t *testing.T) {
	t.Parallel()
	const piece = 1 << 20
	s := newServer()
	s.lists[podsPath] = []answer{{body: listJSON("100", "")}, {body: listJSON("200", "", podJSON("prod", "b", "190", "redis:7"))}}
	huge := answer{steps: []step{{time.Second, `{"type":"ADDED","object":{"metadata":{"annotations":{"a":"`}}}
	for range 64 {
		huge.steps = append(huge.steps, step{0, strings.Repeat("x", piece)})
	}
	s.watches[podsPath] = []answer{huge, {}}
	following(t, s, func(t *testing.T, k *sink, f *kube.Follower, _ *testlog.Log) {
		pass(time.Minute)
		k.has(t, map[string][]string{"Pod prod/b": {"redis:7"}})
		if s.read > 9*piece || f.Stats().Errors != 1 {
			t.Errorf("%d bytes were read, %+v", s.read, f.Stats())
		}
		if diff := cmp.Diff([]string{"list", "watch 100", "list", "watch 200"}, s.asked(podsPath)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestFollowBusy: the bound is for one event, not for a watch.
func TestFollowBusy(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.lists[podsPath] = []answer{{body: listJSON("100", "")}}
	busy := answer{}
	padding := strings.Repeat("x", 1<<20)
	for i := range 40 {
		busy.steps = append(busy.steps, step{time.Second, event("MODIFIED", podJSON("prod", "a", fmt.Sprint(101+i), fmt.Sprint("app:", i), padding))})
	}
	s.watches[podsPath] = []answer{busy}
	following(t, s, func(t *testing.T, k *sink, _ *kube.Follower, _ *testlog.Log) {
		pass(time.Minute)
		if got := k.all["Pod prod/a"]; len(got) != 2 || got[0] != "app:39" {
			t.Errorf("%d images", len(got))
		}
		if diff := cmp.Diff([]string{"list", "watch 100"}, s.asked(podsPath)); diff != "" {
			t.Error(diff)
		}
	})
}
