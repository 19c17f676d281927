package arch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/arch"
)

// floors is the table: a new package goes above all that it imports. Packages that are not there yet may stand in it.
var floors = [][]string{
	{"cmd/mirror"},
	{"internal/app", "admin/client"},
	{"internal/registries"},
	{"internal/metrics"},
	{"server", "webhook", "admin", "internal/kube"},
	{"warm/schedule", "warm/feed"},
	{"warm/warmtest"},
	{"warm", "coverage"},
	{"journal", "drift", "diagnose/*"},
	{"diagnose"},
	{"pull", "cache/disk", "cache/recency", "cache/cachetest"},
	{"upstream", "access", "catalog", "cache", "auth/*", "identity"},
	{"upstream/login", "upstream/transfer"},
	{"upstream/endpoint"},
	{"upstream/fault"},
	{"upstream/header", "upstream/limit"},
	{"route", "auth", "cache/flight", "config", "node", "warm/images"},
	{"internal/origin", "internal/state/statetest"},
	{"oci", "client", "internal/state", "internal/arch", "internal/memory", "internal/faults", "internal/demo", "internal/notes", "internal/image", "internal/release", "internal/dashboard", "internal/authority", "internal/share"},
	{"internal/boltfile", "internal/guard", "internal/logging", "internal/point", "internal/strictyaml", "internal/testlog", "auth/internal/run", "auth/internal/ask", "auth/internal/standin"},
	{"docs/failures", "internal/regular"},
	{"internal/glob", "internal/coalesce", "internal/bounded", "internal/text", "internal/backoff", "internal/clouds", "internal/cron", "internal/sbom"},
}

var rules = arch.Rules{
	Floors: floors,
	Aids: []string{
		"internal/origin", "internal/testlog", "cache/cachetest", "internal/state/statetest", "auth/internal/standin",
		"warm/warmtest",
	},
	Bans: []arch.Ban{
		{
			Who: []string{"cache/**"}, Import: []string{"upstream"}, Foreign: []string{"net/http", "net/http/*"},
			Why: "the cache never asks the network, pull hands it a source per reader",
		},
		{
			Who: []string{"pull"}, Import: []string{"server"}, Foreign: []string{"net/http", "net/http/*"},
			Why: "the pull decision knows no HTTP, server above and upstream below speak it",
		},
		{
			But: []string{"internal/app", "internal/registries", "cmd/**"}, Import: []string{"config"},
			Why: "components take their own options, only internal/app and internal/registries join them to the configuration",
		},
		{
			But: []string{"upstream/**", "auth/**", "internal/registries"}, Import: []string{"auth/**"},
			Why: "what may hold our secrets is this list; read what is shown of a credential from fault.Error",
		},
		{
			But: []string{"oci"}, Foreign: []string{"github.com/distribution/reference"},
			Why: "names are parsed in oci alone, use oci.ParseRef or oci.ParseRequest",
		},
	},
}

const module = "github.com/registrymirror/mirror"

func TestFloors(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	touch(t, root)
	// Files of other systems have imports too.
	for _, goos := range []string{"linux", "darwin"} {
		graph := list(t, root, goos)
		if len(graph) < 5 {
			t.Fatalf("%s: go list shows only %d packages", goos, len(graph))
		}
		for _, s := range arch.Check(graph, rules) {
			t.Errorf("%s: %s", goos, s)
		}
	}
}

