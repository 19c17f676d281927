package failures_test

import (
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/docs/failures"
)

func TestPages(t *testing.T) {
	t.Parallel()
	all := failures.Reasons()
	if len(all) < 50 || !slices.IsSorted(all) || slices.Contains(all, "README") {
		t.Errorf("%d reasons: %v", len(all), all)
	}
	for _, r := range all {
		if page, ok := failures.Page(r); !ok || !strings.HasPrefix(page, "# "+r+"\n") {
			t.Errorf("%s: %t %.40q", r, ok, page)
		}
	}
	for _, r := range []string{"", "README", "all-is-well", "../failures/unknown", "unknown.md", "unknown/../unknown"} {
		if page, ok := failures.Page(r); ok {
			t.Errorf("%q: %.40q", r, page)
		}
	}
}

// A page that the mirror serves or prints has no link to a file that the mirror does not serve; the files that it speaks of
// are there in the repository.
func TestPagesHaveNoDeadLinks(t *testing.T) {
	t.Parallel()
	links := regexp.MustCompile(`\]\(([^)]*)\)`)
	paths := regexp.MustCompile(`docs/[\w./-]*\w\.md`)
	told := 0
	for _, name := range append(failures.Reasons(), "README") {
		page, ok := failures.Find(name + ".md")
		if !ok {
			t.Errorf("%s: no page", name)
		}
		for _, m := range links.FindAllStringSubmatch(page, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if strings.HasPrefix(target, "https://") || target == "" {
				continue
			}
			if _, ok := failures.Find(target); !ok || !strings.HasSuffix(target, ".md") {
				t.Errorf("%s: a dead link to %s", name, m[1])
			}
		}
		for _, file := range paths.FindAllString(page, -1) {
			told++
			if _, err := fs.Stat(os.DirFS("../.."), file); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if told == 0 {
		t.Error("no page tells of another file")
	}
	page, _ := failures.Page("tag-not-found")
	if !strings.Contains(page, "See docs/clients.md.") {
		t.Errorf("%s", page)
	}
	page, _ = failures.Page("credentials-expired")
	if !strings.Contains(page, "see credentials (docs/credentials.md)") {
		t.Errorf("%s", page)
	}
}
