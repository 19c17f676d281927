package e2e_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// TestChartOfTheDocuments: the chart renders with what the documents say of it: each helm command, and each address of nodes.
func TestChartOfTheDocuments(t *testing.T) {
	t.Parallel()
	helm := tool.Built(t, "helm")
	seen := 0
	render := func(t *testing.T, from string, flags ...string) {
		t.Helper()
		seen++
		if r := proc.Run(t, proc.Options{Dir: ".."}, helm, append([]string{"template", "mirror", "deploy/helm/mirror", "--namespace", "mirror"}, flags...)...); r.Code != 0 {
			t.Errorf("%s: helm template %s: exit code %d\n%s", from, strings.Join(flags, " "), r.Code, r.Stderr)
		}
	}
	value := regexp.MustCompile(`--set[= ]'?([\w.]+=[^\s'\x60]+)`)
	for _, name := range []string{"install.md", "upgrade.md", "node-address.md"} {
		text, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
			if !strings.Contains(line, "helm install ") && !strings.Contains(line, "helm upgrade ") && !strings.Contains(line, "--set ") {
				continue
			}
			var flags []string
			for _, m := range value.FindAllStringSubmatch(line, -1) {
				flags = append(flags, "--set", m[1])
			}
			render(t, name, flags...)
		}
		if name != "node-address.md" {
			continue
		}
		setting := regexp.MustCompile("`([\\w.]+=[^`]+)`")
		_, choices, _ := strings.Cut(string(text), "\n## The choices\n")
		choices, _, _ = strings.Cut(choices, "\n## ")
		for line := range strings.Lines(choices) {
			cells := strings.Split(line, "|")
			if len(cells) < 4 {
				continue
			}
			flags := []string{"--set", "agent.enabled=true"}
			for _, m := range setting.FindAllStringSubmatch(cells[2], -1) {
				flags = append(flags, "--set", m[1])
			}
			if len(flags) > 2 {
				render(t, name+", "+cells[1], flags...)
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d commands and addresses were found", seen)
	}
}
