package strictyaml

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Print writes a struct of the schema, given by its pointer, as a document that says everything. A comment marks a setting
// whose change needs a restart, and one that a variable has set.
func (s *Schema) Print(root any, overrides []Override) ([]byte, error) {
	p := printer{schema: s, from: map[string]string{}}
	for _, o := range overrides {
		p.from[o.Path] = o.Variable
	}
	out, err := yaml.Dump(p.mapping(reflect.ValueOf(root).Elem(), position{}), yaml.WithIndent(2), yaml.WithLineWidth(-1))
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out, nil
}

type printer struct {
	schema *Schema
	from   map[string]string // the variables that set something, by path
}

// mapping is a struct as YAML; nil: none of its keys is written.
func (p printer) mapping(v reflect.Value, at position) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, f := range Fields(v.Type()) {
		child, here := v.Field(f.Index), at.key(f.Key)
		if f.OmitZero && child.IsZero() {
			continue
		}
		if n := p.node(child, here); n != nil {
			n.LineComment = p.comment(f, here)
			m.Content = append(m.Content, word(f.Key), n)
		}
	}
	if len(m.Content) == 0 {
		return nil
	}
	return m
}

func (p printer) comment(f Field, at position) string {
	switch name := p.from[at.path]; {
	case name != "" && f.Restart:
		return "# from " + name + "; a change needs a restart"
	case name != "":
		return "# from " + name
	case f.Restart:
		return "# a change needs a restart"
	}
	return ""
}

// node is a value as YAML, nil where it says nothing.
func (p printer) node(v reflect.Value, at position) *yaml.Node {
	switch {
	case v.Kind() == reflect.Pointer && IsText(v.Elem()):
		return scalar(v.Elem())
	case v.Kind() == reflect.Pointer:
		return cmp.Or(p.mapping(v.Elem(), at), &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: yaml.FlowStyle})
	case IsText(v):
		return scalar(v)
	case v.Kind() == reflect.Struct:
		return cmp.Or(shortOf(v), p.mapping(v, at))
	case isKeyed(v.Type()):
		m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for i := range v.Len() {
			key := keyOf(v.Index(i))
			m.Content = append(m.Content, word(key), p.mapping(v.Index(i), at.chosen(key)))
		}
		return m
	case v.Kind() == reflect.Map:
		m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		words := v.Convert(reflect.TypeFor[map[string]string]()).Interface().(map[string]string)
		for _, key := range slices.Sorted(maps.Keys(words)) {
			m.Content = append(m.Content, word(key), word(words[key]))
		}
		return m
	case v.Kind() == reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for i := range v.Len() {
			list.Content = append(list.Content, p.node(v.Index(i), at.index(i)))
		}
		return list
	}
	return nil
}

// shortOf is a struct as a plain value, where only its short field is set; nil: it needs a mapping.
func shortOf(v reflect.Value) *yaml.Node {
	fields := Fields(v.Type())
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Short })
	if i < 0 {
		return nil
	}
	short := reflect.New(v.Type()).Elem()
	short.Field(fields[i].Index).Set(v.Field(fields[i].Index))
	if !reflect.DeepEqual(short.Interface(), v.Interface()) {
		return nil
	}
	return scalar(v.Field(fields[i].Index))
}

func word(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// scalar is one value. Only what YAML itself has a type for gets it.
func scalar(v reflect.Value) *yaml.Node {
	n := word(Text(v))
	if n.Value == "" {
		n.Style = yaml.DoubleQuotedStyle
	}
	switch v.Addr().Interface().(type) {
	case *bool:
		n.Tag = "!!bool"
	case *int:
		n.Tag = "!!int"
	}
	return n
}
