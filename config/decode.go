package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	maxFile  = 4 << 20 // bytes of a file
	maxNodes = 50_000  // nodes that are read, aliases counted each time: a few lines can stand for billions
)

// place is where a value comes from: a line and column of the file, or a variable.
type place struct {
	line, column int
	variable     string
}

// decoder reads a tree of YAML nodes into a struct. It goes by the type, so it ends however the aliases of the document
// point at each other; and it goes on after a mistake, so that all are found. yaml's own decoder would tell of unknown
// keys and wrong types in words of Go, and forget the places, which the checks that follow need.
type decoder struct {
	file     string
	places   map[string]place // by path; what is not in it has its default
	problems []Problem
	wrong    map[string]bool // the paths that have a problem before anything is checked: one is enough
	left     int             // nodes that may still be read
}

// decode reads data into c. It reports false where the text isn't a YAML document, so that there is nothing to check.
func (d *decoder) decode(data []byte, c *Config) bool {
	d.left = maxNodes
	if len(data) > maxFile {
		d.add(1, 1, "", fmt.Sprintf("the file has more than %d MiB", maxFile>>20), "is it the right one?")
		return false
	}
	if d.binary(data) {
		return false
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.syntax(err, data)
		return false
	}
	var first, second yaml.Node
	err = loader.Load(&first)
	if errors.Is(err, io.EOF) { // empty, or comments alone
		return true
	}
	if err != nil {
		d.syntax(err, data)
		return false
	}
	if len(first.Content) > 0 {
		d.value(first.Content[0], reflect.ValueOf(c).Elem(), spot{})
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.at(&second, "", "a second document begins here", "one file holds one: remove the --- and what follows")
	case !errors.Is(err, io.EOF):
		d.syntax(err, data)
		return false
	}
	return true
}

func (d *decoder) add(line, column int, path, message, hint string) {
	d.wrong[path] = true
	d.problems = append(d.problems, Problem{
		File: d.file, Line: max(line, 1), Column: max(column, 1), Path: path, Message: message, Hint: hint,
	})
}

func (d *decoder) at(n *yaml.Node, path, message, hint string) {
	d.add(n.Line, n.Column, path, message, hint)
}

// value reads n into v.
func (d *decoder) value(n *yaml.Node, v reflect.Value, s spot) {
	if !d.spend(n, s) {
		return
	}
	n = resolve(n)
	if v.Kind() == reflect.Pointer { // that it is there says something
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if _, ok := d.places[s.path]; !ok || n.Kind == yaml.ScalarNode && !isNull(n) {
		d.places[s.path] = place{line: max(n.Line, 1), column: max(n.Column, 1)}
	}
	switch {
	case v.Type() == reflect.TypeFor[Upstreams]():
		d.upstreams(n, v.Addr().Interface().(*Upstreams), s)
	case isText(v):
		d.text(n, v, s)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, s)
	case v.Kind() == reflect.Slice:
		d.list(n, v, s)
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		d.mapping(n, s, func(key, value *yaml.Node) {
			item := reflect.New(v.Type().Elem()).Elem()
			d.value(value, item, s.chosen(key.Value))
			v.SetMapIndex(reflect.ValueOf(key.Value), item)
		})
	}
}

// spend counts a node against the budget.
func (d *decoder) spend(n *yaml.Node, s spot) bool {
	d.left--
	if d.left == -1 {
		d.at(n, s.path, fmt.Sprintf("more than %d values so far", maxNodes), "use fewer aliases (*name)")
	}
	return d.left >= 0
}

