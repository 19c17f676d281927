package arch_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// code is a word in backticks.
var code = regexp.MustCompile("`([^`]+)`")

// section is the part of a page from a heading to the next one.
func section(t *testing.T, root, page, heading string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", page, heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// firstCells are the words in backticks of the first cell of each row of a table.
func firstCells(text string) (rows [][]string) {
	for line := range strings.Lines(text) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && code.MatchString(cells[1]) {
			rows = append(rows, words(cells[1]))
		}
	}
	return rows
}

func words(text string) (list []string) {
	for _, m := range code.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

// docs/architecture.md has a row for each floor, with the packages that are on it.
func TestFloorsAreDocumented(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	touch(t, root)
	onFloor := make([][]string, len(floors))
	for _, p := range list(t, root, "linux") {
		if i := rules.Floor(p.Path); i >= 0 {
			onFloor[i] = append(onFloor[i], p.Path)
		}
	}
	want := slices.DeleteFunc(onFloor, func(packages []string) bool { return len(packages) == 0 })
	got := firstCells(section(t, root, "docs/architecture.md", "Floors"))
	for _, packages := range got {
		slices.Sort(packages)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/architecture.md, Floors (-code +page):\n%s", diff)
	}
}

// CONTRIBUTING.md has each direct dependency, and says what it is for.
func TestDependenciesAreDocumented(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(string(b), -1) { // others end in // indirect
		want = append(want, strings.TrimPrefix(m[1], "github.com/"))
	}
	got := slices.Concat(firstCells(section(t, root, "CONTRIBUTING.md", "Dependencies"))...)
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
		t.Errorf("CONTRIBUTING.md, Dependencies (-go.mod +page):\n%s", diff)
	}
}

// The recipes of CONTRIBUTING.md name files, identifiers and targets that exist.
func TestRecipesNameWhatExists(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	touch(t, root)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	text := section(t, root, "CONTRIBUTING.md", "Recipes")
	for _, bad := range missingNames(root, string(makefile), text) {
		t.Errorf("CONTRIBUTING.md, Recipes: %s does not exist", bad)
	}
	forged := "`internal/nowhere`, `config.Nothing`, `make nothing`, docs/nothing.md, but `config.Config`, `make lint`, docs/metrics.md"
	want := []string{"internal/nowhere", "config.Nothing", "make nothing", "docs/nothing.md"}
	if diff := cmp.Diff(want, missingNames(root, string(makefile), forged)); diff != "" {
		t.Errorf("a forged recipe (-want +got):\n%s", diff)
	}
}

var (
	path       = regexp.MustCompile(`^(\./)?[a-z0-9_.]+(/[A-Za-z0-9_.-]+)*(/|\.(go|md|ya?ml))?$`)
	bareFile   = regexp.MustCompile(`(?:^|[\s(])((?:docs|deploy|e2e)/[a-z0-9_/.-]*[a-z0-9])`)
	identifier = regexp.MustCompile(`^([a-z][a-z0-9]*)\.([A-Z]\w*)$`)
)

// missingNames are the paths, the identifiers with their package, and the targets of make in a text that do not exist.
func missingNames(root, makefile, text string) (bad []string) {
	exists := func(p string) bool {
		_, err := os.Stat(filepath.Join(root, p))
		return err == nil
	}
	for _, word := range words(text) {
		target, isMake := strings.CutPrefix(word, "make ")
		id := identifier.FindStringSubmatch(word)
		ok := true
		switch {
		case isMake:
			target, _, _ = strings.Cut(target, " ")
			ok = strings.Contains(makefile, "\n"+target+":")
		case id != nil:
			ok = declares(root, id[1], id[2])
		case strings.ContainsAny(word, "/.") && path.MatchString(word):
			ok = exists(word)
		}
		if !ok {
			bad = append(bad, word)
		}
	}
	for _, m := range bareFile.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
		if !exists(m[1]) {
			bad = append(bad, m[1])
		}
	}
	return bad
}

// declares reports whether a package of that name declares an identifier.
func declares(root, pkg, name string) bool {
	declared := regexp.MustCompile(`(?m)^(func (\(\w+ \*?\w+\) )?|type |var |const |\t)` + name + `\b`)
	found := false
	_ = filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
		if found || err != nil || e.IsDir() || filepath.Ext(p) != ".go" || filepath.Base(filepath.Dir(p)) != pkg {
			return err
		}
		b, err := os.ReadFile(p)
		found = found || declared.Match(b)
		return err
	})
	return found
}
