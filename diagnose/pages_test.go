package diagnose_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose"
)

const (
	pages  = "../docs/failures"
	scenes = "../e2e/internal/trouble/table.go"
)

// TestReasonsAreComplete names what a reason lacks: its page, its golden finding or its scene. CONTRIBUTING.md has the recipe.
func TestReasonsAreComplete(t *testing.T) {
	t.Parallel()
	golden, table := text(t, "testdata/explain.golden"), text(t, scenes)
	for _, r := range diagnose.Reasons() {
		page, err := os.ReadFile(filepath.Join("..", r.Page()))
		if err != nil {
			t.Errorf("%s has no page: %v", r, err)
		} else {
			checkPage(t, r, string(page))
		}
		if r.Origin() == diagnose.InRequest && r != diagnose.Overloaded {
			checkGolden(t, r, golden, string(page))
		}
		inScene, elsewhere := strings.Contains(table, fmt.Sprintf("Reason: %q,", r)), strings.Contains(table, fmt.Sprintf("\t%q: ", r))
		switch {
		case r.Origin() == diagnose.OnNode && inScene:
			t.Errorf("%s has a scene in %s, but only the client sees it", r, scenes)
		case r.Origin() != diagnose.OnNode && !inScene && !elsewhere:
			t.Errorf("%s has no scene in %s, nor a line under Elsewhere that says why not", r, scenes)
		case inScene && elsewhere:
			t.Errorf("%s has a scene in %s and a line under Elsewhere: remove one", r, scenes)
		}
		if r.Origin() == diagnose.OnNode && r.Advice() == (diagnose.Advice{}) {
			t.Errorf("%s has no advice in reasons.go: mirror explain has nothing to tell about it", r)
		}
		if a := r.Answer(); r.Origin() == diagnose.InRequest && a == diagnose.InternalError.Answer() && r != diagnose.InternalError {
			t.Errorf("%s has no answer in reasons.go", r)
		}
	}
}

// checkPage holds a page to the table and to the order of its sections.
func checkPage(t *testing.T, r diagnose.Reason, page string) {
	t.Helper()
	if !strings.HasPrefix(page, "# "+string(r)+"\n\n") {
		t.Errorf("%s: its page has another title", r)
	}
	if want := fmt.Sprintf("Class `%s`.", r.Class()); !strings.Contains(page, want) {
		t.Errorf("%s: its page does not say %q", r, want)
	}
	if r.Origin() != diagnose.InRequest {
		return
	}
	at := 0
	for _, title := range []string{"What you see", "Why", "What to do", "What the mirror does meanwhile"} {
		i := strings.Index(page, "\n## "+title+"\n")
		if i < at {
			t.Errorf("%s: its page has no section %q, or not in its place", r, title)
		}
		at = max(at, i)
	}
	if status := r.Answer().Status; r.Class() != diagnose.ClassClient && !strings.Contains(page, fmt.Sprint(status)) {
		t.Errorf("%s: its page does not say that the answer is %d", r, status)
	}
}

// checkGolden holds the sentence that a page shows to the findings.
func checkGolden(t *testing.T, r diagnose.Reason, golden, page string) {
	t.Helper()
	if !strings.Contains(golden, fmt.Sprintf("\n%s (%s)", r, r.Class())) {
		t.Errorf("%s has no finding in testdata/explain.golden: add a case to explain_test.go", r)
		return
	}
	_, shown, _ := strings.Cut(page, "```\n")
	shown, _, _ = strings.Cut(shown, "\n```")
	summary, _, _ := strings.Cut(shown, "; ")
	if !regexp.MustCompile(fmt.Sprintf(`\n%s \(%s\)(, declined)?\n%s`, r, r.Class(), regexp.QuoteMeta(summary))).MatchString(golden) {
		t.Errorf("%s: its page shows a sentence that no finding in testdata/explain.golden has: %q", r, summary)
	}
}

// TestPagesHaveReasons has no page without a reason, and no link that leads nowhere.
func TestPagesHaveReasons(t *testing.T) {
	t.Parallel()
	list, err := filepath.Glob(filepath.Join(pages, "*.md"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	link := regexp.MustCompile(`\]\(([^)#]+)[)#]`)
	for _, file := range list {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		if name != "README" && !slices.Contains(diagnose.Reasons(), diagnose.Reason(name)) {
			t.Errorf("%s is not a reason", name)
		}
		for _, m := range link.FindAllStringSubmatch(text(t, file), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(pages, m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

const (
	listBegin = "<!-- the list: go test ./diagnose -update -->\n"
	listEnd   = "<!-- the end of the list -->\n"
)

// TestList holds the list of reasons in docs/failures to the table and to the first paragraph of each page; -update writes it.
func TestList(t *testing.T) {
	t.Parallel()
	file := filepath.Join(pages, "README.md")
	readme := text(t, file)
	before, rest, ok := strings.Cut(readme, listBegin)
	have, after, ok2 := strings.Cut(rest, listEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no list", file)
	}
	want := list(t)
	if have == want {
		return
	}
	if !*update {
		t.Errorf("the list in %s differs from the table of reasons and the pages; -update writes it:\n%s", file, want)
		return
	}
	if err := os.WriteFile(file, []byte(before+listBegin+want+listEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// list has a section for each class, and one for the reasons that only a client sees.
func list(t *testing.T) string {
	t.Helper()
	titles := map[diagnose.Class]string{diagnose.ClassTLS: "TLS", diagnose.ClassAuth: "Authentication", diagnose.ClassLimit: "Limits"}
	var b strings.Builder
	section := ""
	for _, r := range diagnose.Reasons() {
		title, intro := titles[r.Class()], ""
		if title == "" {
			title = strings.ToUpper(string(r.Class()[:1])) + string(r.Class()[1:])
		}
		if r.Origin() == diagnose.OnNode {
			title, intro = "On the node", "These never reach the mirror. `mirror explain` reads them in events and logs.\n\n"
		}
		if title != section {
			if section != "" {
				b.WriteString("\n")
			}
			section = title
			fmt.Fprintf(&b, "### %s\n\n%s| reason | what happened |\n|---|---|\n", title, intro)
		}
		paragraphs := strings.SplitN(text(t, filepath.Join("..", r.Page())), "\n\n", 3)
		fmt.Fprintf(&b, "| [%[1]s](%[1]s.md) | %[2]s |\n", r, strings.ReplaceAll(paragraphs[1], "\n", " "))
	}
	return b.String()
}

func text(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
