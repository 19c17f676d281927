package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/strictyaml"
)

// Text is a configuration's file as it was read.
type Text struct {
	Data []byte
	at   string      // the path of the file once links are followed
	info os.FileInfo // identifies the file, so that one which was renamed into place is another; nil: not known
}

// rewritten reports whether a text was written into the same file as another one before, so that it may be half written. A
// file that was renamed into place, or that a link now points to, as in a mounted ConfigMap, was complete before.
func (t Text) rewritten(before Text) bool {
	return t.at == before.at && (t.info == nil || before.info == nil || os.SameFile(t.info, before.info))
}

// SeenAt is t, which is in use, with the file of a later text that was refused: the next text in that file is compared with
// t.
func (t Text) SeenAt(later Text) Text {
	if later.at != "" {
		t.at, t.info = later.at, later.info
	}
	return t
}

// Read reads the file at path as Load does. With an empty path there is none.
func Read(path string) (Text, error) {
	if path == "" {
		return Text{}, nil
	}
	at, err := filepath.EvalSymlinks(path)
	if err != nil {
		at = path // reading it reports the error
	}
	info, err := os.Stat(path)
	if err != nil {
		info = nil // the same
	}
	data, err := readFile(path)
	if err != nil {
		return Text{}, fmt.Errorf("read the configuration: %w", err)
	}
	return Text{Data: data, at: at, info: info}, nil
}

// ReadFrom reads a configuration that is not in a file. An empty one is an accident, as in Read.
func ReadFrom(r io.Reader) (Text, error) {
	data, err := io.ReadAll(io.LimitReader(r, strictyaml.MaxSize+1))
	if err != nil {
		return Text{}, fmt.Errorf("read the configuration: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return Text{}, errors.New("read the configuration: it is empty; run the program in front of the pipe alone to see what it prints")
	}
	return Text{Data: data}, nil
}

// CutError says that a file looks cut off, as if an editor or a copy were not finished.
type CutError struct {
	File string
	// Line is the last line there is, from 1.
	Line int
	// Why is the sign of it, as the end of a sentence.
	Why string
}

func (e *CutError) Error() string {
	return fmt.Sprintf("%s ends at line %d, and %s: it looks cut off; write it to its end, or, if all of it is there, add ... as its "+
		"last line, which ends a YAML document", e.File, e.Line, e.Why)
}

// Whole reports, as a *CutError, that a file which is to replace the one in use looks cut off. YAML has no end that must be
// there, and half a file is often valid: one without its upstreams opens the well-known ones to all clients. So a file is
// refused that
//   - ends where the one in use goes on: its last lines are in the middle of that one, or one of its last lines is, with
//     fewer lines after it;
//   - ends within a line, where the one in use does not;
//   - has lost upstreams or rules, with everything after them.
//
// A last line of three dots says that the file is complete. A file that was renamed into place, as most editors and tools do,
// or that came by another link, as a mounted ConfigMap does, was complete before.
func (t Text) Whole(file string, running Text) error {
	next, was := bytes.TrimRight(t.Data, " \t\r\n"), bytes.TrimRight(running.Data, " \t\r\n")
	if !guard.Whole || len(was) == 0 || !t.rewritten(running) || ended(next) || bytes.Equal(next, was) {
		return nil
	}
	cut := &CutError{File: file, Line: 1 + bytes.Count(next, []byte("\n"))}
	switch lost := lostKey(next, was); {
	case ended(was):
		cut.Why = "the one in use ends with the line ..."
	case bytes.HasPrefix(was, next), !bytes.HasSuffix(was, tail(next)) && goesOn(was, tail(next)), shorter(next, was):
		cut.Why = "the one in use goes on there"
	case !bytes.HasSuffix(t.Data, []byte("\n")) && bytes.HasSuffix(running.Data, []byte("\n")):
		cut.Why = "it has no line break at its end"
	case lost != "":
		cut.Why = "the one in use has " + lost + " and this one has not"
	default:
		return nil
	}
	return cut
}

// ended reports whether a text ends with the line that ends a YAML document.
func ended(text []byte) bool {
	return bytes.Equal(text, []byte("...")) || bytes.HasSuffix(text, []byte("\n..."))
}

// tail is the last two lines of a text that have content; the last one may be cut.
func tail(text []byte) []byte {
	lines, found := bytes.SplitAfter(text, []byte("\n")), 0
	for i, line := range slices.Backward(lines) {
		if len(bytes.TrimSpace(line)) > 0 {
			found++
		}
		if found == 2 {
			return bytes.Join(lines[i:], nil)
		}
	}
	return text
}

// goesOn reports whether some lines stand in a text, with more than comments behind them.
func goesOn(text, lines []byte) bool {
	if bytes.IndexByte(lines, '\n') < 0 {
		return false // two files may well end with the same line
	}
	for at := 0; ; {
		i := bytes.Index(text[at:], lines)
		if i < 0 {
			return false
		}
		begin, end := at+i, at+i+len(lines)
		if (begin == 0 || text[begin-1] == '\n') && hasContent(text[end:]) {
			return true
		}
		at = begin + 1
	}
}

// shorter reports whether next has fewer lines than was behind the last line that both have, and was once only: the lines
// that were edited last in a file that is cut off are not in the one in use.
func shorter(next, was []byte) bool {
	const look = 5
	for behind := 0; behind < look && len(next) > 0; behind++ {
		next = bytes.TrimRight(next, " \t\r\n")
		line := next[bytes.LastIndexByte(next, '\n')+1:]
		next = next[:len(next)-len(line)]
		if i := bytes.Index(was, line); hasContent(line) && i >= 0 && (i == 0 || was[i-1] == '\n') &&
			bytes.Count(was, line) == 1 && atLineEnd(was[i+len(line):]) {
			return countLines(was[i+len(line):]) > behind
		}
		if !hasContent(line) {
			behind--
		}
	}
	return false
}

// atLineEnd reports whether a line ends where a text begins.
func atLineEnd(text []byte) bool {
	return len(text) == 0 || text[0] == '\n' || text[0] == '\r'
}

// countLines counts the lines that are more than blanks and comments.
func countLines(text []byte) (n int) {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			n++
		}
	}
	return n
}

// hasContent reports whether a text is more than blanks and comments.
func hasContent(text []byte) bool { return countLines(text) > 0 }

// lostKey is upstreams or rules, if was has that key and next does not; else empty.
func lostKey(next, was []byte) string {
	for _, key := range []string{"upstreams:", "rules:"} {
		if hasKey(was, key) && !hasKey(next, key) {
			return key[:len(key)-1]
		}
	}
	return ""
}

func hasKey(text []byte, key string) bool {
	return bytes.HasPrefix(text, []byte(key)) || bytes.Contains(text, []byte("\n"+key))
}
