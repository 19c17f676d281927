package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/config"
)

// runConfig executes "config ARGS" as main does, and returns what it printed and its error.
func runConfig(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := newConfigCmd()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// textFile is a file with a text, in a folder of its own.
func textFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	return textFile(t, "config.yaml", text)
}

func TestConfigCheckSaysWhatItMeans(t *testing.T) {
	t.Parallel()
	path := configFile(t, "tls: {cert: tls.crt, key: tls.key}\nmetrics: {listen: ':9090'}\nupstreams:\n"+
		"  ghcr.io: {aliases: [gh]}\n  registry.example.com:5000: {endpoints: ['http://10.0.0.5:5000']}\n")
	dir := filepath.Dir(path)
	if err := os.WriteFile(filepath.Join(dir, "tls.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := runConfig(t, "check", "--no-files", "--config", path)
	if err != nil || stderr != "" {
		t.Fatalf("error %v, stderr %q", err, stderr)
	}
	want := `FILE: valid

listen                       127.0.0.1:5000, TLS by DIR/tls.crt
admin                        127.0.0.1:5001, no token
metrics                      :9090, no token
cache                        DIR/mirror-data, up to 20GiB, 5% of the disk stays free, relaxed
default                      none: requests must name a registry, so Docker's registry-mirrors does not work
upstreams                    2, all others are refused
  ghcr.io                    https://ghcr.io, also called gh
  registry.example.com:5000  http://10.0.0.5:5000

A running mirror reads this file again when it changes; mirror config print marks the settings that need a restart.
`
	got := strings.ReplaceAll(strings.ReplaceAll(stdout, path, "FILE"), dir, "DIR")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestConfigCheckNamesCredentials(t *testing.T) {
	t.Parallel()
	path := configFile(t, "upstreams: {docker.io: {credentials: [{name: hub, username: u, passwordFile: p}, "+
		"{name: node, plugin: {command: c}, repositories: [a, b/*]}]}}\n")
	stdout, _, err := runConfig(t, "check", "--no-files", "--config", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"as hub (passwordFile) for all: only public images", "as node (plugin) for a b/*: only public images",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

func TestConfigCheckWarnsOfCertificates(t *testing.T) {
	t.Parallel()
	path := configFile(t, "upstreams: {r.example: {endpoints: [{url: 'https://r.example', clientCert: /c, clientKey: /k}]}}\ndefaultUpstream: ''\n")
	stdout, _, err := runConfig(t, "check", "--no-files", "--config", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"by /c at https://r.example: everything that it may read, to each client", "warning: upstreams.r.example.endpoints[0].clientCert is a login",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

func TestConfigCheckWarnsOfRules(t *testing.T) {
	t.Parallel()
	path := configFile(t, "upstreams: {docker.io: {access: rules, credentials: [{name: hub, username: u, passwordFile: p}]}}\n"+
		"rules: [{who: ['*'], pull: [docker.io/acme/**]}]\n")
	stdout, _, err := runConfig(t, "check", "--no-files", "--config", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"also called index.docker.io and registry-1.docker.io; the rules say which images may be pulled\n",
		"as hub (passwordFile) for all: the images that the rules allow", "each client that can connect to the mirror may pull docker.io/acme/**",
		"warning: rules[0] (*) lets each client that can connect to the mirror pull docker.io/acme/**; allow connections from the " +
			"network of your nodes only\n",
		"warning: a kubelet that checks pull secrets (KEP-2535)",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

// The ways in which clients identify themselves, and their limits, are shown where there are some.
func TestConfigCheckShowsClients(t *testing.T) {
	t.Parallel()
	stdout, _, err := runConfig(t, "check", "--no-files", "--config", configFile(t, "upstreams: {docker.io: {}}\n"))
	if err != nil || strings.Contains(stdout, "\nclients ") || strings.Contains(stdout, "\nlimits ") {
		t.Errorf("%v\n%s", err, stdout)
	}
	stdout, _, err = runConfig(t, "check", "--no-files", "--config", configFile(t, "tls: {cert: /c, key: /k}\nclients: {htpasswd: /users, tokens: /tokens, ca: /ca, "+
		"kubernetes: {audience: mirror}, limits: {maxRequests: 64, bandwidth: 100MiB, totalBandwidth: 1GiB, byAddress: true}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"by passwords in /users, tokens in /tokens, certificates of nodes by /ca, tokens of service accounts for the audience mirror\n",
		"64 requests at once of each client, 100MiB a second for each client, 1GiB a second for all, clients without an identity by their address\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

// A cache that is larger than its disk, and one that is a percentage of its disk.
func TestConfigCheckLooksAtTheDisk(t *testing.T) {
	t.Parallel()
	stdout, _, err := runConfig(t, "check", "--config", configFile(t, "cache: {size: 9000000TB}\n"))
	if err != nil || !strings.Contains(stdout, "warning: cache.size is ") || !strings.Contains(stdout, "set a smaller size, or a percentage, as in 80%") {
		t.Errorf("%v\n%s", err, stdout)
	}
	stdout, _, err = runConfig(t, "check", "--config", configFile(t, "cache: {dir: not/there/yet, size: 80%}\n"))
	if err != nil || strings.Contains(stdout, "warning") || !strings.Contains(stdout, "up to 80% of the disk, 5% of the disk stays free") {
		t.Errorf("%v\n%s", err, stdout)
	}
}

func TestConfigCheckWithoutAFile(t *testing.T) {
	t.Parallel()
	stdout, _, err := runConfig(t, "check")
	if err != nil || !strings.HasPrefix(stdout, "no file, built-in defaults: valid\n") ||
		!strings.Contains(stdout, "https://registry-1.docker.io, also called index.docker.io and registry-1.docker.io\n") {
		t.Errorf("error %v, output:\n%s", err, stdout)
	}
}

func TestConfigCheckListsEveryMistake(t *testing.T) {
	t.Parallel()
	path := configFile(t, "listne: x\ndrain: 60\nupstreams:\n  ghcr.io:\n    endpoint: https://ghcr.io\n")
	for _, command := range []string{"check", "print"} {
		stdout, stderr, err := runConfig(t, command, "--config", path)
		want := path + `:1:1: listne: unknown key (did you mean "listen"?)
` + path + `:2:8: drain: "60" is not a duration (it has no unit: write 60s for seconds)
` + path + `:5:5: upstreams.ghcr.io.endpoint: unknown key (did you mean "endpoints"?)
` + path + `: 3 problems; correct them, then ` + command + ` again
`
		if diff := cmp.Diff(want, stderr); diff != "" || stdout != "" {
			t.Errorf("%s: stdout %q\n%s", command, stdout, diff)
		}
		if exit, ok := errors.AsType[*exitError](err); !ok || exit.code != exitFailed || exit.err != nil {
			t.Errorf("%s: error %#v, want exit code 1 and nothing more to print", command, err)
		}
	}
}

func TestConfigOfAMissingFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "missing.yaml")
	_, stderr, err := runConfig(t, "check", "--config", path)
	exit, ok := errors.AsType[*exitError](err)
	if !ok || exit.code != exitFailed || exit.err == nil || !strings.Contains(err.Error(), path) || stderr != "" {
		t.Errorf("error %#v, stderr %q", err, stderr)
	}
}

func TestConfigPrintReadsBack(t *testing.T) {
	t.Parallel()
	stdout, _, err := runConfig(t, "print", "--config", configFile(t, "upstreams: {ghcr.io: {tags: {maxAge: 1h}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("printed.yaml", []byte(stdout), nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	if u, ok := c.Upstreams.Get("ghcr.io"); !ok || u.Tags.MaxAge.Hours() != 1 || len(c.Upstreams) != 1 {
		t.Errorf("printed:\n%s", stdout)
	}
}

func TestConfigSchemaIsJSON(t *testing.T) {
	t.Parallel()
	stdout, _, err := runConfig(t, "schema")
	var schema struct{ Properties map[string]any }
	if err := errors.Join(err, json.Unmarshal([]byte(stdout), &schema)); err != nil {
		t.Fatal(err)
	}
	if _, ok := schema.Properties["upstreams"]; !ok {
		t.Errorf("there is no upstreams in:\n%s", stdout)
	}
}

func TestConfigUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"chek"}, {"check", "a.yaml", "b.yaml"}, {"check", "a.yaml", "--config", "b.yaml"}, {"schema", "a.yaml"}, {"check", "--confg", "x"}} {
		_, _, err := runConfig(t, args...)
		if _, ours := errors.AsType[*exitError](err); err == nil || ours {
			t.Errorf("%q: error %#v, want one of cobra's, which main takes for wrong usage", args, err)
		}
	}
}

// MIRROR_CONFIG names the file where the flag does not, and variables win over the file.
func TestConfigByVariables(t *testing.T) {
	t.Setenv("MIRROR_CONFIG", configFile(t, "listen: :6000\ndrain: 2m\n"))
	t.Setenv("MIRROR_DRAIN", "3m")
	stdout, _, err := runConfig(t, "print")
	if err != nil || !strings.Contains(stdout, "listen: :6000 #") ||
		!strings.Contains(stdout, "drain: 3m # from MIRROR_DRAIN;") {
		t.Errorf("error %v, output:\n%s", err, stdout)
	}
	stdout, _, err = runConfig(t, "check", "--config", configFile(t, "listen: :7000\n"))
	if err != nil || !strings.Contains(stdout, " :7000, plain HTTP") || !strings.Contains(stdout, "from MIRROR_DRAIN\n") {
		t.Errorf("error %v, output:\n%s", err, stdout)
	}
}

// A configuration may come by a pipe.
func TestConfigCheckOfStandardInput(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text, says string
		ok               bool
	}{
		{"valid", "upstreams: {ghcr.io: {}}\nadmin: {tokenFile: token}\n", "upstreams  1, all others are refused", true},
		{"a mistake", "upstreams: {ghcr.io: {}}\nlistne: x\n", "standard input:2:1: listne: unknown key", false},
		{"nothing", " \n", "it is empty; run the program in front of the pipe alone", false},
	} {
		var out, errs bytes.Buffer
		root := newRoot()
		root.SetIn(strings.NewReader(tt.text))
		root.SetOut(&out)
		root.SetErr(&errs)
		root.SetArgs([]string{"config", "check", "--no-files", "-"})
		err := root.ExecuteContext(t.Context())
		text := strings.Join(strings.Fields(out.String()+errs.String()), " ")
		if err != nil {
			text += " " + err.Error()
		}
		if (err == nil) != tt.ok || !strings.Contains(text, strings.Join(strings.Fields(tt.says), " ")) {
			t.Errorf("%s: %v %s", tt.name, err, text)
		}
	}
}
