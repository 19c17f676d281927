package main

import (
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
)

// fixed is a record with the same answer to every filter, except for an unknown ID or client.
type fixed struct {
	mu    sync.Mutex
	list  []journal.Failure
	asked journal.Filter
}

func (f *fixed) Failures(q journal.Filter) []journal.Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = q
	if q.ID == "00000000" || q.Client == "node-99" {
		return nil
	}
	return f.list
}

func (f *fixed) Summary(journal.Filter) journal.Summary {
	return journal.Summary{
		Classes: map[string]int64{"auth": 3, "missing": 41}, Images: map[string]int64{"": 2},
		Clients: map[string]int64{"node-1": 3, "10.0.0.7": 2, "fd00::1": 1},
	}
}

func failuresOf(t *testing.T) (*fixed, string) {
	t.Helper()
	now := time.Now()
	f := &fixed{list: []journal.Failure{
		{
			Finding: diagnose.Finding{
				Reason: "credentials-expired", Class: "auth", Summary: "docker.io says that hub has expired", Remedy: "renew hub",
				Evidence: []string{"token auth.docker.io: status 401"}, Upstream: "docker.io", Host: "auth.docker.io", Stage: "token",
				Status: 401,
			},
			ID: "7f3a9c2e", Image: "docker.io/acme/app:v1", Outcome: journal.Failed, Client: "node-1", UserAgent: "containerd/2.1",
			Clients: map[string]int64{"node-1": 2, "node-2": 1}, Count: 3,
			FirstSeen: now.Add(-time.Hour), LastSeen: now.Add(-time.Minute),
		},
		{
			Finding: diagnose.Finding{
				Reason: "overloaded", Class: "mirror", Summary: "the mirror has as many connections as it may have",
				Remedy: "pull again in a moment",
			},
			ID: "1b2c3d4e", Outcome: journal.Failed, Client: "10.0.0.7", Count: 1,
			Clients:   map[string]int64{"10.0.0.7": 1},
			FirstSeen: now.Add(-2 * time.Minute), LastSeen: now.Add(-2 * time.Minute),
		},
	}}
	s := httptest.NewServer(admin.New(admin.Options{Loopback: true, Failures: f}))
	t.Cleanup(s.Close)
	return f, s.URL
}

func TestFailuresTable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testFailuresTable)
}

// testFailuresTable reads ages, so its clock stands still while the machine works.
func testFailuresTable(t *testing.T) {
	f, where := failuresOf(t)
	code, out, errs := commandLine(t, "failures", "--admin", where, "--since", "2h", "--declined", "--class", "auth")
	want := `ID        REASON               IMAGE                  PULLS  LAST SEEN  CLIENT
7f3a9c2e  credentials-expired  docker.io/acme/app:v1  3      1m0s ago   node-1 and 1 more
  docker.io says that hub has expired
  > renew hub
1b2c3d4e  overloaded           -                      1      2m0s ago   10.0.0.7
  the mirror has as many connections as it may have
  > pull again in a moment
`
	if diff := cmp.Diff(want, out); code != 0 || errs != "" || diff != "" {
		t.Errorf("%d %s\n%s", code, errs, diff)
	}
	if f.asked.Class != "auth" || !f.asked.Declined || time.Since(f.asked.Since) < 2*time.Hour {
		t.Errorf("asked for %+v", f.asked)
	}
	_, out, _ = commandLine(t, "failures", "--admin", where, "-o", "wide")
	if !strings.Contains(out, "auth.docker.io  failed   1h0m0s ago\n") {
		t.Errorf("wide:\n%s", out)
	}
	_, out, _ = commandLine(t, "failures", "--admin", where, "-o", "json")
	if !strings.HasPrefix(out, `{"failures":[{"id":"7f3a9c2e",`) {
		t.Errorf("json:\n%s", out)
	}
	_, out, _ = commandLine(t, "failures", "--admin", where, "--client", "node-99")
	if out != "No pull has failed that matches.\n" {
		t.Errorf("none:\n%s", out)
	}
}

