package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// binary reports the first byte that is not text: the parser would not say where it is. UTF-16, which begins with its byte
// order mark, is left to the parser.
func (d *Document) binary(data []byte) bool {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return false
	}
	line, begin := 1, 0
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		found := fmt.Sprintf("the control character 0x%02x", data[i])
		switch {
		case r == '\n':
			line, begin = line+1, i+1
		case r == '\t', r == '\r', r >= ' ' && r != 0x7f && (r != utf8.RuneError || n > 1):
		default:
			if r == utf8.RuneError {
				found = fmt.Sprintf("the byte 0x%02x, which is not UTF-8", data[i])
			}
			d.add(line, utf8.RuneCount(data[begin:i])+1, "", "not text: here is "+found, "is it the right file?")
			return true
		}
		i += n
	}
	return false
}

// syntax reports an error of the parser.
func (d *Document) syntax(err error, data []byte) {
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
		} else if star := unquotedStar(data, line, column); star != "" {
			message, hint = "a word that begins with * needs quotes", "write \""+star+"\""
		}
	}
	d.add(line, column, "", "not YAML: "+message, hint)
}

// unquotedStar is the word at a place, if it begins with a *: YAML takes that for the name of an alias, and it was meant as
// a pattern. The parser points at the * itself or behind it.
func unquotedStar(data []byte, line, column int) string {
	n := 1
	for text := range bytes.Lines(data) {
		if n++; n <= line {
			continue
		}
		at := bytes.LastIndexByte(text[:min(max(column, 1), len(text))], '*')
		if at < 0 {
			at = bytes.IndexByte(text, '*')
		}
		for at > 0 && text[at-1] == '*' {
			at--
		}
		if at < 0 || at > 0 && !bytes.ContainsRune([]byte(" \t[{,"), rune(text[at-1])) {
			return ""
		}
		word := text[at:]
		for i, c := range word { // to the end of the key or value
			if c == ',' || c == ']' || c == '}' || c == '#' || c == '\n' || c == '\r' ||
				c == ':' && (i+1 == len(word) || bytes.ContainsRune([]byte(" \r\n"), rune(word[i+1]))) {
				word = word[:i]
				break
			}
		}
		if word = bytes.TrimSpace(word); len(word) > 1 && !bytes.ContainsAny(word[1:], "*./:") {
			return "" // the name of an alias that is not defined
		}
		return string(word)
	}
	return ""
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
