package main

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
)

const podEvents = `  Warning  Failed  4m (x3 over 5m)  kubelet  Failed to pull image "acme.azurecr.io/a:1": unauthorized: authentication required
  Warning  Failed  4m (x2 over 5m)  kubelet  Failed to pull image "ghcr.io/a/b:1": manifest unknown
  Warning  Failed  4m  kubelet  Failed to pull image "acme/app:v1": unexpected status from HEAD request to http://m:5000/v2/acme/app/manifests/v1?ns=docker.io: 502 Bad Gateway (mirror: something new; do this [e27f787d])
`

func inputFile(t *testing.T, text string) string {
	t.Helper()
	return textFile(t, "events", text)
}

func TestExplain(t *testing.T) {
	t.Parallel()
	code, out, errs := commandLine(t, "explain", inputFile(t, podEvents))
	want := `3x  credentials-missing (auth)  acme.azurecr.io/a:1
  acme.azurecr.io wants a login, and got none that it takes
  > give the kubelet's managed identity of the cluster the role AcrPull (it has no password), or the pod an imagePullSecret with a token of the registry
  $ az aks update -n CLUSTER -g GROUP --attach-acr acme
  page: docs/failures/credentials-missing.md (mirror explain credentials-missing)

2x  tag-not-found (missing)  ghcr.io/a/b:1
  the registry has no ghcr.io/a/b:1
  > check name and tag, or push it
  $ crane ls ghcr.io/a/b
  page: docs/failures/tag-not-found.md (mirror explain tag-not-found)

1x  unknown (unknown)  docker.io/acme/app:v1  [e27f787d]
  something new
  > do this
  text: Warning Failed 4m kubelet Failed to pull image "acme/app:v1": unexpected status from HEAD request to http://m:5000/v2/acme/app/manifests/v1: 502 Bad Gateway (mirror: something new; do this [e27f787d])
  page: docs/failures/unknown.md (mirror explain unknown)

6 failures: 3 authentication, 2 missing images, 1 other
`
	if diff := cmp.Diff(want, out); code != 0 || errs != "" || diff != "" {
		t.Errorf("%d %s\n%s", code, errs, diff)
	}
	_, out, _ = commandLine(t, "explain", "-o", "json", inputFile(t, podEvents))
	var r admin.Explanation
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Failures) != 3 || r.Classes["auth"] != 3 {
		t.Errorf("json: %v\n%s", err, out)
	}
	_, out, _ = commandLine(t, "explain", inputFile(t, "all is well\n"))
	if out != "0 failures: no failing pull found in 1 line\n" {
		t.Errorf("nothing: %s", out)
	}
}

// The name of a reason prints its page, unless a file has that name.
func TestExplainReason(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"tag-not-found", "runtime-down", "unknown"} {
		code, out, errs := commandLine(t, "explain", reason)
		if code != 0 || errs != "" || !strings.HasPrefix(out, "# "+reason+"\n\n") || !strings.Contains(out, "## What to do\n") {
			t.Errorf("%s: %d %s\n%.300s", reason, code, errs, out)
		}
	}
	code, out, errs := commandLine(t, "explain", "tag-not-there")
	if code != exitFailed || out != "" || !strings.Contains(errs, "tag-not-there is neither a file nor a reason; the reasons are abuse-limited, ") {
		t.Errorf("%d %q %s", code, out, errs)
	}
}

