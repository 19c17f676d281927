package guard_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
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
// green, as the rest of the run shows.
func TestGuardsAreWatched(t *testing.T) {
	t.Parallel()
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..")
	code, err := os.ReadFile(filepath.Join(filepath.Dir(file), "guard.go"))
	if err != nil {
		t.Fatal(err)
	}
	guards := guardName.FindAllSubmatch(code, -1)
	if len(guards) != len(watchmen) {
		t.Fatalf("there are %d guards, %d are watched", len(guards), len(watchmen))
	}
	for _, g := range guards {
		name := string(g[1])
		w, ok := watchmen[name]
		if !ok {
			t.Errorf("%s is not watched", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			without := overlay(t, filepath.Join(filepath.Dir(file), "off.go"), fmt.Sprintf("package guard\n\nconst off = %q\n", name))
			cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-overlay", without, "-run", "^"+w.test+"$", w.pkg)
			cmd.Dir, cmd.Stdout, cmd.Stderr = root, &out, &out
			switch err := cmd.Run(); {
			case err == nil:
				t.Errorf("%s of %s is green without the guard:\n%s", w.test, w.pkg, &out)
			case !strings.Contains(out.String(), "--- FAIL: "+w.test) && !strings.Contains(out.String(), "panic: "):
				t.Errorf("%s of %s did not run: %v\n%s", w.test, w.pkg, err, &out)
			}
		})
	}
}

// overlay makes a file for go's -overlay, which has other text in the place of a file.
func overlay(t *testing.T, file, text string) string {
	t.Helper()
	dir := t.TempDir()
	other, list := filepath.Join(dir, "off.go"), filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]map[string]string{"Replace": {file: other}})
	if err == nil {
		err = errors.Join(os.WriteFile(other, []byte(text), 0o600), os.WriteFile(list, b, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}
