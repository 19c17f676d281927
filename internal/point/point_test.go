package point_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/point"
)

// TestNames holds the list against the code: each name is hit in one place, and each place names one of the list.
func TestNames(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	hits, wrong := find(t, root)
	for _, s := range wrong {
		t.Errorf("%s: the name of a point is a literal", s)
	}
	for name, places := range hits {
		if len(places) > 1 {
			t.Errorf("%s is hit in %d places: %v", name, len(places), places)
		}
		if !slices.Contains(point.Names, name) {
			t.Errorf("%s is hit at %s and not in point.Names", name, places[0])
		}
	}
	for _, name := range point.Names {
		if len(hits[name]) == 0 {
			t.Errorf("%s is in point.Names and hit nowhere", name)
		}
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(point.Names))); len(sorted) != len(point.Names) {
		t.Errorf("point.Names has a name twice: %d, of which %d differ", len(point.Names), len(sorted))
	}
}

// TestFind shows that a hit is found as it is written in the code, and nothing else is.
func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{
		"a.go":      "package a\nimport \"x/internal/point\"\nfunc a() { point.Hit(\"one\"); if true { point.Hit(\"two\") } }\n",
		"b/b.go":    "package b\nimport \"x/internal/point\"\nfunc b() { point.Hit(\"one\"); point.Hit(name); point.Other(\"no\") }\n",
		"a_test.go": "package a\nimport \"x/internal/point\"\nfunc c() { point.Hit(\"test\") }\n",
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hits, wrong := find(t, dir)
	want := map[string][]string{"one": {"a.go:3", "b/b.go:3"}, "two": {"a.go:3"}}
	if diff := cmp.Diff(want, hits); diff != "" {
		t.Errorf("hits (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b/b.go:3"}, wrong); diff != "" {
		t.Errorf("without a literal (-want +got):\n%s", diff)
	}
}

// find returns where the product's code below root hits points, by name, and where it does so without a literal.
func find(t *testing.T, root string) (hits map[string][]string, wrong []string) {
	t.Helper()
	hits = make(map[string][]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // a file that went while we looked
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "e2e" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isHit(call.Fun) {
				return true
			}
			at := set.Position(call.Pos())
			rel, err := filepath.Rel(root, at.Filename)
			if err != nil {
				t.Error(err)
			}
			place := filepath.ToSlash(rel) + ":" + strconv.Itoa(at.Line)
			if name, ok := literal(call.Args); ok {
				hits[name] = append(hits[name], place)
			} else {
				wrong = append(wrong, place)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return hits, wrong
}

func isHit(f ast.Expr) bool {
	s, ok := f.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "Hit" {
		return false
	}
	pkg, ok := s.X.(*ast.Ident)
	return ok && pkg.Name == "point"
}

func literal(args []ast.Expr) (string, bool) {
	if len(args) != 1 {
		return "", false
	}
	l, ok := args[0].(*ast.BasicLit)
	if !ok {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}
