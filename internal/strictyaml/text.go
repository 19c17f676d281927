package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// binary reports the first byte that is not text: the parser would not say where it is. UTF-16, which begins with its byte
// order mark, is left to the parser.
func binary(data []byte) (Problem, bool) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return Problem{}, false
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
			column := utf8.RuneCount(data[begin:i]) + 1
			return Problem{Line: line, Column: column, Message: "not text: here is " + found, Hint: "is it the right file?"}, true
		}
		i += n
	}
	return Problem{}, false
}

// Syntax says why the parser of yaml refused data, whose first line is that number of its file, with err. The problem has a
// line and a column, and no file.
func Syntax(data []byte, first int, err error) Problem {
	if p, found := binary(data); found {
		p.Line += first - 1
		return p
	}
	line, column, message := 1, 1, err.Error()
	hint := "check quotes, brackets and indentation, which is by spaces"
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		message = e.Message
		line, column = e.Mark.Line, e.Mark.Column
		if e.ContextMsg != "" {
			message = e.ContextMsg + ": " + message
		}
		if from := e.ContextMark.Line; from > 0 && from < line {
			hint = fmt.Sprintf("what is read there begins on line %d; %s", from+first-1, hint)
		}
		if text := lineOf(data, line); strings.Contains(text[:len(text)-len(strings.TrimLeft(text, " \t"))], "\t") {
			message, hint = "a tab in the indentation", "indent with spaces"
		} else if star := unquotedStar(data, line, column); star != "" {
			message, hint = "a word that begins with * needs quotes", "write \""+star+"\""
		}
	}
	line = max(line, 1) + first - 1
	return Problem{Line: line, Column: max(column, 1), Message: "not YAML: " + message, Hint: hint}.redacted()
}

// unquotedStar is the word at a place, if it begins with a *: YAML takes that for the name of an alias, and it was meant as
// a pattern. The parser points at the * itself or behind it.
func unquotedStar(data []byte, line, column int) string {
	text := lineOf(data, line)
	at := strings.LastIndexByte(text[:min(max(column, 1), len(text))], '*')
	if at < 0 {
		at = strings.IndexByte(text, '*')
	}
	for at > 0 && text[at-1] == '*' {
		at--
	}
	if at < 0 || at > 0 && !strings.Contains(" \t[{,", text[at-1:at]) {
		return ""
	}
	word := keyOrValue.FindString(text[at:])
	if word = strings.TrimSpace(word); len(word) > 1 && !strings.ContainsAny(word[1:], "*./:") {
		return "" // the name of an alias that is not defined
	}
	return word
}

// keyOrValue is the beginning of a line up to the end of a key or value. A colon ends a key where a space is behind it.
var keyOrValue = regexp.MustCompile(`^([^,\]}#\r\n:]|:[^ ,\]}#\r\n])*`)

// lineOf is a line of a text, from 1 on.
func lineOf(data []byte, line int) string {
	for text := range bytes.Lines(data) {
		if line--; line == 0 {
			return string(text)
		}
	}
	return ""
}
