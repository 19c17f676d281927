package config

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// binary reports the first byte that no text has: the parser says of it neither where it is nor that the file may be the
// wrong one. A file in UTF-16, which begins with its mark, is the parser's.
func (d *decoder) binary(data []byte) bool {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return false
	}
	line, begin := 1, 0
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		what := fmt.Sprintf("the control character 0x%02x", data[i])
		switch {
		case r == '\n':
			line, begin = line+1, i+1
		case r == '\t', r == '\r', r >= ' ' && r != 0x7f && (r != utf8.RuneError || n > 1):
		default:
			if r == utf8.RuneError {
				what = fmt.Sprintf("the byte 0x%02x, which is not UTF-8", data[i])
			}
			d.add(line, utf8.RuneCount(data[begin:i])+1, "", "not text: here is "+what, "is it the right file?")
			return true
		}
		i += n
	}
	return false
}

// syntax reports what the parser says.
func (d *decoder) syntax(err error, data []byte) {
	line, column, message := 1, 1, err.Error()
	hint := "check quotes, brackets and indentation, which is by spaces"
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		message = e.Message
		line, column = e.Mark.Line, e.Mark.Column
		if e.ContextMsg != "" {
			message = e.ContextMsg + ": " + message
		}
		if from := e.ContextMark.Line; from > 0 && from < line {
			hint = fmt.Sprintf("what is read there begins on line %d; %s", from, hint)
		}
		if tabs(data, line) {
			message, hint = "a tab in the indentation", "indent with spaces"
		}
	}
	d.add(line, column, "", "not YAML: "+message, hint)
}

// tabs reports whether a line is indented by a tab.
func tabs(data []byte, line int) bool {
	n := 1
	for text := range bytes.Lines(data) {
		if n == line {
			indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
			return bytes.ContainsRune(indent, '\t')
		}
		n++
	}
	return false
}