func (d *decoder) text(n *yaml.Node, v reflect.Value, s spot) {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.at(n, s.path, "is "+kindOf(n)+" and must be one value", "")
	case isNull(n):
		d.at(n, s.path, "has no value", "give it one, or remove the key to get the default")
	default:
		if err := setText(v, n.Value); err != nil {
			message, hint := explain(err)
			d.at(n, s.path, message, hint)
		}
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, s spot) {
	switch {
	case isNull(n):
		return
	case n.Kind != yaml.SequenceNode:
		d.at(n, s.path, "is "+kindOf(n)+" and must be a list", listHint(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, min(len(n.Content), maxNodes)))
	for i, child := range n.Content {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(child, item, s.index(i))
		v.Set(reflect.Append(v, item))
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, s spot) {
	fields := fieldsOf(v.Type())
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		if i := slices.IndexFunc(fields, func(f field) bool { return f.short }); i >= 0 {
			d.text(n, v.Field(fields[i].index), s)
			return
		}
	}
	d.mapping(n, s, func(key, value *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key.Value })
		if i < 0 {
			d.at(key, join(s.path, key.Value), "unknown key", suggest(key.Value, fields, s))
			return
		}
		f := fields[i]
		d.field(key, value, f, v.Field(f.index), s.key(f.key))
	})
}

// field reads the value of a key that exists, if it is built.
func (d *decoder) field(key, n *yaml.Node, f field, v reflect.Value, s spot) {
	r, missing := unavailable[s.pattern]
	if !missing {
		d.word(n, f, v, s)
		return
	}
	if r.today != "" { // read aside: mistakes in it are more to the point than that it isn't built
		got, before := reflect.New(v.Type()).Elem(), len(d.problems)
		d.word(n, f, got, s)
		switch {
		case len(d.problems) > before, isToday(got, r.today):
			return
		case r.also != "" && isToday(got, r.also):
			v.Set(got)
			return
		}
	} else if isEmpty(resolve(n)) {
		return
	}
	d.at(key, s.path, notYet, r.instead)
}

// word reads a value that may have to be one of a few words.
func (d *decoder) word(n *yaml.Node, f field, v reflect.Value, s spot) {
	before := len(d.problems)
	d.value(n, v, s)
	if len(d.problems) == before {
		if err := checkWord(f, v, s.pattern); err != nil {
			message, hint := explain(err)
			d.at(resolve(n), s.path, message, hint)
		}
	}
}

func checkWord(f field, v reflect.Value, pattern string) error {
	if f.enum == nil || slices.Contains(f.enum, v.String()) {
		return nil
	}
	words := f.enum
	if r, ok := unavailable[pattern]; ok {
		words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w != r.today && w != r.also })
	}
	hint := meant(v.String(), pattern)
	if hint == "" {
		hint = didYouMean(Nearest(v.String(), words))
	}
	return badValue(v.String(), "one of "+strings.Join(words, ", "), hint)
}

// isToday reports whether v is what text says.
func isToday(v reflect.Value, text string) bool {
	today := reflect.New(v.Type()).Elem()
	return setText(today, text) == nil && reflect.DeepEqual(v.Interface(), today.Interface())
}

func (d *decoder) upstreams(n *yaml.Node, us *Upstreams, s spot) {
	*us = Upstreams{}
	lines := map[string]int{}
	before := len(d.problems)
	d.mapping(n, s, func(key, value *yaml.Node) {
		name := strings.ToLower(key.Value) // hosts have no case
		at := s.chosen(name)
		if line, twice := lines[name]; twice {
			d.at(key, at.path, "in the list twice", fmt.Sprintf("hosts have no case; the first is on line %d", line))
			return
		}
		lines[name] = key.Line
		d.places[at.path] = place{line: max(key.Line, 1), column: max(key.Column, 1)}
		u := newUpstream(name)
		d.value(value, reflect.ValueOf(&u).Elem(), at)
		*us = append(*us, u)
	})
	if len(*us) == 0 && len(d.problems) == before {
		d.at(n, s.path, "names no registry", "add one, as in ghcr.io: {}; or remove the key for the well-known ones")
	}
}

