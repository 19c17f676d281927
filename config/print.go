package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// YAML is the configuration as a file that says everything: defaults and what is known of each upstream filled in,
// environment applied. Parse reads the same configuration from it. A comment marks what needs a restart, and what came
// from a variable. It holds no secret, since the configuration holds none.
func (c *Config) YAML() ([]byte, error) {
	from := map[string]string{}
	for _, o := range c.Overrides {
		from[o.Path] = o.Variable
	}
	p := printer{from: from}
	out, err := yaml.Dump(p.mapping(reflect.ValueOf(c).Elem(), spot{}), yaml.WithIndent(2), yaml.WithLineWidth(-1))
	if err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return out, nil
}

type printer struct {
	from map[string]string // paths, and the variables that set them
}

// mapping is a struct as YAML. What isn't available yet is left out.
func (p printer) mapping(v reflect.Value, s spot) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, f := range fieldsOf(v.Type()) {
		at := s.key(f.key)
		if !isAvailable(at.pattern) {
			continue
		}
		if sparse(s.pattern) && v.Field(f.index).IsZero() {
			continue // of the few that have them
		}
		if at.pattern == "upstreams.*.endpoints" && v.Field(f.index).Len() == 0 {
			continue // a pattern: it may have none
		}
		child := p.node(v.Field(f.index), at)
		if child == nil {
			continue
		}
		child.LineComment = p.comment(f, at)
		m.Content = append(m.Content, word(f.key), child)
	}
	if len(m.Content) == 0 {
		return nil
	}
	return m
}

// sparse reports whether what has no value is left out below a path.
func sparse(pattern string) bool {
	return pattern == "upstreams.*.endpoints.*" || strings.HasPrefix(pattern, "upstreams.*.credentials.*")
}

func (p printer) comment(f field, at spot) string {
	switch name := p.from[at.path]; {
	case name != "" && f.restart:
		return "# from " + name + "; a change needs a restart"
	case name != "":
		return "# from " + name
	case f.restart:
		return "# a change needs a restart"
	}
	return ""
}

// node is a value as YAML, nil where it says nothing.
func (p printer) node(v reflect.Value, s spot) *yaml.Node {
	if v.Kind() == reflect.Pointer {
		if m := p.mapping(v.Elem(), s); m != nil {
			return m
		}
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: yaml.FlowStyle}
	}
	switch {
	case restartTLS[s.path+".cert"] != "" && v.IsZero():
		return nil // plain HTTP is told by there being no tls
	case isText(v):
		return scalar(v)
	case v.Kind() == reflect.Struct:
		return p.mapping(v, s)
	case v.Type() == reflect.TypeFor[Upstreams]():
		m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for i := range v.Len() {
			u := v.Index(i)
			name := u.FieldByName("Name").String()
			m.Content = append(m.Content, word(name), p.mapping(u, s.chosen(name)))
		}
		return m
	case v.Kind() == reflect.Map:
		m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, key := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int {
			return strings.Compare(a.String(), b.String())
		}) {
			m.Content = append(m.Content, word(key.String()), word(v.MapIndex(key).String()))
		}
		return m
	case v.Kind() == reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for i := range v.Len() {
			item := p.node(v.Index(i), s.index(i))
			if e, ok := reflect.TypeAssert[Endpoint](v.Index(i)); ok && reflect.DeepEqual(e, Endpoint{URL: e.URL}) {
				item = word(e.URL)
			}
			list.Content = append(list.Content, item)
		}
		return list
	}
	return nil
}

func word(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// scalar is one value. Only what YAML itself has a type for gets it.
func scalar(v reflect.Value) *yaml.Node {
	n := word(getText(v))
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
