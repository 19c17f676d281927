package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/origin"
)

// sample is the block of a document that has a text in it.
func sample(t *testing.T, path, has string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```\\w*\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		if strings.Contains(m[1], has) {
			return m[1]
		}
	}
	t.Fatalf("%s has no block with %q", path, has)
	return ""
}

// docs/credentials.md shows limits as mirror upstreams prints them.
func TestSampleOfLimits(t *testing.T) {
	t.Parallel()
	now := time.Now()
	text := upstreamsText([]admin.Upstream{{Name: "docker.io", Limits: []admin.Limit{
		{
			Source: "192.0.2.1", Limit: 100, WindowSeconds: 21600, SaidAt: now.Add(-time.Minute),
			Spent: &admin.Spent{Requests: 3, Elsewhere: new(int64(97)), Repositories: []admin.Use{{Repository: "library/redis", Requests: 3}}},
		},
		{
			Credential: "hub-a", Limit: 200, Remaining: 112, WindowSeconds: 21600, SaidAt: now.Add(-4 * time.Second),
			Spent: &admin.Spent{Requests: 88, Repositories: []admin.Use{
				{Repository: "library/nginx", Requests: 60},
				{Repository: "acme/app", Requests: 20},
				{Repository: "acme/base", Requests: 5},
				{Repository: "acme/job", Requests: 3},
			}},
		},
	}}}, false, now)
	_, limits, _ := strings.Cut(text, "\n\n")
	if diff := cmp.Diff(limits, sample(t, "docs/credentials.md", "LIMIT OF")); diff != "" {
		t.Errorf("docs/credentials.md (-printed +document):\n%s", diff)
	}
}

// docs/doctor.md shows a table as mirror doctor image prints it, and the sentences about a blob host that is blocked.
// docs/kubernetes.md shows the sentences about a tag that does not exist.
func TestSamplesOfFailures(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{TLS: true, Redirect: true})
	o.AddImage("acme/app", "1", origin.Image{})
	_, port, _ := strings.Cut(o.Host(), ":")
	name := "port" + port + ".test"
	file := configFile(t, fmt.Sprintf("upstreams:\n  %s: {endpoints: [{url: %q, ca: %q}]}\n", name, o.URL(), configFile(t, string(o.CAPEM()))))
	examine := func(image string) (r doctor.Report) {
		t.Helper()
		_, out, errs := commandLine(t, "doctor", "image", "--straight", "-o", "json", "--config", file, name+"/"+image)
		if err := json.Unmarshal([]byte(out), &r); err != nil || r.Failure == nil {
			t.Fatalf("%v: %s %s", err, out, errs)
		}
		return r
	}

	f := examine("acme/app:99").Failure
	want := fmt.Sprintf(`Warning Failed mirror Failed to pull image "docker.io/library/nginx:1.99": (mirror: %s; %s [7f3a0b1c])`, f.Summary, f.Remedy)
	want = strings.NewReplacer(name, "docker.io", "acme/app:99", "library/nginx:1.99").Replace(want)
	event := strings.Join(strings.Fields(sample(t, "docs/kubernetes.md", "Failed to pull image")), " ")
	if diff := cmp.Diff(want, event); diff != "" {
		t.Errorf("docs/kubernetes.md (-written +document):\n%s", diff)
	}

	o.DownCDN()
	f = examine("acme/app:1").Failure
	shown := sample(t, "docs/doctor.md", "mirror doctor image ghcr.io/acme/app:1")
	_, shown, _ = strings.Cut(shown, "\n") // the command
	hosts := strings.NewReplacer(o.CDNHost(), "pkg-containers.example.com", o.Host(), "ghcr.io", name, "ghcr.io")
	blob := regexp.MustCompile(`sha256:[0-9a-f]{12}\b`)
	sentences := []string{string(f.Reason) + " (" + string(f.Class) + ")  " + f.Summary, "  > " + f.Remedy}
	for _, s := range sentences {
		s = blob.ReplaceAllString(hosts.Replace(s), "sha256:a1578d5ba01b")
		if !strings.Contains(shown, s+"\n") {
			t.Errorf("docs/doctor.md does not have %q", s)
		}
	}
	if diff := cmp.Diff(reportText(parseSample(t, shown), false, false), shown); diff != "" {
		t.Errorf("docs/doctor.md (-printed +document):\n%s", diff)
	}
}

// parseSample reads the report of which a sample is the text.
func parseSample(t *testing.T, text string) *doctor.Report {
	t.Helper()
	head := regexp.MustCompile(`^(\S+) for (\S+) from here\n`).FindStringSubmatch(text)
	failure := regexp.MustCompile(`(?m)^(\S+) \((\w+)\)  (.*)\n  > (.*)\n`).FindStringSubmatch(text)
	if head == nil || failure == nil {
		t.Fatalf("not a report:\n%s", text)
	}
	r := &doctor.Report{
		Image: head[1], Platform: head[2],
		Failure: &doctor.Failure{
			Reason: diagnose.Reason(failure[1]), Class: diagnose.Class(failure[2]), Summary: failure[3], Remedy: failure[4],
		},
	}
	_, evidence, _ := strings.Cut(text, failure[0])
	for line := range strings.Lines(evidence) {
		r.Failure.Evidence = append(r.Failure.Evidence, strings.TrimSpace(line))
	}
	states := map[string]doctor.State{"ok": doctor.OK, "BROKEN": doctor.Broken}
	for _, m := range regexp.MustCompile(`(?m)^(\S+) +(ok|BROKEN) +(\d+ms)? *(\S+) *(.*)$`).FindAllStringSubmatch(text, -1) {
		s := doctor.Step{Stage: m[1], State: states[m[2]], Host: m[4], Detail: m[5]}
		if m[3] != "" {
			took, err := time.ParseDuration(m[3])
			if err != nil {
				t.Fatal(err)
			}
			s.Took = doctor.Duration(took)
		}
		if s.State == doctor.Broken {
			s.Reason = s.Detail
		}
		if s.Stage == "parse" {
			s.Host, s.Detail = "", s.Host
		}
		r.Steps = append(r.Steps, s)
	}
	return r
}