// mapping calls fn for each key of n that is there once.
func (d *decoder) mapping(n *yaml.Node, s spot, fn func(key, value *yaml.Node)) {
	switch {
	case isNull(n):
		return
	case n.Kind != yaml.MappingNode:
		message := "is " + kindOf(n) + " and must have keys"
		if s.path == "" {
			message = "the file " + message
		}
		d.at(n, s.path, message, mappingHint(n, s))
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), n.Content[i+1]
		if !d.spend(key, s) {
			return
		}
		if key.Kind != yaml.ScalarNode {
			d.at(n.Content[i], s.path, "a key must be a word, and this is "+kindOf(key), "")
			continue
		}
		if key.ShortTag() == "!!merge" {
			d.at(key, s.path, "<< is not supported", "write the keys out, or use an alias (*name) for a whole value")
			continue
		}
		path := join(s.path, key.Value)
		if line, twice := lines[key.Value]; twice {
			d.at(key, path, "set twice", fmt.Sprintf("the first is on line %d: remove one", line))
			continue
		}
		lines[key.Value] = key.Line
		d.places[path] = place{line: max(key.Line, 1), column: max(key.Column, 1)}
		fn(key, value)
	}
}

// listHint is how to make a list of what is none.
func listHint(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "put a - before its first key, or the whole in brackets: [{...}]"
	case !strings.ContainsAny(n.Value, "\n,[]{}#") && len(n.Value) <= 80:
		return "write it in brackets: [" + withoutUser(n.Value) + "]"
	}
	return "write it in brackets: [a, b]"
}

// mappingHint is how to make a mapping of what is none.
func mappingHint(n *yaml.Node, s spot) string {
	const general = "write KEY: VALUE, one a line"
	name := ""
	switch {
	case n.Kind == yaml.ScalarNode:
		name = n.Value
	case n.Kind == yaml.SequenceNode && len(n.Content) > 0 && resolve(n.Content[0]).Kind == yaml.ScalarNode:
		name = resolve(n.Content[0]).Value
	}
	if name == "" || len(name) > 80 || strings.ContainsAny(name, "\n,[]{}#") {
		return general
	}
	name = withoutUser(name)
	if s.pattern == "upstreams" {
		if isHostPort(strings.ToLower(name)) {
			return "write " + name + ": {}, one a line"
		}
		return general
	}
	if s.pattern == "upstreams.*" && n.Kind == yaml.ScalarNode {
		if strings.Contains(name, "://") {
			return "write {endpoints: [" + name + "]}"
		}
		return "write {}, or keys below it"
	}
	if _, err := parseBool(strings.ToLower(name)); err == nil && n.Kind == yaml.ScalarNode {
		if wrap, ok := switches[s.pattern]; ok {
			return "write " + wrap
		}
		return general
	}
	if wrap, ok := wraps[s.pattern]; ok {
		return "write " + strings.ReplaceAll(wrap, "VALUE", name)
	}
	return general
}

// wraps are mappings of the one value that is often written in their place.
var wraps = map[string]string{
	"tls":                              "{cert: VALUE, key: FILE}",
	"admin":                            "{listen: VALUE}",
	"metrics":                          "{listen: VALUE}",
	"log":                              "{level: VALUE}",
	"rules.*":                          "{who: [anonymous], pull: [VALUE]}",
	"upstreams.*.tags":                 "{maxAge: VALUE}",
	"upstreams.*.credentials.*":        "{name: VALUE, username: USER, passwordFile: FILE}",
	"upstreams.*.credentials.*.plugin": "{command: VALUE, args: []}",
	"upstreams.*.credentials.*.gar":    "{keyFile: VALUE}",
}

// switches are mappings whose being there says something, in place of true.
var switches = map[string]string{
	"tls": "{cert: FILE, key: FILE}", "kubernetes": "{events: true}", "upstreams.*.credentials.*.ecr": "{}",
	"upstreams.*.credentials.*.gar": "{}", "upstreams.*.credentials.*.acr": "{}",
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func isEmpty(n *yaml.Node) bool {
	return isNull(n) || n.Kind != yaml.ScalarNode && len(n.Content) == 0
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping with keys"
	}
	return "one value"
}
