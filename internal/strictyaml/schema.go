package strictyaml

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Options are what a program knows of its settings beyond the struct. In the keys of all maps, a * in a path stands for any
// key or index.
type Options struct {
	// Hints say what to write instead of a word that other programs use, by path and word: of an unknown key below the path,
	// or of a value at the path that is not among the enum's.
	Hints map[string]map[string]string
	// Synonyms are other names of settings, in lower case without - _ and dots, with the path of each.
	Synonyms map[string]string
	// MappingHint says what to write where a mapping should be and a plain value is, or a list that begins with one.
	// Empty, and nil: KEY: VALUE.
	MappingHint func(path, value string, list bool) string
	// SameKey says why two keys of a Keyed list that are written differently are the same one.
	SameKey string

	// EnvPrefix begins the variables that set something, as in APP_.
	EnvPrefix string
	// EnvReserved are variables with the prefix that are not settings. A setting that would have such a name is spelled
	// without underscores inside its keys.
	EnvReserved []string
	// EnvForeign matches variables with the prefix that others set. Nil: there are none.
	EnvForeign *regexp.Regexp
	// EnvHint says where all settings are listed.
	EnvHint string
}

// Keyed is an item of a list that is written as a mapping. The pointer to the item implements it.
type Keyed interface {
	// SetKey takes the key as it is written, and sets the item's defaults.
	SetKey(written string)
	// Key is the item's key. No two items of a list have the same.
	Key() string
}

// Schema is a struct with what its program says about it. It is safe for concurrent use.
type Schema struct {
	root reflect.Type
	o    Options

	paths     func() []listedPath
	variables func() map[string]string // the paths that a variable can set, by variable
}

// listedPath is a path of the schema as people read it, with NAME and [] for what its pattern has as *.
type listedPath struct {
	position
	single bool // it is of a single value
}

// New returns the schema of a struct, of which root is a value.
func New(root any, o Options) *Schema {
	s := &Schema{root: reflect.TypeOf(root), o: o}
	s.paths = sync.OnceValue(s.listPaths)
	s.variables = sync.OnceValue(s.listVariables)
	return s
}

// Field is what the tags of a struct's field say.
type Field struct {
	Index    int // in the struct
	Key      string
	Short    bool // a plain value in place of the mapping sets it
	OmitZero bool
	Enum     []string // the words allowed; nil: any
	Path     string   // what kind of file it names; empty: none
	Restart  bool
}

// Fields returns the fields of a struct that have a key, in order.
func Fields(t reflect.Type) []Field {
	var fs []Field
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		key, options, _ := strings.Cut(tag.Get("yaml"), ",")
		if key == "-" || key == "" {
			continue
		}
		f := Field{
			Index: i, Key: key, Short: options == "short", OmitZero: options == "omitzero",
			Path: tag.Get("path"), Restart: tag.Get("reload") == "restart",
		}
		if words := tag.Get("enum"); words != "" {
			f.Enum = strings.Split(words, ",")
		}
		fs = append(fs, f)
	}
	return fs
}

// position is where a value stands: its path as people see it, and as the maps of Options have it, with * for every key and
// index that the author of the document chose.
type position struct{ path, pattern string }

func (p position) key(key string) position {
	return position{Join(p.path, key), Join(p.pattern, key)}
}

func (p position) chosen(key string) position {
	return position{Join(p.path, key), Join(p.pattern, "*")}
}

func (p position) index(i int) position {
	return position{Index(p.path, i), Join(p.pattern, "*")}
}

