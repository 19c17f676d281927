package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/cert"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
)

// parsedHost is a host as containerd has read it out of a hosts.toml; see hosts/v2.
type parsedHost struct {
	URL                 string
	Pull, Resolve, Push bool
	Header              http.Header
	CA, Pair, Fallback  bool
}

// hostsCase is a folder of hosts.toml files, and what they must mean.
type hostsCase struct {
	dir                     string
	mirror                  string
	ca, node, authorization bool
	pair                    bool
	noFallback, byDefault   bool
}

// means is what containerd is to make of the file of a registry.
func (c hostsCase) means(server string) []parsedHost {
	m := parsedHost{URL: c.mirror + "/v2", Pull: true, Resolve: true, CA: c.ca, Pair: c.pair}
	if c.node || c.authorization {
		m.Header = make(http.Header)
	}
	if c.node {
		m.Header.Set("Mirror-Node", "node-7")
	}
	if c.authorization {
		m.Header.Set("Authorization", "Bearer s3cret")
	}
	last := parsedHost{URL: server + "/v2", Pull: true, Resolve: true, Push: true}
	if c.noFallback { // where the registry would stand it is the mirror, with all that it needs
		last = m
		last.Push = true
	}
	return []parsedHost{m, last}
}

// registriesOfHosts are those of each case, and the address of each. The last is in no file but _default.
var registriesOfHosts = map[string]string{
	"docker.io": "https://registry-1.docker.io", "ghcr.io": "https://ghcr.io", "registry.example.com:5000": "http://registry.example.com:5000",
	"other.example": "https://other.example",
}

// TestHostsTOML: every hosts.toml of "mirror setup" means to containerd 1.7, 2.3 and 2.4, by their own code, what it is to mean.
func TestHostsTOML(t *testing.T) {
	t.Parallel()
	files, err := cert.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cases := append(madeHosts(t, files), goldenHosts(t, files)...)
	args := []string{files.Cert}
	want := make(map[string][]parsedHost)
	for _, c := range cases {
		for name, server := range registriesOfHosts {
			if name == "other.example" && !c.byDefault {
				continue
			}
			arg := c.dir + "=" + name
			args = append(args, arg)
			want[arg] = c.means(server)
		}
	}
	if len(want) < 250 {
		t.Errorf("%d files", len(want))
	}
	for _, v := range []struct{ name, dir, mod string }{
		{"1.7", "v1", "go.mod"}, {"2.3", "v2", "lts.mod"}, {"2.4", "v2", "go.mod"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			parse(t, v.dir, v.mod, args, want)
		})
	}
}

// parse has a program of hosts read files, and compares what it makes of them.
func parse(t *testing.T, dir, mod string, args []string, want map[string][]parsedHost) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "hosts")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile="+mod, "-o", program, ".") //nolint:gosec // of this repository
	build.Dir = filepath.Join("hosts", dir)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got map[string][]parsedHost
	if err := json.Unmarshal([]byte(proc.Must(t, proc.Options{}, program, args...)), &got); err != nil {
		t.Fatal(err)
	}
	for _, arg := range args[1:] {
		if !reflect.DeepEqual(got[arg], want[arg]) {
			t.Errorf("%s\n got %+v\nwant %+v", arg, got[arg], want[arg])
		}
	}
}

// TestBuildkitTOML: the buildkitd.toml of "mirror setup" means to BuildKit, by its own code, what it is to mean.
func TestBuildkitTOML(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files, err := cert.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	args := []string{files.Cert}
	want := make(map[string][]parsedHost)
	for name, c := range map[string]hostsCase{
		"http": {mirror: "http://10.0.0.7:5000"}, "https": {mirror: "https://mirror.example"}, "ca": {mirror: "https://mirror.example:5443", ca: true},
	} {
		setup := []string{"setup", "buildkit", "--mirror", c.mirror, "-o", "json"}
		if c.ca {
			setup = append(setup, "--ca", args[0])
		}
		for registry, server := range registriesOfHosts {
			setup = append(setup, "--registry", registry+"="+server)
		}
		var doc struct{ Files []struct{ Content string } }
		if err := json.Unmarshal([]byte(proc.Must(t, proc.Options{}, mirrord.Binary, setup...)), &doc); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(doc.Files[0].Content), 0o600); err != nil {
			t.Fatal(err)
		}
		for registry, server := range registriesOfHosts {
			args = append(args, file+"="+registry)
			want[file+"="+registry] = c.means(server)
		}
	}
	parse(t, "buildkit", "go.mod", args, want)
}

