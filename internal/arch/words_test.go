package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// attributes is the closed list of the keys of log lines. Operators' searches and alerts depend on them: a new key is an ordinary
// word of the domain, in snake_case, and its line in the CHANGELOG names it.
var attributes = strings.Fields(`
	addr admin age allowed bytes cache_dir class client clock_skew component count credential digest down_for
	downloads dropped duration endpoint error evidence expires_at file free_bytes from_cache host id interval
	items key limit line listen max name next_try operator outcome panic path previous reason ref remaining remedy repeats
	repository scope size source source_count stack state status summary suppressed table tag took upstream upstream_status
	upstreams version
`)

// wording is a rule of plain English.
type wording struct {
	pattern *regexp.Regexp
	allowed *regexp.Regexp // what the pattern must not flag, in the same text; nil: nothing
	why     string
}

var wordings = []wording{
	{
		pattern: regexp.MustCompile(`(?i)\b(nobody|whoever|somebody)(['’]s)?\b`),
		why:     "name the actor: the client, the caller, the reader, the registry, the request",
	},
	{
		pattern: regexp.MustCompile(`(?i)\bwho\b`),
		allowed: regexp.MustCompile("(?i)(`who`|\"who\"|Who are users|\\bwho(: |\\[)|\\b(people|persons?|operators?|users?|maintainers?|contributors?|" +
			"newcomers?|engineers?|attackers?|publishers?|authors?|teams?|anyone|someone|those),? who\\b)"), // and the key of a rule
		why: "name the actor: the client, the caller, the reader, the registry, the request",
	},
	{
		pattern: regexp.MustCompile(`(?i)\b(is|are|was|were|be) no [a-z]`),
		allowed: regexp.MustCompile(`(?i)\b(there (is|are|was|were|will be|would be|must be|can be|may be|should be|to be)|` +
			`is there|are there|(is|are|was|were|be)) no( (longer|more|less|later|earlier|faster|slower|better|worse|use|different))?\b`),
		why: `"is not a platform", never "is no platform"`,
	},
}

// riddles are identifiers that a reader could not guess.
var riddles = strings.Fields(`
	ailment asleep bury buryOne condemn doubted doubts errand goOn hurts hurtsIn inVain isDead loyal onItsWay promise
	rot rotten stumbles stumpedBy stumpedFor tokenForNothing unsaid untold vain
`)

// flagged are the places of a text that a wording forbids.
func (w wording) flagged(text string) []string {
	var bad []string
	var spans [][]int
	if w.allowed != nil {
		spans = w.allowed.FindAllStringIndex(text, -1)
	}
	for _, at := range w.pattern.FindAllStringIndex(text, -1) {
		if !slices.ContainsFunc(spans, func(s []int) bool { return s[0] <= at[0] && at[1]-2 <= s[1] && w.covers(text[s[0]:s[1]]) }) {
			bad = append(bad, around(text, at))
		}
	}
	return bad
}

// covers reports whether an allowed span is one: a bare "is no" is not.
func (w wording) covers(span string) bool { return !bareNo.MatchString(span) }

var bareNo = regexp.MustCompile(`(?i)^(is|are|was|were|be) no$`)

// around is a piece of text with a few words on each side.
func around(text string, at []int) string {
	from, to := max(0, at[0]-40), min(len(text), at[1]+40)
	return strings.Join(strings.Fields(strings.ToValidUTF8(text[from:to], "")), " ")
}

// TestWords holds comments, messages, documents and names to plain English, and the keys of log lines to a closed list.
func TestWords(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	keys := make(map[string]bool)
	for _, path := range sources(t, root) {
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(path) != ".go" {
			for i, line := range strings.Split(string(data), "\n") {
				check(t, path+":"+strconv.Itoa(i+1), line)
			}
			continue
		}
		for _, found := range textsOf(t, path, data) {
			check(t, found.at, found.text)
		}
		for _, key := range keysOf(t, path, data) {
			keys[key.text] = true
			if !slices.Contains(attributes, key.text) {
				t.Errorf("%s: the key %q of a log line is not in the list of attributes", key.at, key.text)
			}
		}
	}
	for _, a := range attributes {
		if !keys[a] {
			t.Errorf("no log line has the attribute %q: delete it from the list", a)
		}
	}
}

func check(t *testing.T, at, text string) {
	t.Helper()
	for _, w := range wordings {
		for _, s := range w.flagged(text) {
			t.Errorf("%s: %q: %s", at, s, w.why)
		}
	}
}

