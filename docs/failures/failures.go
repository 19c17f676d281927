// Package failures holds the pages about the reasons why pulls fail, as they are in this version, so that they can be read
// without the internet: mirror explain REASON prints one.
package failures

import (
	"embed"
	"path"
	"regexp"
	"slices"
	"strings"
)

// pages are the files: README.md, which is the list, and REASON.md.
//
//go:embed *.md
var pages embed.FS

// outside matches a link to a file that is not among the pages.
var outside = regexp.MustCompile(`\[([^\]]*)\]\((\.\./[^)\s]*)\)`)

// offline is a page as it is read without the repository around it: a link to a file that is not among the pages becomes
// its text, and the file's path in the repository.
func offline(page string) string {
	return outside.ReplaceAllStringFunc(page, func(link string) string {
		m := outside.FindStringSubmatch(link)
		text, target := m[1], m[2]
		file, _, _ := strings.Cut(target, "#")
		file = path.Join("docs/failures", file)
		if text == path.Base(file) {
			return file
		}
		return text + " (" + file + ")"
	})
}

// Page is the page of a reason, in Markdown, as it is read offline, and false where there is none.
func Page(reason string) (string, bool) {
	if reason == "README" || strings.ContainsAny(reason, "/.") {
		return "", false
	}
	b, err := pages.ReadFile(reason + ".md")
	return offline(string(b)), err == nil
}

// Find is the page at a path below the folder, as Page gives it: REASON or REASON.md, and the list of all at README.md or
// nothing.
func Find(at string) (text string, ok bool) {
	name := strings.TrimSuffix(at, ".md")
	if name == "" || name == "README" {
		b, err := pages.ReadFile("README.md")
		return offline(string(b)), err == nil
	}
	return Page(name)
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
