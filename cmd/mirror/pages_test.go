package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading      = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	anyFence     = regexp.MustCompile("(?ms)^ *```.*?^ *```")
)

// anchors are the names by which links reach the headings of a page, as GitHub makes them.
func anchors(page string) map[string]bool {
	found := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(anyFence.ReplaceAllString(page, ""), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		found[name] = true
	}
	return found
}

// Each link of a document to another one, or into it, leads somewhere.
func TestLinksOfTheDocuments(t *testing.T) {
	t.Parallel()
	seen := 0
	documents(t, func(path, text string) {
		for _, m := range markdownLink.FindAllStringSubmatch(anyFence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			seen++
			file, anchor, _ := strings.Cut(m[1], "#")
			target, page := path, text
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: there is no %s", path, m[1])
					continue
				}
			}
			if anchor == "" {
				continue
			}
			if file != "" {
				b, err := os.ReadFile(target)
				if err != nil {
					t.Errorf("%s: %s: %v", path, m[1], err)
					continue
				}
				page = string(b)
			}
			if !anchors(page)[anchor] {
				t.Errorf("%s: %s has no heading for %s", path, target, m[1])
			}
		}
	})
	if seen < 300 {
		t.Errorf("only %d links were found", seen)
	}
}