// sources are the files that a person reads: code, documents, the description of the API.
func sources(t *testing.T, root string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(name) {
		case ".go", ".md", ".yaml", ".yml", ".sh", ".toml":
		default:
			if name != "Makefile" {
				return nil
			}
		}
		if name == "CODE_OF_CONDUCT.md" || rel == filepath.Join("internal", "arch", "words_test.go") {
			return nil // another's text; the list itself
		}
		paths = append(paths, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// place is a text and where it is, as file:line.
type place struct{ at, text string }

// textsOf are the comments, messages and riddles of a Go file.
func textsOf(t *testing.T, path string, data []byte) []place {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, data, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var found []place
	at := func(p token.Pos) string { return path + ":" + strconv.Itoa(files.Position(p).Line) }
	for _, group := range file.Comments {
		found = append(found, place{at(group.Pos()), strings.ReplaceAll(group.Text(), "\n", " ")})
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if n.Kind != token.STRING {
				break
			}
			if s, err := strconv.Unquote(n.Value); err == nil && strings.Contains(s, " ") {
				found = append(found, place{at(n.Pos()), strings.ReplaceAll(s, "\n", " ")})
			}
		case *ast.Ident:
			if n.Obj == nil && slices.Contains(riddles, n.Name) {
				t.Errorf("%s: the name %q is a riddle: use a word of the domain or of Go", at(n.Pos()), n.Name)
			}
		}
		return true
	})
	return found
}

// keysOf are the keys of the log lines of a Go file that is not a test's.
func keysOf(t *testing.T, path string, data []byte) []place {
	t.Helper()
	if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "e2e/") || strings.HasPrefix(path, "internal/origin/") {
		return nil
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, data, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var found []place
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			s, _ := strconv.Unquote(lit.Value)
			found = append(found, place{path + ":" + strconv.Itoa(files.Position(lit.Pos()).Line), s})
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		fn, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := fn.X.(*ast.Ident); ok && pkg.Name == "slog" && len(call.Args) == 2 {
			switch fn.Sel.Name {
			case "String", "Int", "Int64", "Uint64", "Float64", "Bool", "Duration", "Time", "Any":
				add(call.Args[0])
			}
			return true
		}
		if !isLogger(fn.X) && (fn.Sel.Name != "warn" || !isText(call.Args)) {
			return true
		}
		first := 0 // the index of the first key
		switch fn.Sel.Name {
		case "With":
		case "Debug", "Info", "Warn", "Error", "warn":
			first = 1
		case "DebugContext", "InfoContext", "WarnContext", "ErrorContext":
			first = 2
		case "Log":
			first = 3
		default:
			return true
		}
		for i := first; i < len(call.Args); i += 2 {
			if _, ok := call.Args[i].(*ast.CallExpr); ok { // slog.String and its like are one argument, and found above
				i--
				continue
			}
			add(call.Args[i])
		}
		return true
	})
	return found
}

// isText reports whether the first of some arguments is a text, in one piece or several.
func isText(args []ast.Expr) bool {
	if len(args) == 0 {
		return false
	}
	e := args[0]
	if sum, ok := e.(*ast.BinaryExpr); ok {
		e = sum.X
	}
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.STRING
}

// isLogger reports whether an expression looks like a *slog.Logger: something called log, or the package.
func isLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return slices.Contains([]string{"log", "logger", "slog"}, e.Name)
	case *ast.SelectorExpr:
		return slices.Contains([]string{"log", "logger", "Log", "Logger"}, e.Sel.Name)
	case *ast.CallExpr: // log.With(…).Info
		if fn, ok := e.Fun.(*ast.SelectorExpr); ok {
			return fn.Sel.Name == "With" || isLogger(fn.X) || fn.Sel.Name == "log" || fn.Sel.Name == "logger"
		}
	}
	return false
}

// TestWording holds the rules themselves: each finds what it forbids and lets plain sentences pass.
func TestWording(t *testing.T) {
	t.Parallel()
	for text, bad := range map[string]bool{
		"who comes meanwhile waits":                             true,
		"The client that comes meanwhile waits":                 false,
		"the first part that nobody has":                        true,
		"whoever asked":                                         true,
		"for nobody's requests":                                 true,
		"an operator who reads this at night":                   false,
		"people whose pods do not start":                        false,
		`"x" is no platform`:                                    true,
		"there is no host in DNS":                               false,
		"it is no longer there":                                 false,
		"what is there is no use to the client: is no platform": true,
		"there are no more than ten":                            false,
		"is there no room":                                      false,
		"the whole of it":                                       false,
	} {
		found := false
		for _, w := range wordings {
			found = found || len(w.flagged(text)) > 0
		}
		if found != bad {
			t.Errorf("%q: flagged %v, want %v", text, found, bad)
		}
	}
}