// An event without an ID is joined by image and time: containerd 1.6 reports a host that is not in DNS, since it contacted the
// registry itself after the mirror had answered that the tag does not exist.
func TestExplainJoinsByImage(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	f := &fixed{list: []journal.Failure{
		{
			Finding: diagnose.Finding{Reason: "connect-refused", Class: "network", Summary: "long ago"},
			ID:      "0a0a0a0a", Image: "ghcr.io/acme/app:2",
			FirstSeen: day.Add(-30 * time.Hour), LastSeen: day.Add(-29 * time.Hour),
		},
		{
			Finding: diagnose.Finding{
				Reason: "tag-not-found", Class: "missing", Summary: "ghcr.io has no acme/app:2", Remedy: "check the tag",
				Evidence: []string{"manifest ghcr.io: status 404"}, Host: "ghcr.io",
			},
			ID: "e27f787d", Image: "ghcr.io/acme/app:2",
			FirstSeen: day.Add(-time.Minute), LastSeen: day.Add(-time.Minute),
		},
	}}
	s := httptest.NewServer(admin.New(admin.Options{Loopback: true, Failures: f}))
	defer s.Close()
	const cause = `Failed to pull image \"ghcr.io/acme/app:2\": failed to do request: Head \"https://ghcr.io/v2/acme/app/manifests/2\": ` +
		`dial tcp: lookup ghcr.io on 10.0.0.10:53: no such host`
	event := func(at time.Time, message string) string {
		return `{"kind":"Event","reason":"Failed","lastTimestamp":"` + at.Format(time.RFC3339) + `","message":"` + message + `"}`
	}
	for _, tt := range []struct{ name, text, want string }{
		{"at that time", event(day, cause), "1x  tag-not-found (missing)  ghcr.io/acme/app:2  [e27f787d]\n  ghcr.io has no acme/app:2\n  > check the tag\n" +
			"  mirror: manifest ghcr.io: status 404\n  according to the text alone: dns-not-found\n"},
		{"the other time", event(day.Add(-29*time.Hour), cause), "connect-refused (network)"},
		{"long before", event(day.Add(-1000*time.Hour), cause), "dns-not-found (network)"},
		{"another image", event(day, strings.ReplaceAll(cause, "app", "other")), "dns-not-found (network)"},
		{"a failure of the node itself", event(day, `Failed to pull image \"ghcr.io/acme/app:2\": write /x: no space left on device`), "node-disk-full (client)"},
	} {
		code, out, errs := commandLine(t, "explain", "--admin", s.URL, inputFile(t, tt.text))
		if code != 0 || errs != "" || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %d %s\n%s", tt.name, code, errs, out)
		}
	}
}

// For a failure whose ID is in the input, the mirror's record is shown instead of the text's cause.
func TestExplainJoins(t *testing.T) {
	t.Parallel()
	f := &fixed{list: []journal.Failure{{
		Finding: diagnose.Finding{
			Reason: "credentials-expired", Class: "auth", Summary: "hub has expired", Remedy: "renew hub",
			Evidence: []string{"token auth.docker.io: status 401"},
		},
		ID: "e27f787d",
	}}}
	s := httptest.NewServer(admin.New(admin.Options{Loopback: true, Failures: f}))
	defer s.Close()
	code, out, errs := commandLine(t, "explain", "--admin", s.URL, inputFile(t, podEvents))
	if code != 0 || errs != "" || !strings.Contains(out, "1x  credentials-expired (auth)  docker.io/acme/app:v1  [e27f787d]\n"+
		"  hub has expired\n  > renew hub\n  mirror: token auth.docker.io: status 401\n") ||
		!strings.HasSuffix(out, "6 failures: 4 authentication, 2 missing images, 0 other\n") {
		t.Errorf("%d %s\n%s", code, errs, out)
	}
	code, out, errs = commandLine(t, "explain", "--admin", "http://127.0.0.1:1", inputFile(t, podEvents))
	if code != 0 || !strings.Contains(errs, "without the mirror's own evidence") || !strings.Contains(out, "6 failures") {
		t.Errorf("no mirror: %d %s\n%s", code, errs, out)
	}
}

func TestExplainUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"/nowhere/at/all": {exitFailed, "no such file"},
		"-o xml":          {exitUsage, "-o xml: must be json, yaml or wide"},
		"a b":             {exitUsage, "takes one file"},
	} {
		code, _, errs := commandLine(t, append([]string{"explain"}, strings.Fields(args)...)...)
		if code != want.code || !strings.Contains(errs, want.says) {
			t.Errorf("%s: %d %s", args, code, errs)
		}
	}
}
