package node

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// nodeFiles are the files of a node in a text: -- PATH -- stands before each, or -- PATH -> TARGET -- for a link.
func nodeFiles(text string) fstest.MapFS {
	root := make(fstest.MapFS)
	name := ""
	for line := range strings.Lines(text) {
		if head, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(line, " --\n") {
			name = strings.TrimSuffix(head, " --\n")
			link, target, isLink := strings.Cut(name, " -> ")
			if isLink {
				root[link] = &fstest.MapFile{Data: []byte(target), Mode: os.ModeSymlink}
			} else {
				root[name] = new(fstest.MapFile)
			}
			continue
		}
		root[name].Data = append(root[name].Data, line...)
	}
	return root
}

// reportText is a report as a golden file has it.
func reportText(r *Report) string {
	var b strings.Builder
	for _, m := range r.Mirrors {
		fmt.Fprintf(&b, "%s asks %s for %s (%s:%d", m.Client, m.URL, strings.Join(m.Registries, " "), m.File, m.Line)
		if len(m.CA) > 0 {
			fmt.Fprintf(&b, ", ca %s", strings.Join(m.CA, " "))
		}
		if len(m.Header) > 0 {
			fmt.Fprintf(&b, ", header %v", m.Header)
		}
		b.WriteString(")\n")
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%s %s %s:%d\n  %s\n  > %s\n", f.Level, f.Rule, f.File, f.Line, f.Cause, f.Remedy)
	}
	return b.String()
}

func TestCheck(t *testing.T) {
	t.Parallel()
	inputs, err := filepath.Glob("testdata/check/*.txt")
	if err != nil || len(inputs) < 25 {
		t.Fatalf("%d nodes: %v", len(inputs), err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(input, ".txt")+".golden", reportText(Check(nodeFiles(string(text)))))
		})
	}
}

// The library has no error for a key that stands there twice, only texts.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"a = 1\na = 2\n", "[a]\n[a]\n", "[a]\nb = 1\n[a]\nc = 1\n", "a = {b = 1}\n[a]\n", "[a]\nb = 1\n[a.b]\n", "[[a]]\n[a]\n", "[a]\n[[a]]\n",
		"a.b = 1\n[a]\n", "a = {b = 1, b = 2}\n", "a = 1\na.b = 1\n",
	} {
		r := Check(fstest.MapFS{"etc/containerd/config.toml": {Data: []byte(text)}})
		if f := r.Findings[0]; f.Rule != "toml-error" || !strings.Contains(f.Remedy, "a second time") {
			t.Errorf("%q: %+v", text, f)
		}
	}
	for _, text := range []string{"a = \n", "a = 99999999999999999999\n", "a.b = 2024-13-45\n", "[a\n", "a = {b = }\n", "a = [1\n", "a = \"already\n", "b\xff = 1\n"} {
		r := Check(fstest.MapFS{"etc/containerd/config.toml": {Data: []byte(text)}})
		if f := r.Findings[0]; f.Rule != "toml-error" || f.Remedy != "correct that line" {
			t.Errorf("%q is not a duplicate: %+v", text, f)
		}
	}
}

// Each finding has a row in the docs, and each of those is found in some test.
func TestRules(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/nodes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| files | findings |")
	table, _, _ = strings.Cut(table, "\n\n")
	tests := make(map[string]bool)
	files, err := filepath.Glob("testdata/check/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "ask_test.go", "login_test.go", "../cmd/mirror/doctornode_test.go") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)(?:^(?:broken|warning|note) |"broken |"warning |"note |"|; )([a-z0-9]+(?:-[a-z0-9]+)*)`).FindAllSubmatch(b, -1) {
			tests[string(m[1])] = true
		}
	}
	rows := regexp.MustCompile("`([a-z0-9-]+)`").FindAllStringSubmatch(table, -1)
	if len(rows) < 40 {
		t.Errorf("%d rules in docs/nodes.md", len(rows))
	}
	for _, m := range rows {
		if rule := m[1]; !tests[rule] {
			t.Errorf("%s: no test finds it", rule)
		}
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^(?:broken|warning|note) (\S+)`).FindAllSubmatch(b, -1) {
			if !strings.Contains(table, "`"+string(m[1])+"`") {
				t.Errorf("%s: docs/nodes.md lacks %s", file, m[1])
			}
		}
	}
}
