package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
