package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/warm"
)

// docs/warm-up.md shows what is printed.
func TestSamplesOfWarmUp(t *testing.T) {
	t.Parallel()
	s := two()
	s.states[1].Waiting = nil
	_, stdout, _ := commandLine(t, "warm", "a", "--admin", running(t, s))
	if diff := cmp.Diff(stdout, sample(t, "docs/warm-up.md", "tag-not-found")); diff != "" {
		t.Errorf("(-printed +document):\n%s", diff)
	}
	plan := planText(admin.WarmPlan{
		Images: []admin.WarmPlanned{
			{Image: "docker.io/library/nginx:1.27", Digest: sumA, Platforms: []string{"linux/amd64", "linux/arm64"}, Bytes: 140 << 20, BytesCached: 70 << 20, BytesShared: 30 << 20, Requests: 3},
			{Image: "ghcr.io/acme/app:v2", Digest: sumB, Platforms: []string{"linux/amd64"}, Bytes: 52 << 20, BytesShared: 30 << 20, Requests: 1},
		},
		Bytes: 162 << 20, BytesCached: 70 << 20, BytesMissing: 92 << 20, Requests: 4, Fits: true,
		Limits: []admin.WarmLimit{{Upstream: "docker.io", Requests: 3, Remaining: 1, EnoughAt: noon.Add(2 * time.Hour)}},
	}, false, noon)
	_, shown, _ := strings.Cut(sample(t, "docs/warm-up.md", "SHARED"), "\n")
	if diff := cmp.Diff(plan, shown); diff != "" {
		t.Errorf("(-printed +document):\n%s", diff)
	}
	readme := sample(t, "README.md", "| mirror warm -f -")
	done := admin.WarmJob{BytesDone: 82 << 20, BytesCached: 10 << 20, Counts: map[string]int64{"done": 2}, Images: []admin.WarmImage{
		{Image: "docker.io/library/nginx:1.27", State: warm.Done, BytesTotal: 30 << 20, BytesCached: 10 << 20, KeptUntil: noon.Add(72 * time.Hour)},
		{Image: "ghcr.io/acme/app:v2", State: warm.Done, BytesTotal: 52 << 20},
	}}
	text := ""
	for _, x := range done.Images {
		text += imageText(x, len(done.Images[0].Image))
	}
	_, shown, _ = strings.Cut(readme, "\n")
	if diff := cmp.Diff(text+endText(done, nil), shown); diff != "" {
		t.Errorf("(-printed +document):\n%s", diff)
	}
}

// The hooks of docs/warm-up.md are run as they stand there: their exit code is 0 if all images were fetched, and another one if an
// image failed, or if the program that renders the manifests did.

// hook is a command of the document.
type hook struct {
	name    string
	command []string
	env     map[string]string
	images  []string // that it asks for
	renders bool     // it has a chart rendered
}

// rendered is what a chart is rendered to.
const rendered = "kind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n        - {name: app, image: ghcr.io/acme/app:v2}\n        - {name: db, image: redis:8.0}\n"

func hooks(t *testing.T) (list []hook) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs/warm-up.md"))
	if err != nil {
		t.Fatal(err)
	}
	inChart := []string{"ghcr.io/acme/app:v2", "redis:8.0"}
	for _, m := range regexp.MustCompile("(?ms)^### ([^\n]*)\n.*?^```(yaml|sh)\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		name, text := m[1], m[3]
		read := func(into any) {
			if err := yaml.Unmarshal([]byte(text), into); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		switch name {
		case "Argo CD", "Helm":
			text = strings.NewReplacer("{{ .Values.image.repository }}", "ghcr.io/acme/app", "{{ .Values.image.tag }}", "v2").Replace(text)
			var job struct {
				Kind     string
				Metadata struct{ Annotations map[string]string }
				Spec     struct {
					BackoffLimit *int `yaml:"backoffLimit"`
					Template     struct {
						Spec struct {
							RestartPolicy string `yaml:"restartPolicy"`
							Containers    []struct {
								Args []string
								Env  []struct{ Name, Value string }
							}
						}
					}
				}
			}
			read(&job)
			pod := job.Spec.Template.Spec
			if job.Kind != "Job" || job.Spec.BackoffLimit == nil || *job.Spec.BackoffLimit != 0 || pod.RestartPolicy != "Never" || len(pod.Containers) != 1 || len(job.Metadata.Annotations) != 2 {
				t.Errorf("%s: %+v", name, job)
			}
			h := hook{name: name, command: append([]string{"mirror"}, pod.Containers[0].Args...), env: map[string]string{}, images: []string{"ghcr.io/acme/app:v2"}}
			if name == "Argo CD" {
				h.images = append(h.images, "docker.io/library/redis:8.0")
			}
			for _, e := range pod.Containers[0].Env {
				h.env[e.Name] = e.Value
			}
			list = append(list, h)
		case "Flux":
			names := map[string]bool{}
			for doc := range strings.SplitSeq(text, "\n---\n") {
				var k struct {
					Kind     string
					Metadata struct{ Name string }
					Spec     struct {
						Wait, Force bool
						DependsOn   []struct{ Name string } `yaml:"dependsOn"`
					}
				}
				if err := yaml.Unmarshal([]byte(doc), &k); err != nil || k.Kind != "Kustomization" {
					t.Errorf("%s: %v, %+v", name, err, k)
				}
				waits := len(k.Spec.DependsOn) == 1
				if waits && !names[k.Spec.DependsOn[0].Name] || !waits && (!k.Spec.Wait || !k.Spec.Force) {
					t.Errorf("%s: %+v", name, k)
				}
				names[k.Metadata.Name] = true
			}
			list = append(list, hook{name: name})
		case "GitHub Actions":
			var steps []struct {
				Env map[string]string
				Run string
			}
			read(&steps)
			list = append(list, hook{name: name, command: []string{"bash", "-e", "-c", steps[0].Run}, env: steps[0].Env, images: inChart, renders: true})
		case "GitLab CI":
			var jobs map[string]struct {
				Variables map[string]string
				Script    []string
			}
			read(&jobs)
			list = append(list, hook{name: name, command: []string{"sh", "-e", "-c", strings.Join(jobs["warm-up"].Script, "\n")}, env: jobs["warm-up"].Variables, images: inChart, renders: true})
		case "Without the binary":
			list = append(list, hook{name: name, command: []string{"sh", "-c", text}, env: map[string]string{"MIRROR_ADMIN": ""}, images: inChart, renders: true})
		}
	}
	return list
}

