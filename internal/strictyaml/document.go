package strictyaml

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Document is what Decode has read: where each value stands, and the problems so far.
type Document struct {
	Readable  bool       // the text is a YAML document; if it is not, there is nothing to check
	Overrides []Override // the variables that set something, sorted by name

	file     string
	places   map[string]place // by path; a setting that is not in it has its default
	problems []Problem

	wrong map[string]bool   // paths that have a problem from decoding
	plain map[string]string // paths of short fields that were written as the plain value, with the path of that
}

// place is where a value comes from: a line and column of the document, or a variable.
type place struct {
	line, column int
	variable     string
}

func placeOf(n *yaml.Node) place { return place{line: max(n.Line, 1), column: max(n.Column, 1)} }

// Override is an environment variable that set something.
type Override struct {
	Variable string // APP_CACHE_SIZE
	Path     string // cache.size
}

// Mistake is something that a check has found wrong with a value.
type Mistake struct {
	Path    string // of the setting
	Message string
	Hint    string // what to do
	// Beside are the settings that it goes with. Where Path has its default, the first of them that is set is the wrong one.
	Beside []string
}

// IsSet reports whether the document or a variable sets a path.
func (d *Document) IsSet(path string) bool {
	_, ok := d.places[path]
	return ok
}

// FromVariable reports whether a variable sets a path.
func (d *Document) FromVariable(path string) bool { return d.places[path].variable != "" }

// Report adds the mistakes that checks have found. It drops one of a value that decoding has a problem with already, or of
// an item of a list with such a problem below it: it is not known what that should be.
func (d *Document) Report(list ...Mistake) {
	for _, m := range list {
		if path := d.written(m.Path); !d.wrong[path] && !d.isIncomplete(path) {
			d.problems = append(d.problems, d.problem(m))
		}
	}
}

// problem gives a mistake the place of its setting.
func (d *Document) problem(m Mistake) Problem {
	p := Problem{File: d.file, Path: d.written(m.Path), Message: m.Message, Hint: m.Hint}
	at, ok := d.places[p.Path]
	for i := 0; !ok && i < len(m.Beside); i++ {
		at, ok = d.places[m.Beside[i]]
	}
	for up := parent(p.Path); !ok && up != ""; up = parent(up) {
		at, ok = d.places[up]
	}
	if p.Variable = at.variable; p.Variable != "" {
		p.File = ""
	} else {
		p.Line, p.Column = max(at.line, 1), max(at.column, 1)
	}
	return p.redacted()
}

// written is a path as the document has it: where a plain value stands in place of a mapping, that of the mapping.
func (d *Document) written(path string) string {
	if plain, ok := d.plain[path]; ok {
		return plain
	}
	return path
}

// isIncomplete reports whether a path is of an item of a list, or below one, that has a problem from decoding below it.
func (d *Document) isIncomplete(path string) bool {
	for wrong := range d.wrong {
		for i := range path {
			if item := path[:i+1]; path[i] == ']' && strings.HasPrefix(wrong, item+".") {
				return true
			}
		}
	}
	return false
}

// Err is an *Invalid with all problems, or nil.
func (d *Document) Err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, order)
	return &Invalid{File: d.file, Problems: d.problems}
}

// add adds a problem that decoding has found.
func (d *Document) add(line, column int, path, message, hint string) {
	d.addProblem(Problem{File: d.file, Line: max(line, 1), Column: max(column, 1), Path: path, Message: message, Hint: hint})
}

func (d *Document) addProblem(p Problem) {
	d.wrong[p.Path] = true
	d.problems = append(d.problems, p.redacted())
}
