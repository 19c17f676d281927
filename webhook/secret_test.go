package webhook_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// Secrets are compared in constant time by construction: their text and keys are fields that the methods of one type read, and
// each of these methods ends in a comparison of crypto/subtle or crypto/hmac.
func TestSecretsAreComparedInOnePlace(t *testing.T) {
	t.Parallel()
	files := token.NewFileSet()
	packages, err := parser.ParseDir(files, ".", func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0) //nolint:staticcheck // one package, without its types
	if err != nil {
		t.Fatal(err)
	}
	readers := map[string]string{} // functions that read a secret's fields, and the comparison in each
	uses := 0
	for _, file := range packages["webhook"].Files {
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				switch pkg, _ := s.X.(*ast.Ident); {
				case s.Sel.Name == "sum" || s.Sel.Name == "key":
					if readers[fn.Name.Name] == "" {
						readers[fn.Name.Name] = "none"
					}
				case s.Sel.Name == "Secrets": // the text, in a Hook
					uses++
				case pkg != nil && (pkg.Name == "subtle" && s.Sel.Name == "ConstantTimeCompare" || pkg.Name == "hmac" && s.Sel.Name == "Equal"):
					readers[fn.Name.Name] = pkg.Name
				}
				return true
			})
		}
	}
	for name, compares := range readers {
		if compares == "none" && name != "newSecret" {
			t.Errorf("%s reads a secret and does not compare it in constant time", name)
		}
	}
	if names := []string{"is", "signed"}; !slices.ContainsFunc(names, func(n string) bool { return readers[n] != "" }) || len(readers) != 3 {
		t.Errorf("secrets are read by %v, want is, signed and newSecret", readers)
	}
	if uses != 1 {
		t.Errorf("the texts of secrets are read in %d places, want 1: where they become secrets", uses)
	}
}