func TestHooks(t *testing.T) {
	t.Parallel()
	all := hooks(t)
	if len(all) != 6 {
		t.Fatalf("%d hooks were found", len(all))
	}
	bin := t.TempDir()
	executable := func(name, text string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil { //nolint:gosec // it is to be run
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	executable("mirror", fmt.Sprintf("%s=1 exec %s \"$@\"", asCommand, self))
	executable("helm", "test -z \"$CHART_IS_BROKEN\" && cat <<'END'\n"+rendered+"END")
	for _, h := range all {
		if h.command == nil {
			continue
		}
		for _, end := range []string{"done", "failed", "broken"} {
			if end == "broken" && !h.renders {
				continue
			}
			t.Run(h.name+" "+end, func(t *testing.T) {
				t.Parallel()
				if h.name == "Without the binary" {
					for _, tool := range []string{"curl", "jq"} {
						if _, err := exec.LookPath(tool); err != nil {
							t.Skipf("%s is not installed here", tool)
						}
					}
				}
				h.run(t, bin, end)
			})
		}
	}
}

// asCommand is the variable with which the test binary is the command mirror.
const asCommand = "MIRROR_TEST_AS_COMMAND"

// run runs the hook against a mirror whose job ends in a way.
func (h hook) run(t *testing.T, bin, end string) {
	t.Helper()
	const token = "s3cret"
	w := two()
	w.states[2].State = warm.State(end)
	if end == "done" {
		w.states[2].Images[1] = w.states[2].Images[0]
	}
	dir := t.TempDir()
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir}
	address := ""
	if len(h.env) == 1 {
		address = running(t, w) // its text has neither a token nor a certificate
	} else {
		s := httptest.NewTLSServer(admin.New(admin.Options{Loopback: true, Warm: w, Keys: func() admin.Keys { return admin.Keys{Token: token} }}))
		t.Cleanup(s.Close)
		address = s.URL
		env = append(env, "MIRROR_ADMIN_CA="+textFile(t, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))))
	}
	for _, name := range slices.Sorted(maps.Keys(h.env)) {
		value := h.env[name]
		switch {
		case name == "MIRROR_ADMIN":
			value = address
		case name == "MIRROR_ADMIN_CA":
			continue
		case name == "MIRROR_TOKEN" && value == "${{ secrets.MIRROR_TOKEN }}":
			value = token
		case name == "MIRROR_ADMIN_TOKEN_FILE" && strings.HasPrefix(value, "/tmp/"):
			value = filepath.Join(dir, "written-token")
		case name == "MIRROR_ADMIN_TOKEN_FILE" && (value == "$MIRROR_TOKEN" || strings.HasPrefix(value, "/etc/")):
			value = textFile(t, "token", token+"\n")
		default:
			t.Errorf("the variable %s=%s", name, value)
		}
		env = append(env, name+"="+value)
	}
	if end == "broken" {
		env = append(env, "CHART_IS_BROKEN=1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.command[0], h.command[1:]...) //nolint:gosec // from a document of ours
	if h.command[0] == "mirror" {
		cmd.Path, cmd.Err = filepath.Join(bin, "mirror"), nil
	}
	cmd.Env, cmd.Dir = env, dir
	out, err := cmd.CombinedOutput()
	if (err == nil) != (end == "done") {
		t.Errorf("%v:\n%s", err, out)
	}
	if asked := len(w.asked); asked != 1 && end != "broken" || asked != 0 && end == "broken" {
		t.Fatalf("%d requests:\n%s", asked, out)
	}
	if end == "broken" {
		return
	}
	if diff := cmp.Diff(h.images, w.asked[0].Images); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"linux/amd64"}, w.asked[0].Platforms); diff != "" {
		t.Error(diff)
	}
}
