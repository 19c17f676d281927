package guard_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// watchmen are the tests that have to turn red without a guard: the first of each alone is run.
var watchmen = map[string]struct{ pkg, test string }{
	"size":         {"./cache/flight", "TestSourceThatSaysAnotherSize"},
	"digest":       {"./cache/flight", "TestWrongContentEndsEveryReader"},
	"holdback":     {"./cache/flight", "TestHoldBack"},
	"contentrange": {"./upstream", "TestContentRangeIsChecked"},
	"realm":        {"./upstream", "TestHostileRealms"},
	"address":      {"./upstream", "TestDialCheckSeesTheAddressThatIsDialled"},
	"embedded":     {"./upstream/endpoint", "TestAddressClass"},
	"claim":        {"./upstream", "TestLyingManifestOpensNoBreaker"},
	"lease":        {"./pull", "TestServedManifestLeasesItsChildren"},
	"arrival":      {"./cache", "TestClaimedSizeEvictsNothing"},
	"relay":        {"./cache/flight", "TestFasterSourceTakesOver"},
	"unread":       {"./cache/flight", "TestBytesWithoutAReaderAreBounded"},
	"held":         {"./cache", "TestSlowReadersPinNothing"},
	"reservation":  {"./cache", "TestNeverOverTheBudget"},
	"command":      {"./diagnose/symptom", "TestRemedies"},
	"public":       {"./upstream", "TestPublicAlone"},
	"site":         {"./admin", "TestNoOtherSite"},
	"whole":        {"./config", "TestHalfAFileIsNone"},
	"limits":       {"./internal/share", "TestRequestsAtOnce"},
	"seat":         {"./server", "TestOneClientsConnectionsLeaveRoom"},
	"flood":        {"./server", "TestHTTP2Floods"},
	"share":        {"./journal", "TestOneClientsFloodLeavesTheOthers"},
	"away":         {"./upstream", "TestVanityHost"},
	"memory":       {"./pull", "TestLargeManifestsAtOnce"},
	"pace":         {"./upstream", "TestSlowDocumentsHoldNoMemory"},
	"turns":        {"./upstream", "TestOneClientLeavesTurnsToOthers"},
	"membership":   {"./pull", "TestBlobIsAskedForWhereItIsNotKnownToBelong"},
	"reference":    {"./pull", "TestReferencesAreNoProof"},
	"own":          {"./pull", "TestOwnLogins"},
}

// guardName finds the names in guard.go.
var guardName = regexp.MustCompile(`= off != "(\w+)"`)

// TestGuardsAreWatched takes each guard away in turn and expects a test to turn red. With all of them those tests are
// green, as the rest of the run shows. The tests are built once, with guards that a variable of the environment takes away.
func TestGuardsAreWatched(t *testing.T) {
	t.Parallel()
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Dir(file)
	root := filepath.Join(dir, "..", "..")
	code, err := os.ReadFile(filepath.Join(dir, "guard.go"))
	if err != nil {
		t.Fatal(err)
	}
	guards := guardName.FindAllSubmatch(code, -1)
	if len(guards) != len(watchmen) {
		t.Fatalf("there are %d guards, %d are watched", len(guards), len(watchmen))
	}
	var packages []string
	for _, w := range watchmen {
		packages = append(packages, w.pkg)
	}
	slices.Sort(packages)
	bin := t.TempDir()
	build := append([]string{"test", "-c", "-overlay", overlay(t, dir, string(code)), "-o", bin + "/"}, slices.Compact(packages)...)
	if out, err := command(t, root, "go", build...).CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	for _, g := range guards {
		name := string(g[1])
		w, ok := watchmen[name]
		if !ok {
			t.Errorf("%s is not watched", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			cmd := command(t, filepath.Join(root, w.pkg), filepath.Join(bin, filepath.Base(w.pkg)+".test"), "-test.run=^"+w.test+"$", "-test.timeout=5m")
			cmd.Env = append(os.Environ(), without+"="+name)
			switch out, err := cmd.CombinedOutput(); {
			case err == nil:
				t.Errorf("%s of %s is green without the guard:\n%s", w.test, w.pkg, out)
			case !bytes.Contains(out, []byte("--- FAIL: "+w.test)) && !bytes.Contains(out, []byte("panic: ")):
				t.Errorf("%s of %s did not run: %v\n%s", w.test, w.pkg, err, out)
			}
		})
	}
}

func command(t *testing.T, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	return cmd
}

// without is the variable of the environment that names the guard to go without.
const without = "MIRROR_WITHOUT_GUARD"

// overlay makes a file for go's -overlay, by which the guards of a folder are variables, and the one that without names is false.
func overlay(t *testing.T, folder, guards string) string {
	t.Helper()
	dir := t.TempDir()
	variables := strings.Replace(guards, "\nconst (", "\nvar (", 1)
	if variables == guards {
		t.Fatal("guard.go has no block of constants")
	}
	replaced := make(map[string]string)
	for name, text := range map[string]string{
		"guard.go": variables,
		"off.go":   fmt.Sprintf("package guard\n\nimport \"os\"\n\nvar off = os.Getenv(%q)\n", without),
	} {
		replaced[filepath.Join(folder, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": replaced})
	list := filepath.Join(dir, "overlay.json")
	if err == nil {
		err = os.WriteFile(list, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}
