// Package failures holds the pages about the reasons why pulls fail, as they are in this version, so that they can be read
// without the internet: mirror explain REASON prints one.
package failures

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.md
var pages embed.FS

// Pages are the files: README.md, which is the list, and REASON.md.
func Pages() fs.FS { return pages }

// Page is the page of a reason, in Markdown, and false where there is none.
func Page(reason string) (string, bool) {
	if reason == "README" || strings.ContainsAny(reason, "/.") {
		return "", false
	}
	b, err := pages.ReadFile(reason + ".md")
	return string(b), err == nil
}

// Reasons are those that have a page, sorted.
func Reasons() (all []string) {
	list, err := pages.ReadDir(".")
	if err != nil {
		return nil // it is there by construction
	}
	for _, f := range list {
		if name := strings.TrimSuffix(f.Name(), ".md"); name != "README" {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}