func TestFailuresBy(t *testing.T) {
	t.Parallel()
	_, where := failuresOf(t)
	for by, want := range map[string]string{
		"class": "CLASS    PULLS\nmissing  41\nauth     3\ntotal    44\n",
		"image": "IMAGE  PULLS\n-      2\ntotal  2\n",
		"client": "CLIENT                    PULLS\nnode-1                    3\n10.0.0.7, perhaps shared  2\nfd00::1, perhaps shared   1\n" +
			"total                     6\n",
	} {
		code, out, errs := commandLine(t, "failures", "--admin", where, "--by", by)
		if diff := cmp.Diff(want, out); code != 0 || diff != "" {
			t.Errorf("--by %s: %d %s\n%s", by, code, errs, diff)
		}
	}
}

func TestOneFailure(t *testing.T) {
	t.Parallel()
	f, where := failuresOf(t)
	f.list = f.list[:1]
	f.list[0].Clients["10.0.0.9"] = 1
	code, out, errs := commandLine(t, "failures", "--admin", where, "[7f3a9c2e]")
	if code != 0 || f.asked.ID != "7f3a9c2e" || !f.asked.Declined {
		t.Errorf("%d %s, asked for %+v", code, errs, f.asked)
	}
	for _, line := range []string{
		"docker.io says that hub has expired.\nrenew hub.\n\n", "reason    credentials-expired (auth)\n",
		"client    node-1 (2)\nclient    10.0.0.9, perhaps shared (1)\nclient    node-2 (1)\n", "evidence  token auth.docker.io: status 401\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	code, _, errs = commandLine(t, "failures", "--admin", where, "00000000")
	if code != exitFailed || !strings.Contains(errs, "knows no failure 00000000") {
		t.Errorf("unknown: %d %s", code, errs)
	}
}

func TestFailuresUsage(t *testing.T) {
	t.Parallel()
	_, where := failuresOf(t)
	for args, says := range map[string]string{
		"--by node":              "--by node: must be class, reason, image or client",
		"-o xml":                 "-o xml: must be json, yaml or wide",
		"--class autth":          `did you mean "auth"`,
		"--class foo":            "--class foo: must be auth, client, limit, mirror, missing, network, tls, undecided, unknown or upstream",
		"--reason tag-not-foun":  `did you mean "tag-not-found"`,
		"--since 1x":             "as in 1h30m or 7d",
		"--since -1h":            "as in 1h30m or 7d",
		"--watch --by class":     "--watch can't be combined with --by",
		"--limit 0":              "from 1 to 1000",
		"a b":                    "takes one ID",
		"--watch --since never":  "a duration, as in 1h30m",
		"--since never --by now": "--by now: must be class",
	} {
		code, _, errs := commandLine(t, append([]string{"failures", "--admin", where}, strings.Fields(args)...)...)
		if code == 0 || !strings.Contains(errs, says) {
			t.Errorf("%s: %d %s", args, code, errs)
		}
	}
}

func TestFailuresWatch(t *testing.T) {
	t.Parallel()
	f, where := failuresOf(t)
	next, stop := following(t, "failures", "--admin", where, "--watch")
	if got := next(); !strings.Contains(got, "1b2c3d4e  overloaded") {
		t.Errorf("first the older: %s", got)
	}
	if got := next(); !strings.Contains(got, "7f3a9c2e") || !strings.Contains(got, "renew hub") {
		t.Errorf("then the newer: %s", got)
	}
	f.mu.Lock()
	again := f.list[0]
	again.Count++
	f.list = []journal.Failure{again, f.list[1]}
	f.mu.Unlock()
	if got := next(); !strings.Contains(got, "7f3a9c2e") || !strings.Contains(got, "4 pulls so far") {
		t.Errorf("the repeated failure: %s", got)
	}
	if got := stop(); got != exitOK {
		t.Errorf("exit code %d", got)
	}
}
