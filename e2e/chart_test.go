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

	"github.com/registrymirror/mirror/e2e/internal/cert"
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

// chartObjects renders the chart, with the configuration of the mirror and further arguments of helm.
func chartObjects(t *testing.T, config string, more ...string) map[string]chartObject {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{
		"template", "mirror", "../deploy/helm/mirror", "--namespace", "mirror", "--kube-version", "1.37.0", "--set-file", "config=" + file,
		"--set", "test.image=registry.k8s.io/acme/app:v1",
	}, more...)
	out := proc.Must(t, proc.Options{}, tool.Built(t, "helm"), args...)
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

// helmTest runs the command of the pod of "helm test" as its container does, at a mirror on this machine. change is for its arguments, its
// variables and its configuration.
func helmTest(t *testing.T, all map[string]chartObject, host string, change *strings.Replacer) proc.Result {
	t.Helper()
	dir := t.TempDir()
	here := strings.NewReplacer("/etc/mirror/config", dir, "mirror.mirror.svc:5000", host)
	if change == nil {
		change = strings.NewReplacer()
	}
	mounted(dir).put(t, "1", change.Replace(here.Replace(all["ConfigMap mirror-test"].Data["config.yaml"])))
	probe := all["Pod mirror-test"].Spec.Containers[0]
	args := make([]string, len(probe.Args))
	for i, a := range probe.Args {
		args[i] = change.Replace(here.Replace(a))
	}
	var env []string
	for _, e := range probe.Env {
		env = append(env, e.Name+"="+change.Replace(e.Value))
	}
	return proc.Run(t, proc.Options{Env: proc.Env(env...)}, mirrord.Binary, args...)
}

// TestHelmTest: the command of "helm test" pulls through a mirror with a certificate of an authority of its own, whose rules ask for a login.
// Without the login, with a wrong one, without the authority and without the rule it says so, and that it is the mirror that refuses.
func TestHelmTest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files, err := cert.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	upstream := origin.Start(t, origin.Options{})
	upstream.AddImage("acme/app", "v1", origin.Image{Layers: []int64{8 << 10}})
	put := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put("users", htpasswdLine)
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("registry.k8s.io: {access: rules, endpoints: [%q]}", upstream.URL()),
		More: fmt.Sprintf("tls: {cert: %q, key: %q}\nclients: {htpasswd: %q}\nrules: [{who: [bot], pull: ['registry.k8s.io/acme/app']}]",
			files.Cert, files.Key, filepath.Join(dir, "users")),
	})
	authority, err := os.ReadFile(files.Cert)
	if err != nil {
		t.Fatal(err)
	}
	put("ca/ca.crt", string(authority))
	login := func(password string) string {
		return fmt.Sprintf(`{"auths": {%q: {"username": "bot", "password": %q}}}`, m.Host, password)
	}
	put("right/.dockerconfigjson", login(htpasswdCanary))
	put("wrong/.dockerconfigjson", login("another"))

	values := []string{"--set", "secrets={tls}", "--set", "test.loginSecret=test"}
	const mirrors = "tls: {cert: /etc/mirror/secrets/tls/tls.crt, key: /etc/mirror/secrets/tls/tls.key}\n"
	all := chartObjects(t, mirrors, values...)
	anonymous := chartObjects(t, mirrors, values[:2]...)
	for _, tt := range []struct {
		name, ca, login, image string
		objects                map[string]chartObject
		says                   string // empty: the image comes
	}{
		{"right", "ca", "right", "acme/app", all, ""},
		{"a wrong login", "ca", "wrong", "acme/app", all, "a mirror, rejects credential test"},
		{"without a login", "ca", "", "acme/app", anonymous, "a mirror, wants a login"},
		{"without the authority", "absent", "right", "acme/app", all, "tls-untrusted"},
		{"without a rule", "ca", "right", "acme/other", all, "a mirror, refuses the manifest of"},
	} {
		r := helmTest(t, tt.objects, m.Host, strings.NewReplacer("/etc/mirror/ca", filepath.Join(dir, tt.ca), "/etc/mirror/login", filepath.Join(dir, tt.login),
			"acme/app:v1", tt.image+":v1"))
		if (r.Code == 0) != (tt.says == "") || !strings.Contains(r.Text(), tt.says) || strings.Contains(r.Text(), htpasswdCanary) {
			t.Errorf("%s: exit code %d:\n%s", tt.name, r.Code, r.Text())
		}
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

	if r := helmTest(t, all, host, nil); r.Code != 0 {
		t.Errorf("helm test fails, with exit code %d:\n%s", r.Code, r.Text())
	}
	if code, body := mirrord.Get(t, admin+"/api/v1/pulls"); code != http.StatusOK || !strings.Contains(body, "acme/app") {
		t.Errorf("the mirror has not seen the probe: %d %s", code, body)
	}
	for image, says := range map[string]string{
		"registry.k8s.io/acme/app:v2": "has no registry.k8s.io/acme/app:v2",
		"example.com/acme/app:v1":     host + ", a mirror, refuses the manifest of example.com/acme/app:v1 with 404 (unknown-upstream)",
	} {
		if r := helmTest(t, all, host, strings.NewReplacer("registry.k8s.io/acme/app:v1", image)); r.Code == 0 || !strings.Contains(r.Text(), says) {
			t.Errorf("helm test of %s ends with %d:\n%s", image, r.Code, r.Text())
		}
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
