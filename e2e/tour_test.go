package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// TestTour runs the tour with each of its clients: ten acts, each with what a client prints without the mirror and with
// it, and what was recorded, in text that can be pasted. The README shows some of it.
func TestTour(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "tour")
	proc.Must(t, proc.Options{Env: []string{"CGO_ENABLED=0"}}, tool.System(t, "env"), "go", "build", "-o", bin, "./tour")
	for _, client := range []string{"containerd", "library"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			text := proc.Must(t, proc.Options{}, bin, "-mirror", mirrord.Binary, "-client", client)
			acts := actsOf(text)
			if len(acts) != 10 {
				t.Fatalf("%d acts, want 10:\n%s", len(acts), text)
			}
			for number, act := range acts {
				for _, part := range []string{"    without   ", "    with      ", "    recorded  "} {
					if !strings.Contains(act, part) {
						t.Errorf("act %s has no %q:\n%s", number, part, act)
					}
				}
			}
			for line := range strings.Lines(text) {
				if len(strings.TrimRight(line, "\n")) > 100 || strings.ContainsAny(line, "\x1b\t") || strings.HasSuffix(line, " \n") {
					t.Errorf("not to be pasted: %q", line)
				}
			}
			if left := regexp.MustCompile(`(127\.0\.0\.1|example):\d{5}`).FindString(text); left != "" {
				t.Errorf("%s is another one in each run:\n%s", left, text)
			}
			if client == "containerd" {
				inReadme(t, acts)
			}
		})
	}
}

// actsOf are the acts by their number.
func actsOf(text string) map[string]string {
	acts := make(map[string]string)
	for _, block := range regexp.MustCompile(`(?m)^\d\d  `).Split(text, -1)[1:] {
		number := text[strings.Index(text, block)-4:][:2]
		before, _, _ := strings.Cut(block, "\n\nmirror failures")
		acts[number] = number + "  " + strings.TrimSpace(before) + "\n"
	}
	return acts
}

const readme = "../README.md"

// shown are the acts of which the README shows the text.
var shown = []string{"11", "17"}

// inReadme holds the README to what the tour says, or writes it.
func inReadme(t *testing.T, acts map[string]string) {
	t.Helper()
	const begin, end = "<!-- the tour: cd e2e && go test . -run TestTour -update -->\n```\n", "```\n<!-- the end of the tour -->\n"
	page, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no tour", readme)
	}
	var have []string
	for _, number := range shown {
		have = append(have, acts[number])
	}
	text := strings.Join(have, "\n")
	switch {
	case *update:
		if err := os.WriteFile(readme, []byte(before+begin+text+end+after), 0o644); err != nil { //nolint:gosec // a page
			t.Fatal(err)
		}
	case unnumbered(old) != unnumbered(text):
		t.Errorf("%s does not have what the tour says; -update writes it:\n%s", readme, text)
	}
}

// unnumbered is a text without ids, which have the port of the registry in them, and without line breaks.
func unnumbered(s string) string {
	return strings.Join(strings.Fields(regexp.MustCompile(`\b[0-9a-f]{8}\b`).ReplaceAllString(s, "ID")), " ")
}