// madeHosts are folders that mirror setup has written with every combination of its options.
func madeHosts(t *testing.T, files cert.Files) (cases []hostsCase) {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "authorization")
	if err := os.WriteFile(secret, []byte("Bearer s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(config, []byte("version = 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	for i := range 1 << 6 {
		on := func(bit int) bool { return i>>bit&1 == 1 }
		c := hostsCase{
			dir: filepath.Join(top, fmt.Sprint(i)), mirror: "http://10.0.0.7:5000",
			noFallback: on(0), byDefault: on(1), node: on(2), authorization: on(3),
		}
		if on(4) {
			c.mirror = "https://mirror.example"
			c.ca = on(5)
			c.pair = c.ca && c.node
		}
		args := []string{"setup", "containerd", "--mirror", c.mirror, "--install=" + c.dir, "--containerd-config", config}
		for name, server := range registriesOfHosts {
			if name != "other.example" {
				args = append(args, "--registry", name+"="+server)
			}
		}
		for _, option := range []struct {
			on   bool
			args []string
		}{
			{c.noFallback, []string{"--no-fallback"}},
			{c.byDefault, []string{"--default"}},
			{c.node, []string{"--node", "node-7"}},
			{c.authorization, []string{"--authorization-file", secret}},
			{c.ca, []string{"--ca", files.Cert}},
			{c.pair, []string{"--client-cert", files.Cert, "--client-key", files.Key}},
			{on(5) && !c.ca, []string{"--dial-timeout", "250ms"}},
		} {
			if option.on {
				args = append(args, option.args...)
			}
		}
		proc.Must(t, proc.Options{}, mirrord.Binary, args...)
		cases = append(cases, c)
	}
	return cases
}

// hostsInText finds the hosts.toml files in a golden file, those in the script of user data too.
var hostsInText = regexp.MustCompile(`(?m)^(?:==> (\S+/hosts\.toml)\n((?:[^=-].*\n|\n)+)|cat >'(\S+/hosts\.toml)' <<'END'\n((?s:.*?))END\n)`)

// goldenHosts are the hosts.toml files of the golden files, of every target that has some.
func goldenHosts(t *testing.T, files cert.Files) (cases []hostsCase) {
	t.Helper()
	golden, err := filepath.Glob("../node/testdata/*.golden")
	if err != nil || len(golden) < 30 {
		t.Fatalf("%d golden files: %v", len(golden), err)
	}
	places := strings.NewReplacer("/etc/mirror/ca.crt", files.Cert, "/etc/mirror/client.cert", files.Cert, "/etc/mirror/client.key", files.Key)
	count := make(map[string]int)
	for _, file := range golden {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		target, variant, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".golden"), ".")
		found := hostsInText.FindAllStringSubmatch(string(b), -1)
		if strings.Count(string(b), "/hosts.toml\n")+strings.Count(string(b), "/hosts.toml' <<") != len(found) {
			t.Errorf("%s: %d files found, not all", file, len(found))
		}
		if len(found) == 0 {
			continue
		}
		count[target] += len(found)
		c := hostsCase{dir: t.TempDir(), mirror: "http://10.0.0.7:5000"}
		if variant == "full" {
			c.mirror, c.ca, c.pair = "https://mirror.example:5443", true, true
			if target != "docker" { // which has no settings for the others
				c.node, c.authorization, c.noFallback, c.byDefault = true, true, true, true
			}
		}
		for _, f := range found {
			name, content := f[1]+f[3], f[2]+f[4]
			name = filepath.Join(c.dir, filepath.Base(filepath.Dir(name)), "hosts.toml")
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(places.Replace(content)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cases = append(cases, c)
	}
	want := map[string]int{"containerd": 7, "docker": 6, "eks": 7, "kind": 7, "microk8s": 7}
	if !reflect.DeepEqual(count, want) {
		t.Errorf("files by target: %v, want %v", count, want)
	}
	return cases
}
