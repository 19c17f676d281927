package images

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/registrymirror/mirror/internal/strictyaml"
	"github.com/registrymirror/mirror/internal/text"
)

// read reads one text in any form.
func (c *collector) read(file string, r io.Reader) {
	c.file, c.document = file, 0
	data, err := io.ReadAll(io.LimitReader(r, c.left+1))
	switch {
	case err != nil:
		c.problem(0, "", err.Error())
		return
	case int64(len(data)) > c.left:
		c.problem(0, "", fmt.Sprintf("more than %d bytes in all; nothing of this file is read", c.MaxBytes))
		return
	}
	c.left -= int64(len(data))
	// Windows writes files as UTF-16, or with a byte order mark, which is in the middle of files that were joined.
	if data, _, err = transform.Bytes(unicode.BOMOverride(transform.Nop), data); err != nil {
		c.problem(0, "", err.Error())
		return
	}
	data = bytes.ReplaceAll(data, []byte("\n\ufeff"), []byte("\n"))
	if isList(data) {
		c.list(data)
		return
	}
	for line, document := range documents(data) {
		if !c.json(line, document) {
			c.yaml(line, document)
		}
		if c.document > maxDocuments {
			return
		}
	}
}

// begin begins a document. It reports false where the file has too many.
func (c *collector) begin(line int) bool {
	if c.document++; c.document > maxDocuments {
		c.problem(line, "", fmt.Sprintf("more than %d documents; those from here on are not read", maxDocuments))
		return false
	}
	return true
}

// documents cuts a stream of YAML at the lines with ---, so that a mistake in one document does not keep the next one from
// being read. It yields each with the number of its first line. Comments and directives before the first --- belong to
// the document after it.
func documents(data []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		start, first, line, blank := 0, 1, 0, true
		for at := 0; at < len(data); {
			line++
			text, _, _ := bytes.Cut(data[at:], []byte("\n"))
			switch {
			case !isMarker(text):
				blank = blank && isBlank(text)
			case blank:
				blank = false
			default:
				if !yield(first, data[start:at]) {
					return
				}
				start, first = at, line
			}
			at += len(text) + 1
		}
		if start < len(data) {
			yield(first, data[start:])
		}
	}
}

// isMarker reports whether a line begins a document.
func isMarker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r"), rest[0]) >= 0)
}

// isBlank reports whether a line has no more than a comment or a directive.
func isBlank(line []byte) bool {
	line = bytes.TrimSpace(line)
	return len(line) == 0 || line[0] == '#' || line[0] == '%'
}

// yaml reads a part of a stream of YAML, which is one document, or several if lines with ... end them.
func (c *collector) yaml(first int, data []byte) {
	if values(data) > c.MaxValues {
		if c.begin(first) {
			c.problem(first, "", fmt.Sprintf("more than %d values in one document; divide it with ---, or give it as JSON", c.MaxValues))
		}
		return
	}
	limits := loaderlimits.New(loaderlimits.DepthValue(maxDepth))
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(limits))
	for err == nil {
		var n yaml.Node
		if err = loader.Load(&n); errors.Is(err, io.EOF) || !c.begin(first) {
			return
		}
		if err == nil && len(n.Content) > 0 {
			c.walk(n.Content[0], "", first-1)
		}
	}
	c.broken(data, first, err)
}

// values is about how many values a document has, by its punctuation. The parser makes a tree of the whole document before they
// can be counted, and two bytes can become a value of 200.
func values(data []byte) int {
	n := 0
	for i, b := range data {
		switch b {
		case ',', '[', '{':
			n += 2
		case ':', '-', '?':
			if i+1 == len(data) || bytes.IndexByte([]byte(" \t\r\n"), data[i+1]) >= 0 {
				n += 2
			}
		}
	}
	return n
}

var (
	// control matches a line that controls a template: {{- if .Values.enabled }}.
	control = regexp.MustCompile(`^\s*\{[{%]`)
	// unquoted matches a line with an expression that YAML does not take for a text.
	unquoted = regexp.MustCompile(`^[^'"]*\{\{`)
)

// broken reports a document that the parser refused.
func (c *collector) broken(data []byte, first int, err error) {
	p := strictyaml.Syntax(data, first, err)
	line := first
	for row := range strings.Lines(string(data)) {
		if line <= p.Line && control.MatchString(row) || line == p.Line && unquoted.MatchString(row) {
			c.problem(line, "", fmt.Sprintf("a template that was not rendered: %s (give the output of \"helm template\")", text.Line(row, 80)))
			return
		}
		line++
	}
	c.problem(p.Line, "", fmt.Sprintf("%s (%s)", text.Line(p.Message, 200), p.Hint))
}