// Join is the path of a key below a path.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Index is the path of an item of the list at a path.
func Index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// parent is the path one level up, or "".
func parent(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

// isKeyed reports whether a type is a list of Keyed items.
func isKeyed(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && reflect.PointerTo(t.Elem()).Implements(reflect.TypeFor[Keyed]())
}

// keyOf is the key of an item of a Keyed list.
func keyOf(item reflect.Value) string { return item.Addr().Interface().(Keyed).Key() }

// Setting is a value with its path and what the tags of its field say.
type Setting struct {
	Path string
	Field
	Value reflect.Value // a single value or a []string
}

// Visit calls fn for each setting of a struct of the schema, given by its pointer, that holds a single value or a list of
// strings.
func (s *Schema) Visit(root any, fn func(Setting)) {
	s.visit(reflect.ValueOf(root).Elem(), position{}, fn)
}

func (s *Schema) visit(v reflect.Value, at position, fn func(Setting)) {
	for _, f := range Fields(v.Type()) {
		child, here := v.Field(f.Index), at.key(f.Key)
		if child.Kind() == reflect.Pointer {
			if child.IsNil() {
				continue
			}
			child = child.Elem()
		}
		switch {
		case IsText(child), child.Type() == reflect.TypeFor[[]string]():
			fn(Setting{here.path, f, child})
		case child.Kind() == reflect.Struct:
			s.visit(child, here, fn)
		case isKeyed(child.Type()):
			for i := range child.Len() {
				s.visit(child.Index(i), here.chosen(keyOf(child.Index(i))), fn)
			}
		case child.Kind() == reflect.Slice:
			for i := range child.Len() {
				s.visit(child.Index(i), here.index(i), fn)
			}
		}
	}
}

// Paths are those of all keys, with * for each key and index.
func (s *Schema) Paths() []string {
	var all []string
	for _, p := range s.paths() {
		all = append(all, p.pattern)
	}
	return all
}

func (s *Schema) listPaths() (all []listedPath) {
	var walk func(t reflect.Type, at position)
	walk = func(t reflect.Type, at position) {
		switch t.Kind() {
		case reflect.Pointer:
			walk(t.Elem(), at)
		case reflect.Slice, reflect.Map:
			shown := "[]"
			if hasNames(t) {
				shown = "NAME"
			}
			walk(t.Elem(), at.chosen(shown))
		case reflect.Struct:
			if IsText(reflect.New(t).Elem()) {
				return
			}
			for _, f := range Fields(t) {
				here, of := at.key(f.Key), t.Field(f.Index).Type
				if of.Kind() == reflect.Pointer {
					of = of.Elem()
				}
				all = append(all, listedPath{here, IsText(reflect.New(of).Elem())})
				walk(of, here)
			}
		}
	}
	walk(s.root, position{})
	return all
}

// hint is what to write instead of a word at a place; empty: nothing is known.
func (s *Schema) hint(word, pattern string) string {
	for known, hint := range s.o.Hints[pattern] {
		if strings.EqualFold(known, word) {
			return hint
		}
	}
	return ""
}

// suggest says which key was probably meant by one that the mapping at a position, which has these fields, does not have.
func (s *Schema) suggest(key string, fs []Field, at position) string {
	if hint := s.hint(key, at.pattern); hint != "" {
		return hint
	}
	var keys []string
	for _, f := range fs {
		keys = append(keys, f.Key)
	}
	if near := Nearest(key, keys); near != "" {
		return DidYouMean(near)
	}
	if path := s.elsewhere(key, at); path != "" {
		return "it belongs at " + path
	}
	slices.Sort(keys)
	if len(keys) == 0 {
		return "nothing can be set here"
	}
	return "there are " + strings.Join(keys, ", ")
}

// elsewhere is the path of the setting that a key names, relative to the mapping it stands in where it is below that; empty:
// there is none. Settings below the mapping go first: a key one level too high is more likely than one in another section.
func (s *Schema) elsewhere(key string, at position) string {
	for _, within := range []string{Join(at.pattern, ""), ""} {
		for _, p := range s.paths() {
			rest, inside := strings.CutPrefix(p.pattern, within)
			if inside && (rest == key || strings.HasSuffix(rest, "."+key)) {
				shown := strings.Split(p.path, ".")
				shown = shown[len(shown)-1-strings.Count(rest, "."):]
				return strings.ReplaceAll(strings.Join(shown, "."), ".[]", "[]")
			}
		}
	}
	if path, _, ok := s.SettingOf(key); ok && at.path == "" && path != key {
		return path
	}
	return ""
}