// TestForged shows that each rule of the table above goes red.
func TestForged(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		p    arch.Package
		want string // part of the one sentence; empty: nothing to say
	}{
		{"down", pkg("server", "pull", "journal", "oci"), ""},
		{"down past a floor", pkg("cmd/mirror", "oci"), ""},
		{"up", pkg("oci", "route"), "oci imports route from a floor above"},
		{"far up", pkg("upstream", "server"), "from a floor above"},
		{"sideways", pkg("catalog", "upstream"), "on its own floor"},
		{"sideways by a pattern", pkg("diagnose/doctor", "diagnose/symptom"), "on its own floor"},
		{"sources of credentials sideways", pkg("auth/ecr", "auth/plugin"), "on its own floor"},
		{"below a pattern", pkg("diagnose/doctor", "diagnose", "upstream"), ""},
		{"two below a pattern is not a floor", pkg("diagnose/doctor/tls"), "diagnose/doctor/tls is on no floor"},
		{"new package", pkg("dashboard", "oci"), "add it to the table in internal/arch/arch_test.go"},
		{"new package below a known one", pkg("oci/spec"), "oci/spec is on no floor"},
		{"cache to upstream", pkg("cache/disk", "upstream"), "the cache never asks the network"},
		{"cache to HTTP", foreign("cache", "net/http"), "the cache never asks the network"},
		{"flight to HTTP", foreign("cache/flight", "net/http"), "the cache never asks the network"},
		{"disk to HTTP's children", foreign("cache/disk", "net/http/httptrace"), "the cache never asks the network"},
		{"cache to files", foreign("cache/disk", "os", "net/url"), ""},
		{"pull to HTTP", foreign("pull", "net/http"), "the pull decision knows no HTTP"},
		{"upstream to HTTP", foreign("upstream", "net/http"), ""},
		{"config in a component", pkg("server", "config"), "only internal/app and internal/registries join them"},
		{"config in a helper of app", pkg("admin/client", "config"), "only internal/app and internal/registries join them"},
		{"config in app", pkg("internal/app", "config"), ""},
		{"config in the command", pkg("cmd/mirror", "config"), ""},
		{"auth in pull", pkg("pull", "auth"), "what may hold our secrets"},
		{"auth in the command", pkg("cmd/mirror", "auth"), "what may hold our secrets"},
		{"auth in diagnose", pkg("diagnose", "auth"), "what may hold our secrets"},
		{"a source of credentials in server", pkg("server", "auth/ecr"), "what may hold our secrets"},
		{"auth where it belongs", pkg("upstream", "auth"), ""},
		{"auth in access", pkg("access", "auth"), "what may hold our secrets"},
		{"auth in a source", pkg("auth/ecr", "auth"), ""},
		{"auth in app", pkg("internal/app", "auth"), "may hold our secrets"},
		{"auth where registries are built", pkg("internal/registries", "auth", "auth/ecr"), ""},
		{"reference elsewhere", foreign("warm", "github.com/distribution/reference"), "names are parsed in oci alone"},
		{"reference in oci", foreign("oci", "github.com/distribution/reference"), ""},
		{"scripted upstream in product code", pkg("server", "internal/origin"), "which is for tests"},
		{"fakes in product code", pkg("warm", "cache/cachetest"), "which is for tests"},
		{"fakes in a test", arch.Package{Path: "cache/flight", TestImports: []string{"cache/cachetest"}}, ""},
		{
			"test that imports upwards",
			arch.Package{Path: "oci", TestImports: []string{"route"}},
			"oci [test] imports route from a floor above",
		},
		{"test that imports downwards", arch.Package{Path: "route", TestImports: []string{"oci"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := arch.Check([]arch.Package{tt.p}, rules)
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("want nothing, got %q", got)
			case tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)):
				t.Errorf("got %q, want one sentence with %q", got, tt.want)
			}
		})
	}
}

// What breaks two rules is told twice, in order, and the rest of the graph is still looked at.
func TestForgedGraph(t *testing.T) {
	t.Parallel()
	got := arch.Check([]arch.Package{
		pkg("pull", "server", "route", "server"), pkg("oci"), pkg("route", "oci", "dashboard"), pkg("dashboard", "oci"),
	}, rules)
	want := []string{
		"dashboard is on no floor: add it to the table in internal/arch/arch_test.go, above all that it imports",
		"pull imports server from a floor above: declare an interface where it is used and let internal/app join them",
		"pull imports server: the pull decision knows no HTTP, server above and upstream below speak it",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Every package is on one floor, or a move down the table would not be one.
func TestTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, floor := range floors {
		for _, p := range floor {
			if seen[p] {
				t.Errorf("%s is on two floors", p)
			}
			seen[p] = true
		}
	}
	for _, aid := range rules.Aids {
		if !seen[aid] {
			t.Errorf("%s is an aid and on no floor", aid)
		}
	}
	for _, b := range rules.Bans {
		for _, p := range append(append(append([]string(nil), b.Who...), b.But...), b.Import...) {
			if base := strings.TrimSuffix(p, "/**"); !seen[base] && base != "cmd" {
				t.Errorf("a ban names %s, which is on no floor", p)
			}
		}
	}
}

func pkg(path string, imports ...string) arch.Package {
	return arch.Package{Path: path, Imports: imports}
}

func foreign(path string, imports ...string) arch.Package {
	return arch.Package{Path: path, Foreign: imports}
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// touch looks at every Go file and folder of the module. The go command runs a cached test again when what the test
// itself looked at has changed, and it does not see what go list reads.
func touch(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // a file that went while we looked
		case err != nil:
			return err
		case d.IsDir() && p != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case !d.IsDir() && filepath.Ext(p) == ".go":
			if _, err := os.Stat(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// list reads the import graph of the module as it is for an operating system.
func list(t *testing.T, root, goos string) []arch.Package {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,Error", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0", "GOPROXY=off", "GOTOOLCHAIN=local")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var graph []arch.Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath           string
			Imports, TestImports []string
			Error                *struct{ Err string }
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return graph
		} else if err != nil {
			t.Fatalf("output of go list: %v", err)
		}
		if p.Error != nil {
			t.Errorf("%s cannot be read, so its imports are not known: %s", p.ImportPath, p.Error.Err)
		}
		in := func(path string) (string, bool) { return strings.CutPrefix(path, module+"/") }
		node := arch.Package{Path: strings.TrimPrefix(p.ImportPath, module+"/")}
		for _, i := range p.Imports {
			if ours, ok := in(i); ok {
				node.Imports = append(node.Imports, ours)
			} else {
				node.Foreign = append(node.Foreign, i)
			}
		}
		for _, i := range p.TestImports {
			if ours, ok := in(i); ok {
				node.TestImports = append(node.TestImports, ours)
			}
		}
		graph = append(graph, node)
	}
}
