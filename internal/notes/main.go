// Command notes prints the notes of a release: a section of the changelog, which it reads from standard input, sorted by the
// kind of its lines. "make release-notes" runs it.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	version := "Unreleased"
	if len(os.Args) > 1 {
		version = os.Args[1]
	}
	text, err := notes(os.Stdin, version)
	if err == nil {
		_, err = io.WriteString(os.Stdout, text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "notes:", err)
		os.Exit(1)
	}
}

// kinds are the kinds of the changelog's lines, in the order in which a reader needs them, with their headings.
var kinds = []struct{ word, heading string }{
	{"CHANGE", "Changes that may need you"},
	{"SECURITY", "Security"},
	{"FEATURE", "New"},
	{"ENHANCEMENT", "Better"},
	{"BUGFIX", "Mended"},
}

var entry = regexp.MustCompile(`^- \[([A-Z]+)\] (.*)$`)

// notes makes the notes of a version from its section of the changelog. A date may follow the version in the heading.
func notes(changelog io.Reader, version string) (string, error) {
	by := make(map[string][]string)
	var intro []string
	found, inside, kind := false, false, ""
	lines := bufio.NewScanner(changelog)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			inside = heading == version || strings.HasPrefix(heading, version+" ")
			found, kind = found || inside, ""
			continue
		}
		m := entry.FindStringSubmatch(line)
		switch {
		case !inside:
		case m != nil:
			if kind = m[1]; !known(kind) {
				return "", fmt.Errorf("line %d: unknown kind [%s]", n, kind)
			}
			by[kind] = append(by[kind], "- "+m[2])
		case strings.HasPrefix(line, "- "):
			return "", fmt.Errorf("line %d has no kind, as in - [BUGFIX] text", n)
		case kind == "" && line != "":
			intro = append(intro, line)
		case strings.HasPrefix(line, "  "):
			by[kind][len(by[kind])-1] += "\n" + line
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	if !found {
		return "", fmt.Errorf("the changelog has no section %s; rename Unreleased to it, and add the date", version)
	}
	var b strings.Builder
	if len(intro) > 0 {
		fmt.Fprintf(&b, "%s\n\n", strings.Join(intro, "\n"))
	}
	for _, k := range kinds {
		if len(by[k.word]) > 0 {
			fmt.Fprintf(&b, "## %s\n\n%s\n\n", k.heading, strings.Join(by[k.word], "\n"))
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n", nil
}

func known(word string) bool {
	for _, k := range kinds {
		if k.word == word {
			return true
		}
	}
	return false
}
