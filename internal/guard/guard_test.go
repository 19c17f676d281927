package guard_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// watchmen are the tests that have to turn red without a guard: the first of each alone is run.
var watchmen = map[string]struct{ pkg, test string }{
	"size":         {"./cache/flight", "TestSourceThatSaysAnotherSize"},
	"digest":       {"./cache/flight", "TestWrongContentReachesNobody"},
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
	"seat":         {"./server", "TestOneClientsConnectionsLeaveRoom"},
	"share":        {"./journal", "TestOneClientsFloodLeavesTheOthers"},
	"away":         {"./upstream", "TestVanityHost"},
	"memory":       {"./pull", "TestLargeManifestsAtOnce"},
	"pace":         {"./upstream", "TestSlowDocumentsHoldNoMemory"},
	"turns":        {"./upstream", "TestOneClientLeavesTurnsToOthers"},
	"membership":   {"./pull", "TestBlobIsAskedForWhereItIsNotKnownToBelong"},
	"reference":    {"./pull", "TestReferencesAreNoProof"},
}

// TestGuardsAreWatched takes each guard away in turn and expects a test to turn red. With all of them those tests are
// green, as the rest of the run shows.
func TestGuardsAreWatched(t *testing.T) {
	t.Parallel()
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..")
	tags, err := filepath.Glob(filepath.Join(filepath.Dir(file), "off_*.go"))
	if err != nil || len(tags) != len(watchmen) {
		t.Fatalf("%d guards can be taken away (%v), %d are watched", len(tags), err, len(watchmen))
	}
	slices.Sort(tags)
	for _, tag := range tags {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(tag), "off_"), ".go")
		w, ok := watchmen[name]
		if !ok {
			t.Errorf("%s is not watched", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-tags", "unguarded_"+name, "-run", "^"+w.test+"$", w.pkg)
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
