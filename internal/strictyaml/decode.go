package strictyaml

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// MaxSize is how many bytes a document may have.
const MaxSize = 4 << 20

// maxNodes is how many nodes are read, aliases counted each time: a few lines can stand for billions.
const maxNodes = 50_000

// decoder reads a tree of YAML nodes into a struct. It follows the type, so it ends however the aliases of the document
// point at each other. yaml's own decoder would name Go's types in its messages and forget the places.
type decoder struct {
	*Document
	schema *Schema
	left   int // nodes that may still be read
}

// Decode reads a document, and then the variables of env (NAME=VALUE), into the struct that root points to. Where the
// document says nothing, the struct keeps what it has. The name is that of the document in problems.
func (s *Schema) Decode(name string, data []byte, env []string, root any) *Document {
	d := &decoder{
		Document: &Document{file: name, places: map[string]place{}, wrong: map[string]bool{}, plain: map[string]string{}},
		schema:   s, left: maxNodes,
	}
	v := reflect.ValueOf(root).Elem()
	d.Readable = d.decode(data, v)
	d.overlay(env, v)
	return d.Document
}

// decode reads data into v. It reports false where the text is not a YAML document.
func (d *decoder) decode(data []byte, v reflect.Value) bool {
	if len(data) > MaxSize {
		d.add(1, 1, "", fmt.Sprintf("the file has more than %d MiB", MaxSize>>20), "is it the right one?")
		return false
	}
	if p, found := binary(data); found {
		d.refuseAll(p)
		return false
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.refuseAll(Syntax(data, 1, err))
		return false
	}
	var first, second yaml.Node
	err = loader.Load(&first)
	if errors.Is(err, io.EOF) { // empty, or comments alone
		return true
	}
	if err != nil {
		d.refuseAll(Syntax(data, 1, err))
		return false
	}
	if len(first.Content) > 0 {
		d.value(first.Content[0], v, position{})
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.at(&second, "", "a second document begins here", "one file holds one: remove the --- and what follows")
	case !errors.Is(err, io.EOF):
		d.refuseAll(Syntax(data, 1, err))
		return false
	}
	return true
}

// refuseAll reports what is wrong with the document as a whole.
func (d *decoder) refuseAll(p Problem) {
	p.File = d.file
	d.addProblem(p)
}

func (d *decoder) at(n *yaml.Node, path, message, hint string) {
	d.add(n.Line, n.Column, path, message, hint)
}

// refuse reports what is wrong with a value. A nil error: nothing is.
func (d *decoder) refuse(n *yaml.Node, path string, err error) {
	if err != nil {
		message, hint := explain(err)
		d.at(n, path, message, hint)
	}
}

// value reads n into v.
func (d *decoder) value(n *yaml.Node, v reflect.Value, at position) {
	if !d.spend(n, at) {
		return
	}
	n = resolve(n)
	if v.Kind() == reflect.Pointer { // the key alone says something
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if _, ok := d.places[at.path]; !ok || n.Kind == yaml.ScalarNode && !isNull(n) {
		d.places[at.path] = placeOf(n)
	}
	switch {
	case isKeyed(v.Type()):
		d.keyed(n, v, at)
	case IsText(v):
		d.text(n, v, at)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, at)
	case v.Kind() == reflect.Slice:
		d.list(n, v, at)
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		d.mapping(n, at, func(key, value *yaml.Node) {
			item := reflect.New(v.Type().Elem()).Elem()
			d.value(value, item, at.chosen(key.Value))
			v.SetMapIndex(reflect.ValueOf(key.Value), item)
		})
	}
}

// spend counts a node against the budget.
func (d *decoder) spend(n *yaml.Node, at position) bool {
	d.left--
	if d.left == -1 {
		d.at(n, at.path, fmt.Sprintf("more than %d values so far", maxNodes), "use fewer aliases (*name)")
	}
	return d.left >= 0
}

