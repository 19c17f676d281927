package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// mentioned are tests that a row names: "pkg TestA, TestB; pkg FuzzC".
var mentioned = regexp.MustCompile(`^(?:Test|Fuzz)\w+$`)

// Each numbered fault is played here, or shown where the row says, or the row says why not. The tests that it names exist.
func TestEveryFaultHasARow(t *testing.T) {
	t.Parallel()
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..")
	seen := make(map[string]bool)
	for i, r := range rows {
		if want := fmt.Sprint("F", i+1); r.id != want {
			t.Errorf("row %d is %s, want %s", i+1, r.id, want)
		}
		seen[r.id] = true
		switch {
		case r.plan == nil && r.shown == "":
			t.Errorf("%s is neither played nor shown elsewhere", r.id)
		case strings.HasPrefix(r.shown, "not shown: "):
			continue
		}
		for part := range strings.SplitSeq(r.shown, ";") {
			pkg, list, _ := strings.Cut(strings.TrimSpace(part), " ")
			for name := range strings.SplitSeq(list, ",") {
				name, _, _ = strings.Cut(strings.TrimSpace(name), ":")
				if mentioned.MatchString(name) && !hasTest(t, filepath.Join(root, pkg), name) {
					t.Errorf("%s: there is no %s in %s", r.id, name, pkg)
				}
			}
		}
	}
	if len(rows) != 56 || len(seen) != 56 {
		t.Errorf("%d rows for %d of 56 faults", len(rows), len(seen))
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+name) {
			return true
		}
	}
	return false
}
