package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/node"
)

func TestSetup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	const text = `upstreams:
  docker.io: {}
  plain.example:5000: {endpoints: ["http://plain.example:5000"]}
  copied.example: {endpoints: ["https://copy.example"]}
  "*.dkr.ecr.eu-west-1.amazonaws.com": {access: rules, credentials: [{name: aws, ecr: {}}]}
rules: [{who: [anonymous], pull: ["*.dkr.ecr.eu-west-1.amazonaws.com/**"]}]
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const mirror = "--mirror=http://10.0.0.7:5000"
	for _, tt := range []struct {
		args   []string
		code   int
		stdout []string
		stderr string
	}{
		{[]string{"containerd", mirror, "--config", config}, 0, []string{
			"# ---- /etc/containerd/certs.d/docker.io/hosts.toml\n", `server = "https://registry-1.docker.io"`,
			`server = "http://plain.example:5000"`, `server = "https://copied.example"`, "config.toml (merge this into it)",
		}, "left out: *.dkr.ecr.eu-west-1.amazonaws.com"},
		{[]string{"k3s", mirror}, 0, []string{`"ghcr.io":`, `"quay.io":`}, ""},
		{[]string{"skopeo", mirror, "--registry", "GHCR.io", "-o", "json"}, 0, []string{`"path": "/etc/containers/registries.conf.d/50-mirror.conf"`, `prefix = \"ghcr.io\"`}, ""},
		{[]string{"containerd"}, exitUsage, nil, "needs --mirror URL"},
		{[]string{"containerd", mirror, "--registry", "a/b"}, exitUsage, nil, `"a/b" is not the name of a registry`},
		{[]string{"buildkit", mirror, "--registry", "docker.io", "--node", "n"}, exitUsage, nil, "no setting for a header"},
		{[]string{"containerd", mirror, "--authorization-file", filepath.Join(dir, "absent")}, exitFailed, nil, "Authorization"},
		{[]string{"containerd", "--uninstall=" + dir}, 0, []string{"nothing of ours"}, ""},
		{[]string{"containerd", "--mirror=http://mirror.mirror.svc:5000", "--registry", "docker.io"}, 0, nil, "warning: --mirror http://mirror.mirror.svc:5000: mirror.mirror.svc is a name of the cluster's DNS"},
		{[]string{"k3s", "--mirror=http://127.0.0.1:30500", "--registry", "docker.io"}, 0, nil, "warning: --mirror http://127.0.0.1:30500: a NodePort on 127.0.0.1"},
		{[]string{"containerd", "--mirror=https://m.example", "--client-cert=/etc/c", "--client-key=/etc/k", "--registry", "docker.io"}, 0, []string{`client = [["/etc/c", "/etc/k"]]`}, ""},
		{[]string{"containerd", "--mirror=https://m.example", "--client-cert=/etc/c"}, exitUsage, nil, "belong together"},
		{[]string{"contanerd", mirror}, exitUsage, nil, `did you mean "containerd"?`},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), &stdout, &stderr, append([]string{"setup"}, tt.args...)...)
		if code != tt.code || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("%v: code %d, %s", tt.args, code, &stderr)
		}
		for _, want := range tt.stdout {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%v: no %q in %s", tt.args, want, &stdout)
			}
		}
	}
}

// A builder in a pod resolves the names of the cluster, and is not warned.
func TestSetupOfABuilderInAPod(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"buildkit", "kaniko"} {
		if code, _, errs := commandLine(t, "setup", target, "--mirror", "http://mirror.mirror.svc:5000", "--registry", "docker.io"); code != exitOK || errs != "" {
			t.Errorf("%s: %d %s", target, code, errs)
		}
	}
}

// Folders have names of other programs: nothing in them controls a terminal.
func TestNamesOfFoldersAreShownSafely(t *testing.T) {
	t.Parallel()
	const name = "\x1b[31mred"
	root := t.TempDir()
	dir := filepath.Join(root, "etc", "containerd", "certs.d")
	hosts := filepath.Join(dir, name, "hosts.toml")
	config := filepath.Join(root, "etc", "containerd", "config.toml")
	if err := errors.Join(
		os.MkdirAll(filepath.Dir(hosts), 0o755), os.WriteFile(hosts, []byte(node.Mark+"\nnot TOML"), 0o600),
		os.WriteFile(config, []byte("version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	code, out, errs := commandLine(t, "doctor", "node", "--root", root)
	if code != exitFailed || !strings.Contains(out, "toml-error") || strings.Contains(out+errs, "\x1b") {
		t.Errorf("doctor: %d %q %q", code, out, errs)
	}
	code, out, errs = commandLine(t, "setup", "containerd", "--uninstall="+dir)
	if code != exitOK || !strings.Contains(out, "removed") || strings.Contains(out+errs, "\x1b") {
		t.Errorf("uninstall: %d %q %q", code, out, errs)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(hosts), 0o755), os.Mkdir(filepath.Join(filepath.Dir(hosts), "hosts.toml.mirror-new"), 0o755),
		os.WriteFile(filepath.Join(filepath.Dir(hosts), "hosts.toml.mirror-new", "x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	code, out, errs = commandLine(t, "node", "clean", "--dir", dir)
	if code != exitFailed || !strings.Contains(errs, "restore ") || strings.Contains(out+errs, "\x1b") {
		t.Errorf("an error: %d %q %q", code, out, errs)
	}
}
