package arch_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestProofNamesTests holds docs/proof.md and docs/reliability.md to the code: each test, fuzz test and benchmark that they
// name exists. A name that ends in … stands for all with that beginning.
func TestProofNamesTests(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	var names []string
	for _, path := range sources(t, root) {
		if !strings.HasSuffix(path, ".go") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declared.FindAllStringSubmatch(string(data), -1) {
			names = append(names, m[1])
		}
	}
	if len(names) < 500 {
		t.Fatalf("only %d tests were found", len(names))
	}
	all := "\n" + strings.Join(names, "\n") + "\n"
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)(…?)`")
	for _, page := range []string{"docs/proof.md", "docs/reliability.md"} {
		data, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		found := named.FindAllStringSubmatch(string(data), -1)
		if len(found) < 20 {
			t.Errorf("%s names only %d tests", page, len(found))
		}
		for _, m := range found {
			end := "\n"
			if m[2] != "" {
				end = ""
			}
			if !strings.Contains(all, "\n"+m[1]+end) {
				t.Errorf("%s names %s, and there is no such test", page, m[1])
			}
		}
	}
}
