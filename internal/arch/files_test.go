package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// openers are the calls that wait for a writer if a pipe stands in the place of a file, or read a file of any size.
var openers = []string{"os.ReadFile", "os.Open", "os.DirFS", "ioutil.ReadFile", "tls.LoadX509KeyPair", "root.ReadFile", "root.Open", "root.FS"}

// ownFiles are the places that may call them, by file and call, and why.
var ownFiles = map[string]string{
	"cache/disk/sys_linux.go os.ReadFile":    "the kernel's own file",
	"cache/disk/disk.go os.Open":             "a folder of the store, to sync it",
	"cache/disk/folder.go os.Open":           "a folder of the store, to sync it",
	"cache/disk/folder.go root.Open":         "a folder of the store, to sync it",
	"cache/disk/disk.go root.Open":           "the folder of the store itself",
	"cache/disk/foreign.go root.Open":        "the folder of the store itself",
	"cache/disk/blobs.go root.Open":          "content that the store wrote",
	"cache/disk/unfinished.go root.ReadFile": "the store's volume, which reads by regular",
	"cache/disk/scrub.go root.ReadFile":      "the store's volume, which reads by regular",
	"cache/disk/boot.go root.ReadFile":       "the store's volume, which reads by regular",
	"cache/recency/recency.go os.Open":       "a folder of the store, to sync it",
	"internal/state/open.go os.Open":         "a folder of the store, to sync it",
	"internal/boltfile/reader.go os.Open":    "the file that is open and locked already; another one is refused",
	"warm/images/folder.go root.FS":          "a walk, which opens folders alone",
	"node/install.go root.FS":                "lists a folder that is open",
	"node/install.go root.Open":              "a folder of a registry, to sync it",
	"internal/regular/regular.go root.FS":    "its links and kinds alone; files are opened without waiting",
}

// TestFilesAreReadByRegular finds the places of the product where a file is opened past internal/regular.
func TestFilesAreReadByRegular(t *testing.T) {
	t.Parallel()
	found := openersIn(t, moduleRoot(t))
	for _, place := range found {
		if ownFiles[place] == "" {
			t.Errorf("%s: read the file by internal/regular, which waits for no pipe and has a limit; if only this program writes it, say so in ownFiles", place)
		}
	}
	for place := range ownFiles {
		if !slices.Contains(found, place) {
			t.Errorf("%s is not there any more: remove it from ownFiles", place)
		}
	}
}

// openersIn are the places that call one of openers, as file and call, sorted.
func openersIn(t *testing.T, root string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			// The last four are run by make, over files of this repository.
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{
				"testdata", "e2e", "tools", "internal/origin", "internal/image", "internal/release", "internal/dashboard", "internal/notes",
			}, rel)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if place := rel + " " + lastName(call.X) + "." + call.Sel.Name; slices.Contains(openers, lastName(call.X)+"."+call.Sel.Name) && !slices.Contains(found, place) {
				found = append(found, place)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	return found
}

// lastName is the last name of an expression: root of s.folder.root.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}
