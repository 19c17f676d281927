package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/coverage"
)

// replica answers as a mirror does that has served some images of a node, and knows of another replica.
func replica(t *testing.T, through string) string {
	t.Helper()
	at := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	n := coverage.NodeReport{Node: "node-7", Since: at, LastSeen: at, Reason: "unknown: 1 may have come through another replica", Clients: []string{"10.0.0.7"}}
	for _, image := range []string{"docker.io/acme/a:1", "docker.io/acme/b:1", "docker.io/acme/c:1"} {
		i := coverage.ImageReport{Image: image, State: coverage.Unknown, Why: coverage.WhyReplica, Pods: []string{"prod/web"}, PulledAt: at.Add(time.Hour)}
		if strings.Contains(image, through) {
			i.State, i.Why = coverage.Through, ""
			n.Images, n.Through = n.Images+1, n.Through+1
		} else {
			n.Unknown++
		}
		n.Details = append(n.Details, i)
	}
	list := admin.CoverageList{Report: coverage.Report{
		Nodes: []coverage.NodeReport{n}, Since: at, Replicas: 2, Summary: coverage.Summary{Nodes: 1, Images: 1, Through: 1, Unknown: 2}, Notes: []string{"1 of 2"},
	}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/coverage" {
			t.Errorf("path %s", r.URL)
		}
		_ = json.NewEncoder(w).Encode(list)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestCoverageCommand(t *testing.T) {
	t.Parallel()
	a, b := replica(t, "/a:"), replica(t, "/b:")
	code, stdout, stderr := commandLine(t, "coverage", "--admin", a, "--node", "node-7")
	for _, want := range []string{"node-7  1       1        2", "node-7, seen as 10.0.0.7", "docker.io/acme/b:1  unknown  replica", "Note: 1 of 2"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, _, _ := commandLine(t, "coverage", "--admin", a, "--fail"); code != 0 {
		t.Errorf("what is unknown fails: %d", code)
	}
	code, stdout, stderr = commandLine(t, "coverage", "--admin", a, "--replica", b, "--fail", "-o", "json")
	var got admin.CoverageList
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if s := (coverage.Summary{Nodes: 1, Images: 3, Through: 2, Missed: 1}); got.Summary != s || code != 1 || !strings.Contains(stderr, "1 image came past the mirror") {
		t.Errorf("%+v, exit code %d: %s", got.Summary, code, stderr)
	}
	if n := got.Nodes[0]; fmt.Sprint(n.Images, n.Through, n.Unknown) != "3 2 0" || n.Details != nil || len(got.Notes) != 0 {
		t.Errorf("%+v", got)
	}
	empty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"nodes":[],"notes":["pods were not read"]}`))
	}))
	defer empty.Close()
	if code, _, stderr := commandLine(t, "coverage", "--admin", empty.URL, "--fail"); code != 1 || !strings.Contains(stderr, "no node was compared: pods were not read") {
		t.Errorf("without nodes: exit code %d: %s", code, stderr)
	}
	if code, _, _ := commandLine(t, "coverage", "--admin", a, "--replica", "http://127.0.0.1:1"); code != 4 {
		t.Errorf("a replica that is not there: %d", code)
	}
}

// The token of the configuration is sent to all replicas.
func TestCoverageOfReplicasWithAToken(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef0123456789abcdef"
	var asked atomic.Int32
	guarded := func() *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+token {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			asked.Add(1)
			_, _ = w.Write([]byte(`{"nodes":[]}`))
		}))
		t.Cleanup(s.Close)
		return s
	}
	a, b := guarded(), guarded()
	path := configFile(t, "admin: {listen: '"+a.Listener.Addr().String()+"', tokenFile: "+textFile(t, "token", token+"\n")+"}\n")
	code, _, stderr := commandLine(t, "coverage", "--config", path, "--replica", b.URL)
	if code != 0 || asked.Load() != 2 {
		t.Errorf("exit code %d, %d were asked: %s", code, asked.Load(), stderr)
	}
}
