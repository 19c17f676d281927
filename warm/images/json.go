package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// json reads a document that is JSON, or several that follow each other. It reports false, and the text is read as YAML,
// where it is not JSON. The items of a list are read one by one: the pods of a cluster are too many for one tree.
//
// It does not leave JSON to the parser of YAML, which refuses tabs, and characters that are written as two escapes.
func (c *collector) json(first int, data []byte) bool {
	for len(data) > 0 {
		row, rest, _ := bytes.Cut(data, []byte("\n"))
		if isMarker(row) && isBlank(row[3:]) || isBlank(row) {
			data, first = rest, first+1
			continue
		}
		break
	}
	trimmed := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("---")), " \t")
	if len(trimmed) == 0 || trimmed[0] != '{' && trimmed[0] != '[' {
		return false
	}
	j := &jsonReader{collector: c, dec: json.NewDecoder(bytes.NewReader(trimmed)), data: trimmed, line: first}
	j.dec.UseNumber()
	document, problems := c.document, len(c.result.Problems)
	for {
		switch err := j.document(); {
		case errors.Is(err, io.EOF), errors.Is(err, errDocuments):
			return true
		case errors.Is(err, errTooLarge):
			c.problem(j.line, "", fmt.Sprintf("more than %d values in one item, or deeper than %d; the rest is not read", c.MaxValues, maxDepth))
			return true
		case err != nil: // what was found is found again, in the same places
			c.document, c.result.Problems = document, c.result.Problems[:problems]
			return false
		}
	}
}

// jsonReader makes the nodes of yaml from JSON.
type jsonReader struct {
	*collector
	dec  *json.Decoder
	data []byte
	at   int64 // up to where lines were counted
	line int   // there, from 1
	left int   // values that the tree may still have
}

var (
	errTooLarge  = errors.New("too deep, or too many values")
	errDocuments = errors.New("too many documents")
)

// document reads a value and walks through it. The error is io.EOF if there is none.
func (j *jsonReader) document() error {
	t, err := j.token()
	switch {
	case err != nil:
		return err
	case !j.begin(j.line):
		return errDocuments
	}
	if err = j.root(t); errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// root reads the value that begins with t.
func (j *jsonReader) root(t json.Token) error {
	j.left = j.MaxValues
	if t != json.Delim('{') {
		n, err := j.node(t, 1)
		if err == nil {
			j.walk(n, "", 0)
		}
		return err
	}
	root := &yaml.Node{Kind: yaml.MappingNode, Line: j.line}
	for j.dec.More() {
		key, err := j.next(2)
		if err != nil {
			return err
		}
		if t, err = j.token(); err != nil {
			return err
		}
		if key.Value == "items" && t == json.Delim('[') {
			if err := j.items(); err != nil {
				return err
			}
			continue
		}
		value, err := j.node(t, 2)
		if err != nil {
			return err
		}
		root.Content = append(root.Content, key, value)
	}
	_, err := j.token()
	if err == nil {
		j.walk(root, "", 0)
	}
	return err
}

func (j *jsonReader) items() error {
	left := j.left
	for i := 0; j.dec.More(); i++ {
		j.left = j.MaxValues
		n, err := j.next(3)
		if err != nil {
			return err
		}
		j.walk(n, "items["+strconv.Itoa(i)+"]", 0)
	}
	j.left = left
	_, err := j.token()
	return err
}

func (j *jsonReader) token() (json.Token, error) {
	t, err := j.dec.Token()
	end := j.dec.InputOffset()
	j.line += bytes.Count(j.data[j.at:end], []byte("\n"))
	j.at = end
	return t, err
}

func (j *jsonReader) next(depth int) (*yaml.Node, error) {
	t, err := j.token()
	if err != nil {
		return nil, err
	}
	return j.node(t, depth)
}

// node makes the node of the value that begins with t.
func (j *jsonReader) node(t json.Token, depth int) (*yaml.Node, error) {
	if j.left--; j.left < 0 || depth > maxDepth {
		return nil, errTooLarge
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: j.line}
	switch t := t.(type) {
	case string:
		n.Tag, n.Value = "!!str", t
	case json.Number:
		n.Tag, n.Value = "!!float", t.String()
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(t)
	case nil:
		n.Tag = "!!null"
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if t == '{' {
			n.Kind = yaml.MappingNode
		}
		for j.dec.More() {
			child, err := j.next(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		if _, err := j.token(); err != nil {
			return nil, err
		}
	}
	return n, nil
}
