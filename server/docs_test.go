package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/server"
)

const failures = "../docs/failures"

// TestEveryReasonHasAPage holds docs/failures to the reasons there are: to it lead the links in error bodies.
func TestEveryReasonHasAPage(t *testing.T) {
	t.Parallel()
	golden := read(t, "../diagnose/testdata/explain.golden")
	index := read(t, filepath.Join(failures, "README.md"))
	for _, r := range diagnose.Reasons() {
		page := read(t, filepath.Join(failures, string(r)+".md"))
		if !strings.HasPrefix(page, "# "+string(r)+"\n\n") {
			t.Errorf("%s: its page has another title", r)
		}
		at := 0
		for _, title := range []string{"What you see", "Why", "What to do", "What the mirror does meanwhile"} {
			i := strings.Index(page, "\n## "+title+"\n")
			if i < at {
				t.Errorf("%s: no section %q, or not in its place", r, title)
			}
			at = max(at, i)
		}
		if want := fmt.Sprintf("Class `%s`.", r.Class()); !strings.Contains(page, want) {
			t.Errorf("%s: its page does not say %q", r, want)
		}
		if answer := server.AnswerTo(r).Status; r.Class() != diagnose.ClassClient && !strings.Contains(page, fmt.Sprint(answer)) {
			t.Errorf("%s: its page does not say that the answer is %d", r, answer)
		}
		if !strings.Contains(index, fmt.Sprintf("\n| [%[1]s](%[1]s.md) | ", r)) {
			t.Errorf("%s is not in the list", r)
		}
		// What the page shows is what is said.
		_, seen, _ := strings.Cut(page, "```\n")
		seen, _, _ = strings.Cut(seen, "\n```")
		summary, _, _ := strings.Cut(seen, "; ")
		said := regexp.MustCompile(fmt.Sprintf(`\n%s \(%s\)(, declined)?\n%s`, r, r.Class(), regexp.QuoteMeta(summary)))
		if r != diagnose.Overloaded && !said.MatchString(golden) {
			t.Errorf("%s: nobody says %q", r, summary)
		}
	}
}

// TestWhatIsSeenHasAPage holds them to the reasons that no error stands for, too.
func TestWhatIsSeenHasAPage(t *testing.T) {
	t.Parallel()
	index := read(t, filepath.Join(failures, "README.md"))
	for _, r := range diagnose.Seen() {
		page := read(t, filepath.Join(failures, string(r)+".md"))
		if !strings.HasPrefix(page, "# "+string(r)+"\n\n") || !strings.Contains(page, fmt.Sprintf("Class `%s`.", r.Class())) {
			t.Errorf("%s: its page has another title or class", r)
		}
		if !strings.Contains(index, fmt.Sprintf("\n| [%[1]s](%[1]s.md) | ", r)) {
			t.Errorf("%s is not in the list", r)
		}
	}
}

// TestPagesOfReasonsAlone has no page without a reason, and no link that leads nowhere.
func TestPagesOfReasonsAlone(t *testing.T) {
	t.Parallel()
	list, err := filepath.Glob(filepath.Join(failures, "*.md"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	link := regexp.MustCompile(`\]\(([^)#]+)[)#]`)
	for _, file := range list {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		if name != "README" && !slices.Contains(append(diagnose.Reasons(), diagnose.Seen()...), diagnose.Reason(name)) {
			t.Errorf("%s is no reason", name)
		}
		for _, m := range link.FindAllStringSubmatch(read(t, file), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(failures, m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
