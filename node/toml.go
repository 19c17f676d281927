package node

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is a TOML file of a node, with the line of each key.
type document struct {
	file    string // path on the node
	content []byte
	tree    map[string]any
	lines   map[string]int // by the key's path, as at makes it
	heads   map[string]int // of the tables that have a line of their own, by path
	count   map[string]int // elements of an array of tables so far, by its path
}

// parseTOML reads a file with the library that containerd uses, so that what is an error there is one here. The error is that library's, a
// *toml.DecodeError.
func parseTOML(file string, b []byte) (*document, error) {
	d := &document{file: file, content: b, lines: make(map[string]int), heads: make(map[string]int), count: make(map[string]int)}
	if err := toml.Unmarshal(b, &d.tree); err != nil {
		return nil, err
	}
	var p unstable.Parser
	p.Reset(b)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		var keys []string
		line := 0
		for k := e.Key(); k.Next(); {
			if line == 0 {
				line = p.Shape(k.Node().Raw).Start.Line
			}
			keys = append(keys, string(k.Node().Data))
		}
		switch e.Kind {
		case unstable.Table:
			table = d.mark(nil, keys, line)
			d.heads[at(table)] = line
		case unstable.ArrayTable:
			table = d.mark(nil, keys, line)
			table = append(table, fmt.Sprint("#", d.count[at(table)]))
			d.count[at(table[:len(table)-1])]++
			d.lines[at(table)] = line
		case unstable.KeyValue:
			d.mark(table, keys, line)
		}
	}
	return d, nil
}

func at(path []string) string { return strings.Join(path, "\x00") }

// mark notes the line of keys below a table, unless an earlier one has them, and returns their path: an array of tables stands in it
// with its last element.
func (d *document) mark(table, keys []string, line int) []string {
	path := slices.Clone(table)
	for i, k := range keys {
		path = append(path, k)
		if d.lines[at(path)] == 0 {
			d.lines[at(path)] = line
		}
		if n := d.count[at(path)]; n > 0 && i < len(keys)-1 {
			path = append(path, fmt.Sprint("#", n-1))
		}
	}
	return path
}

// line is that of a key, or of the nearest table around it; 0: none has one.
func (d *document) line(path ...string) int {
	for ; len(path) > 0; path = path[:len(path)-1] {
		if n := d.lines[at(path)]; n > 0 {
			return n
		}
	}
	return 0
}

// get is the value of a key; nil: it is not there.
func (d *document) get(path ...string) any {
	var v any = d.tree
	for _, k := range path {
		m, _ := v.(map[string]any)
		if v = m[k]; v == nil {
			return nil
		}
	}
	return v
}

func (d *document) text(path ...string) string {
	s, _ := d.get(path...).(string)
	return s
}

func (d *document) table(path ...string) map[string]any {
	m, _ := d.get(path...).(map[string]any)
	return m
}

// keys are the keys of a table in the order of the file.
func (d *document) keys(path ...string) []string {
	list := slices.Collect(maps.Keys(d.table(path...)))
	line := func(k string) int { return d.lines[at(append(slices.Clone(path), k))] }
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(cmp.Compare(line(a), line(b)), strings.Compare(a, b)) })
	return list
}

// texts are the strings of a list, or a single one.
func texts(v any) (list []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			if s, ok := e.(string); ok {
				list = append(list, s)
			}
		}
	}
	return list
}