func (d *decoder) text(n *yaml.Node, v reflect.Value, at position) {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.at(n, at.path, "is "+kindOf(n)+" and must be one value", "")
	case isNull(n):
		d.at(n, at.path, "has no value", "give it one, or remove the key to get the default")
	default:
		d.refuse(n, at.path, setText(v, n.Value))
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, at position) {
	switch {
	case isNull(n):
		return
	case n.Kind != yaml.SequenceNode:
		d.at(n, at.path, "is "+kindOf(n)+" and must be a list", listHint(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, min(len(n.Content), maxNodes)))
	for i, child := range n.Content {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(child, item, at.index(i))
		v.Set(reflect.Append(v, item))
	}
}

// keyed reads a mapping into a list of Keyed items.
func (d *decoder) keyed(n *yaml.Node, v reflect.Value, at position) {
	d.places[at.path] = placeOf(n) // not that of the key: a list without items is wrong here
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	lines := map[string]int{}
	d.mapping(n, at, func(key, value *yaml.Node) {
		item := reflect.New(v.Type().Elem()).Elem()
		item.Addr().Interface().(Keyed).SetKey(key.Value)
		name := keyOf(item)
		here := at.chosen(name)
		if line, twice := lines[name]; twice {
			d.at(key, here.path, "in the list twice", fmt.Sprintf("%s; the first is on line %d", d.schema.o.SameKey, line))
			return
		}
		lines[name] = key.Line
		d.places[here.path] = placeOf(key)
		d.value(value, item, here)
		v.Set(reflect.Append(v, item))
	})
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, at position) {
	fields := Fields(v.Type())
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		if i := slices.IndexFunc(fields, func(f Field) bool { return f.Short }); i >= 0 {
			d.plain[Join(at.path, fields[i].Key)] = at.path
			d.text(n, v.Field(fields[i].Index), at)
			return
		}
	}
	d.mapping(n, at, func(key, value *yaml.Node) {
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Key == key.Value })
		if i < 0 {
			d.at(key, Join(at.path, key.Value), "unknown key", d.schema.suggest(key.Value, fields, at))
			return
		}
		f := fields[i]
		d.field(value, f, v.Field(f.Index), at.key(f.Key))
	})
}

// field reads the value of a key, which may have to be one of a few words.
func (d *decoder) field(n *yaml.Node, f Field, v reflect.Value, at position) {
	before := len(d.problems)
	d.value(n, v, at)
	if len(d.problems) == before {
		d.refuse(resolve(n), at.path, d.schema.checkWord(f, v, at.pattern))
	}
}

func (s *Schema) checkWord(f Field, v reflect.Value, pattern string) error {
	if f.Enum == nil || slices.Contains(f.Enum, v.String()) {
		return nil
	}
	hint := cmp.Or(s.hint(v.String(), pattern), DidYouMean(Nearest(v.String(), f.Enum)))
	return BadValue(v.String(), "one of "+strings.Join(f.Enum, ", "), hint)
}

// mapping calls fn for each key of n that stands there once.
func (d *decoder) mapping(n *yaml.Node, at position, fn func(key, value *yaml.Node)) {
	switch {
	case isNull(n):
		return
	case n.Kind != yaml.MappingNode:
		message := "is " + kindOf(n) + " and must have keys"
		if at.path == "" {
			message = "the file " + message
		}
		d.at(n, at.path, message, d.schema.mappingHint(n, at))
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), n.Content[i+1]
		if !d.spend(key, at) {
			return
		}
		if key.Kind != yaml.ScalarNode {
			d.at(n.Content[i], at.path, "a key must be a word, and this is "+kindOf(key), "")
			continue
		}
		if key.ShortTag() == "!!merge" {
			d.at(key, at.path, "<< is not supported", "write the keys out, or use an alias (*name) for a whole value")
			continue
		}
		path := Join(at.path, key.Value)
		if line, twice := lines[key.Value]; twice {
			d.at(key, path, "set twice", fmt.Sprintf("the first is on line %d: remove one", line))
			continue
		}
		lines[key.Value] = key.Line
		d.places[path] = placeOf(key)
		fn(key, value)
	}
}

// listHint says how to turn a node into a list.
func listHint(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "put a - before its first key, or the whole in brackets: [{...}]"
	case !strings.ContainsAny(n.Value, "\n,[]{}#") && len(n.Value) <= 80:
		return "write it in brackets: [" + withoutUser(n.Value) + "]"
	}
	return "write it in brackets: [a, b]"
}

// mappingHint says how to turn a node into a mapping.
func (s *Schema) mappingHint(n *yaml.Node, at position) string {
	const general = "write KEY: VALUE, one a line"
	text, list := "", n.Kind == yaml.SequenceNode
	switch {
	case n.Kind == yaml.ScalarNode:
		text = n.Value
	case list && len(n.Content) > 0 && resolve(n.Content[0]).Kind == yaml.ScalarNode:
		text = resolve(n.Content[0]).Value
	}
	if text == "" || len(text) > 80 || strings.ContainsAny(text, "\n,[]{}#") {
		return general
	}
	if s.o.MappingHint == nil {
		return general
	}
	return cmp.Or(s.o.MappingHint(at.pattern, withoutUser(text), list), general)
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping with keys"
	}
	return "one value"
}
