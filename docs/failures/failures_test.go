package failures_test

import (
	"io/fs"
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
	if _, err := fs.Stat(failures.Pages(), "README.md"); err != nil {
		t.Error(err)
	}
}
