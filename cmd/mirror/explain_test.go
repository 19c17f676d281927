package main

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/journal"
)

const podEvents = `  Warning  Failed  4m (x3 over 5m)  kubelet  Failed to pull image "acme.azurecr.io/a:1": unauthorized: authentication required
  Warning  Failed  4m (x2 over 5m)  kubelet  Failed to pull image "ghcr.io/a/b:1": manifest unknown
  Warning  Failed  4m  kubelet  Failed to pull image "acme/app:v1": unexpected status from HEAD request to http://m:5000/v2/acme/app/manifests/v1?ns=docker.io: 502 Bad Gateway (mirror: something new; do this [e27f787d])
`

func inputFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "events")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestExplain(t *testing.T) {
	t.Parallel()
	code, out, errs := commandLine(t, "explain", inputFile(t, podEvents))
	want := `3x  credentials-missing (auth)  acme.azurecr.io/a:1
  the registry wants a login, and the node sent none that it takes
  > give the pod an imagePullSecret for this registry, in its own namespace

2x  tag-not-found (missing)  ghcr.io/a/b:1
  the registry has no such tag
  > check the tag; crane ls REPOSITORY lists those there are

1x  unknown (unknown)  docker.io/acme/app:v1  [e27f787d]
  something new
  > do this

6 failures: 3 authentication, 2 missing images, 1 other
`
	if diff := cmp.Diff(want, out); code != 0 || errs != "" || diff != "" {
		t.Errorf("%d %s\n%s", code, errs, diff)
	}
	_, out, _ = commandLine(t, "explain", "-o", "json", inputFile(t, podEvents))
	var r symptom.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Failures) != 3 || r.Classes["auth"] != 3 {
		t.Errorf("json: %v\n%s", err, out)
	}
	_, out, _ = commandLine(t, "explain", inputFile(t, "all is well\n"))
	if out != "0 failures\n" {
		t.Errorf("nothing: %s", out)
	}
}

// What the mirror knows of a failure whose ID the input shows is told instead of what the text says.
func TestExplainJoins(t *testing.T) {
	t.Parallel()
	f := &fixed{list: []journal.Failure{{
		ID: "e27f787d", Reason: "credentials-expired", Class: "auth", Summary: "hub has expired", Remedy: "renew hub",
		Evidence: []string{"token auth.docker.io: status 401"},
	}}}
	s := httptest.NewServer(admin.New(admin.Options{Failures: f}))
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
		"-o xml":          {exitUsage, "there are json, yaml and wide"},
		"a b":             {exitUsage, "takes one file"},
	} {
		code, _, errs := commandLine(t, append([]string{"explain"}, strings.Fields(args)...)...)
		if code != want.code || !strings.Contains(errs, want.says) {
			t.Errorf("%s: %d %s", args, code, errs)
		}
	}
}
