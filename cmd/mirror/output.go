package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

// output is the form in which a command prints.
type output struct {
	form string
	wide bool // there is more to show than fits a narrow terminal
}

// add adds the flag -o.
func (o *output) add(cmd *cobra.Command, wide bool) {
	o.wide = wide
	cmd.Flags().StringVarP(&o.form, "output", "o", "", "another `form` of output: "+strings.Join(o.forms(), ", "))
	completes(cmd, "output", o.forms()...)
}

func (o *output) forms() []string {
	if o.wide {
		return []string{"json", "yaml", "wide"}
	}
	return []string{"json", "yaml"}
}

// check says what is wrong with the value of -o.
func (o *output) check() error {
	if o.form == "" || slices.Contains(o.forms(), o.form) {
		return nil
	}
	return fmt.Errorf("-o %s: there are %s", o.form, list(o.forms()))
}

// encoded reports whether what was answered is printed for programs to read.
func (o *output) encoded() bool { return o.form == "json" || o.form == "yaml" }

// encode is an answer, which is JSON, in the form that is wanted.
func (o *output) encode(body []byte) ([]byte, error) {
	if o.form != "yaml" {
		return body, nil
	}
	text, err := asYAML(body)
	if err != nil {
		return nil, &exitError{exitFailed, fmt.Errorf("write the answer as YAML: %w", err)}
	}
	return text, nil
}

// asYAML is a JSON document as YAML, in the order in which it is.
func asYAML(body []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(bytes.TrimSpace(body), &doc); err != nil { // JSON is YAML
		return nil, err
	}
	unquoted(&doc)
	return yaml.Dump(&doc, yaml.WithIndent(2), yaml.WithLineWidth(-1))
}

// unquoted takes the brackets and quotes of JSON away, where YAML needs none.
func unquoted(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode && len(n.Content) > 0 {
		n.Style = 0
	}
	if n.Kind == yaml.ScalarNode && n.Style == yaml.DoubleQuotedStyle && n.Tag == "!!str" && n.Value != "" {
		n.Style = 0 // the encoder quotes what would be read as another type
	}
	for _, c := range n.Content {
		unquoted(c)
	}
}
