package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A type with more than these is several types, unless its comment has a sentence that says why not.
const (
	maxMethods = 40
	maxFields  = 20
)

// breadth is what is counted of a type.
type breadth struct {
	methods, fields int
	doc             string
}

// TestTypesAreNarrow counts methods and fields of each type of the product. A wide one has to say why, with the word
// "methods" or "fields" and "since" or "because" in one sentence of its comment.
func TestTypesAreNarrow(t *testing.T) {
	t.Parallel()
	excuse := regexp.MustCompile(`(?s)\b(methods|fields)\b[^.]*\b(since|because)\b|\b(since|because)\b[^.]*\b(methods|fields)\b`)
	types := typesOf(t, moduleRoot(t))
	if len(types) < 300 {
		t.Fatalf("only %d types were found", len(types))
	}
	for name, b := range types {
		if (b.methods > maxMethods || b.fields > maxFields) && !excuse.MatchString(b.doc) {
			t.Errorf("%s has %d methods and %d fields (at most %d and %d): cut it, or say why in its comment",
				name, b.methods, b.fields, maxMethods, maxFields)
		}
	}
}

// typesOf are the types of the product's packages, by package and name. Data alone, as configuration or the body of an
// answer, has exported fields only: these are documented one by one, and not counted.
func typesOf(t *testing.T, root string) map[string]breadth {
	t.Helper()
	types := make(map[string]breadth)
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
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" ||
				rel == "e2e" || rel == "tools" || rel == "internal/origin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		count(types, filepath.ToSlash(filepath.Dir(rel)), file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return types
}

func count(types map[string]breadth, dir string, file *ast.File) {
	add := func(name string, change func(*breadth)) {
		b := types[dir+"."+name]
		change(&b)
		types[dir+"."+name] = b
	}
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv != nil {
				add(receiver(decl.Recv.List[0].Type), func(b *breadth) { b.methods++ })
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				spec, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				doc := decl.Doc.Text() + spec.Doc.Text()
				add(spec.Name.Name, func(b *breadth) { b.doc, b.fields = doc, fieldsOf(spec.Type) })
			}
		}
	}
}

// fieldsOf is the number of fields of a struct with state: with one that is not exported, at least.
func fieldsOf(e ast.Expr) int {
	s, ok := e.(*ast.StructType)
	if !ok {
		return 0
	}
	n, state := 0, false
	for _, f := range s.Fields.List {
		n += max(len(f.Names), 1)
		for _, name := range f.Names {
			state = state || !name.IsExported()
		}
	}
	if !state {
		return 0
	}
	return n
}

// receiver is the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
