package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

// output is the form in which a command prints: empty (text), json, yaml or wide (text with more columns).
type output string

// add adds the flag -o. wide says that the command has more to show than fits a narrow terminal; others are forms that it has
// alone.
func (o *output) add(cmd *cobra.Command, wide bool, others ...string) {
	forms := []string{"json", "yaml"}
	if wide {
		forms = append(forms, "wide")
	}
	forms = append(forms, others...)
	addChoice(cmd, (*string)(o), "output", "o", forms, "another `form` of output: "+strings.Join(forms, ", "))
}

// wide reports whether there is room for more columns.
func (o output) wide() bool { return o == "wide" }

// encoded reports whether the output is for programs.
func (o output) encoded() bool { return o == "json" || o == "yaml" || o == ndjson }

// ndjson is the form with an object on each line. Where there is one object it is as json.
const ndjson = "ndjson"

// document prints a document as JSON or YAML, or the text that is made of it.
func (o output) document(w io.Writer, doc any, text func() string) error {
	if !o.encoded() {
		return write(w, text())
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return &exitError{exitFailed, fmt.Errorf("write the answer as JSON: %w", err)}
	}
	return o.print(w, append(body, '\n'))
}

// print prints an answer, which is JSON.
func (o output) print(w io.Writer, body []byte) error {
	if o == "yaml" {
		text, err := asYAML(body)
		if err != nil {
			return &exitError{exitFailed, fmt.Errorf("write the answer as YAML: %w", err)}
		}
		body = text
	}
	return write(w, string(body))
}

// asYAML is a JSON document as YAML, in the same order.
func asYAML(body []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(bytes.TrimSpace(body), &doc); err != nil { // JSON is YAML
		return nil, err
	}
	unquote(&doc)
	return yaml.Dump(&doc, yaml.WithIndent(2), yaml.WithLineWidth(-1))
}

// unquote removes the brackets and quotes of JSON where YAML needs none.
func unquote(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode && len(n.Content) > 0 {
		n.Style = 0
	}
	if n.Kind == yaml.ScalarNode && n.Style == yaml.DoubleQuotedStyle && n.Tag == "!!str" && n.Value != "" {
		n.Style = 0 // the encoder quotes a text that would be read as another type
	}
	for _, c := range n.Content {
		unquote(c)
	}
}

// write prints text. An output that can't be written is a failure.
func write(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return &exitError{exitFailed, fmt.Errorf("write the output: %w", err)}
	}
	return nil
}
