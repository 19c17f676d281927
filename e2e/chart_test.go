package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// chartObject is what these tests read of an object of the chart.
type chartObject struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Containers []chartContainer
		Template   struct {
			Spec struct{ Containers []chartContainer }
		}
	}
}

type chartContainer struct {
	Args []string
	Env  []struct{ Name, Value string }
}

// chartObjects renders the chart, with the configuration of the mirror.
func chartObjects(t *testing.T, config string) map[string]chartObject {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out := proc.Must(t, proc.Options{}, tool.Built(t, "helm"), "template", "mirror", "../deploy/helm/mirror", "--namespace", "mirror",
		"--kube-version", "1.37.0", "--set-file", "config="+file, "--set", "test.image=registry.k8s.io/acme/app:v1")
	all := make(map[string]chartObject)
	d := yaml.NewDecoder(strings.NewReader(out))
	for {
		var o chartObject
		if err := d.Decode(&o); err != nil {
			break
		}
		all[o.Kind+" "+o.Metadata.Name] = o
	}
	return all
}

// mounted is a folder with a ConfigMap as a kubelet mounts it: each file is a link by way of ..data, and a change replaces that.
type mounted string

func (m mounted) put(t *testing.T, version, text string) {
	t.Helper()
	dir := filepath.Join(string(m), ".."+version)
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600), //nolint:gosec // a folder of the test
		os.Symlink(".."+version, filepath.Join(string(m), "..data_tmp")), os.Rename(filepath.Join(string(m), "..data_tmp"), filepath.Join(string(m), "..data")))
	if _, missing := os.Lstat(filepath.Join(string(m), "config.yaml")); err == nil && missing != nil {
		err = os.Symlink(filepath.Join("..data", "config.yaml"), filepath.Join(string(m), "config.yaml"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestChart runs the binary as the chart's pod does: with its command, its variables, and its configuration as a mounted ConfigMap. The
// command of the pod of "helm test" pulls through it, and fails where an image does not come. A shorter ConfigMap that a kubelet puts in
// the place of the old one is taken up at once.
func TestChart(t *testing.T) {
	t.Parallel()
	upstream := origin.Start(t, origin.Options{})
	upstream.AddImage("acme/app", "v1", origin.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Layers: []int64{8 << 10}})
	entry := fmt.Sprintf("{endpoints: [%q]}", upstream.URL())
	all := chartObjects(t, "upstreams:\n  ghcr.io: "+entry+"\n  registry.k8s.io: "+entry+"\nlog: {format: json}\ncache: {minFree: 0}\n")
	dir := t.TempDir()
	config := mounted(filepath.Join(dir, "config"))
	text := all["ConfigMap mirror-config"].Data["config.yaml"]
	config.put(t, "1", text)

	pod := all["StatefulSet mirror"].Spec.Template.Spec.Containers[0]
	here := strings.NewReplacer("/etc/mirror/config", string(config), "/var/lib/mirror", filepath.Join(dir, "data"))
	var env []string
	for _, e := range pod.Env {
		value := here.Replace(e.Value)
		if strings.HasSuffix(e.Name, "_LISTEN") { // the ports of the pod may be taken here
			value = "127.0.0.1:0"
		}
		env = append(env, e.Name+"="+value)
	}
	m := &mirrord.Mirror{Process: proc.Start(t, proc.Options{Name: "mirror", Env: env}, mirrord.Binary, pod.Args...)}
	var host, admin string
	wait.For(t, time.Minute, "the mirror", func() error {
		line, ok := m.Line("mirror is ready")
		if !ok {
			return errors.New("it has not said that it is ready")
		}
		host, admin = fmt.Sprint(line["listen"]), "http://"+fmt.Sprint(line["admin"])
		return nil
	})

	probe := all["Pod mirror-test"].Spec.Containers[0]
	args := make([]string, len(probe.Args))
	for i, a := range probe.Args {
		args[i] = strings.Replace(a, "/etc/mirror/config", filepath.Join(dir, "test"), 1)
	}
	mounted(filepath.Join(dir, "test")).put(t, "1",
		strings.Replace(all["ConfigMap mirror-test"].Data["config.yaml"], "http://mirror.mirror.svc:5000", "http://"+host, 1))
	if r := proc.Run(t, proc.Options{Env: proc.Env()}, mirrord.Binary, args...); r.Code != 0 {
		t.Errorf("helm test fails, with exit code %d:\n%s", r.Code, r.Text())
	}
	if code, body := mirrord.Get(t, admin+"/api/v1/pulls"); code != http.StatusOK || !strings.Contains(body, "acme/app") {
		t.Errorf("the mirror has not seen the probe: %d %s", code, body)
	}
	args[len(args)-1] = "registry.k8s.io/acme/app:v2"
	if r := proc.Run(t, proc.Options{Env: proc.Env()}, mirrord.Binary, args...); r.Code == 0 || !strings.Contains(r.Text(), "v2") {
		t.Errorf("helm test of an image that is not there ends with %d:\n%s", r.Code, r.Text())
	}

	at := "http://" + host + "/v2/acme/app/manifests/v1?ns=ghcr.io"
	if code, body := mirrord.Get(t, at); code != http.StatusOK {
		t.Fatalf("%s: %d %s", at, code, body)
	}
	config.put(t, "2", "upstreams:\n  registry.k8s.io: "+entry+"\nlog: {format: json}\ncache: {minFree: 0}\n")
	wait.For(t, 20*time.Second, "the shorter ConfigMap", func() error { // well before the watch looks by itself
		if code, body := mirrord.Get(t, at); code == http.StatusOK {
			return fmt.Errorf("ghcr.io is still an upstream: %s", body)
		}
		return nil
	})
}
