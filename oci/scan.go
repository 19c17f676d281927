package oci

import (
	"bytes"
	"encoding/json"
	"iter"
)

// A manifest of 4 MiB must cost little more memory than that, whatever is in it. encoding/json's Decoder copies its input
// three times; so a document is checked to be JSON once, and then scanned in place.

// blank is where the white space at i ends.
func blank(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// text is where the string that begins at i ends.
func text(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// value is where the value that begins at i ends. In text that is not JSON it is some place within the text.
func value(b []byte, i int) int {
	for depth := 0; i < len(b); {
		switch b[i] {
		case '"':
			i = text(b, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		default: // of a number or word the last byte is before a comma, a bracket or a blank
			if i++; depth == 0 && i < len(b) && bytes.IndexByte([]byte(",]} \t\n\r"), b[i]) < 0 {
				continue
			}
		}
		if depth <= 0 {
			return i
		}
	}
	return len(b)
}

// members yields the keys of an object and their values, which are parts of b. b is known to be JSON.
func members(b []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for i := blank(b, 1); i < len(b) && b[i] != '}'; {
			end := text(b, i)
			name := unquoted(b[i:end])
			i = blank(b, blank(b, end)+1) // behind the colon
			end = value(b, i)
			if !yield(name, b[i:end]) {
				return
			}
			if i = blank(b, end); i < len(b) && b[i] == ',' {
				i = blank(b, i+1)
			}
		}
	}
}

// unquoted is the text of a string of JSON.
func unquoted(b []byte) (s string) {
	if plain := b[1 : len(b)-1]; bytes.IndexFunc(plain, func(r rune) bool { return r == '\\' || r >= 0x7f }) < 0 {
		return string(plain)
	}
	_ = json.Unmarshal(b, &s) // it is a string
	return s
}

// elements yields the elements of a list, which are parts of b. b is known to be JSON.
func elements(b []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		i := blank(b, 1)
		for n := 0; i < len(b) && b[i] != ']'; n++ {
			end := value(b, i)
			if !yield(n, b[i:end]) {
				return
			}
			if i = blank(b, end); i < len(b) && b[i] == ',' {
				i = blank(b, i+1)
			}
		}
	}
}
