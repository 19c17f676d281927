package main

import (
	"bufio"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

// The commands in the documents are commands: each one of mirror parses, with its flags and arguments; each target of make
// and each package that go is to work on is there; each path of the admin listener is a route.

const root = "../.."

// said is a command line of a document.
type said struct{ at, line string }

var (
	fence  = regexp.MustCompile("(?ms)^ *```(sh|bash|console|)\n(.*?)^ *```")
	inline = regexp.MustCompile("`((?:[A-Z_]+=\\S+ )*(?:bin/)?(?:mirror|make|go|curl|cd e2e && go) [^`]+)`")
)

// commandsOf are the command lines of a document.
func commandsOf(path, text string) (list []said) {
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		block := strings.ReplaceAll(m[2], "\\\n", " ")
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			prompt, command, isPrompt := strings.Cut(line, "$ ")
			if isPrompt && prompt == "" {
				line = command
			} else if m[1] == "console" || m[1] == "" {
				continue // what a command prints
			}
			list = append(list, said{path, line})
		}
	}
	for _, m := range inline.FindAllStringSubmatch(text, -1) {
		list = append(list, said{path, strings.Join(strings.Fields(m[1]), " ")})
	}
	return list
}

// documents calls fn with each document of the project.
func documents(t *testing.T, fn func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == ".git" || e.Name() == "testdata"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".md") || e.Name() == "CHANGELOG.md": // which names commands, and old ones
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			fn(path, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// words splits a command line as a shell does, as far as documents need it: commands at pipes and ands, words at spaces,
// with quotes. A comment or a redirection ends it.
func words(line string) (commands [][]string) {
	var now []string
	var word strings.Builder
	quote, begun := rune(0), false
	end := func() {
		if begun {
			now = append(now, word.String())
		}
		word.Reset()
		begun = false
	}
	for i, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ':
			end()
		case r == '#' && !begun, r == '>':
			end()
			return append(commands, now) // a comment, or where the output goes
		case (r == '|' || r == ';' || r == '&') && (i == 0 || line[i-1] == ' ' || line[i-1] == byte(r)):
			end()
			if len(now) > 0 {
				commands = append(commands, now)
			}
			now = nil
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	end()
	return append(commands, now)
}

func TestCommandsOfTheDocuments(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	documents(t, func(path, text string) {
		for _, c := range commandsOf(path, text) {
			dir := ""
			for _, args := range words(c.line) {
				for len(args) > 0 && strings.Contains(args[0], "=") && !strings.HasPrefix(args[0], "-") {
					args = args[1:] // a variable
				}
				for i := range args { // kubectl exec POD -- mirror ...
					if args[i] == "--" && i+1 < len(args) {
						args = args[i+1:]
						break
					}
				}
				if len(args) == 0 {
					continue
				}
				var err error
				switch name := filepath.Base(args[0]); name {
				case "cd":
					dir = strings.Join(args[1:], "")
				case "mirror":
					seen[name]++
					err = parses(args[1:])
				case "make":
					seen[name]++
					err = target(args[1:])
				case "go":
					seen[name]++
					err = packages(dir, args[1:])
				case "curl":
					seen[name]++
					err = route(args[1:])
				}
				if err != nil {
					t.Errorf("%s: %s\n  %v", c.at, c.line, err)
				}
			}
		}
	})
	for name, least := range map[string]int{"mirror": 40, "make": 10, "go": 3, "curl": 2} {
		if seen[name] < least {
			t.Errorf("only %d commands of %s were found", seen[name], name)
		}
	}
}

// The help of each command that does something lists its exit codes.
func TestHelpListsExitCodes(t *testing.T) {
	t.Parallel()
	commands := newRoot().Commands()
	for len(commands) > 0 {
		c := commands[0]
		commands = append(commands[1:], c.Commands()...)
		if !c.HasSubCommands() && c.Name() != "help" && !strings.Contains(c.Long, "\nExit codes: 0 ") {
			t.Errorf("%s does not list its exit codes", c.CommandPath())
		}
	}
	if long := newRoot().Long; !strings.Contains(long, "\nExit codes of all commands: ") {
		t.Errorf("mirror does not list the exit codes:\n%s", long)
	}
}

// The examples in the help are commands, too.
func TestExamplesOfTheHelp(t *testing.T) {
	t.Parallel()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			for _, args := range words(strings.TrimSpace(line)) {
				for i, a := range args {
					if a == "mirror" {
						if err := parses(args[i+1:]); err != nil {
							t.Errorf("%s: %s%v", c.CommandPath(), line, err)
						}
						break
					}
				}
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

type wrong string

func (w wrong) Error() string { return string(w) }

// parses says what is wrong with the arguments of mirror. Nothing is run.
func parses(args []string) error {
	if len(args) > 0 && args[0] == "..." || len(args) == 1 && (args[0] == "--help" || args[0] == "--version") {
		return nil
	}
	cmd := newRoot()
	cmd.SetOut(io.Discard)
	cmd.InitDefaultCompletionCmd()
	at, rest, err := cmd.Find(args)
	if err != nil {
		return err
	}
	at.InitDefaultHelpFlag()
	if err := at.ParseFlags(rest); err != nil {
		return err
	}
	if !at.Runnable() || at == cmd {
		return wrong("it is not a command")
	}
	return at.ValidateArgs(at.Flags().Args())
}

// target says which of make's targets is not there.
func target(args []string) error {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return err
	}
	for _, a := range args {
		if !strings.Contains(a, "=") && !strings.Contains(string(text), "\n"+a+":") {
			return wrong("the Makefile has no target " + a)
		}
	}
	return nil
}

// packages says which package of a go command is not there, or is of another module.
func packages(dir string, args []string) error {
	for _, a := range args {
		path, all := strings.CutSuffix(a, "/...")
		if !strings.HasPrefix(a, "./") && a != "." || all && path == "." {
			continue
		}
		at := filepath.Join(root, dir, path)
		if info, err := os.Stat(at); err != nil || !info.IsDir() {
			return wrong("there is no folder " + at)
		}
		for up := at; up != filepath.Join(root, dir); up = filepath.Dir(up) {
			if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
				return wrong(a + " is of a module of its own: cd to it first")
			}
		}
	}
	return nil
}

// route says which URL of a mirror has no route.
func route(args []string) error {
	text, err := os.ReadFile(filepath.Join(root, "admin/openapi.yaml"))
	if err != nil {
		return err
	}
	var doc struct{ Paths map[string]any }
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return err
	}
	for _, a := range args {
		_, rest, ok := strings.Cut(a, ":5001/")
		path, _, _ := strings.Cut("/"+rest, "?")
		if _, there := doc.Paths[path]; ok && !there && !strings.HasPrefix(path, "/debug/pprof/") && path != "/metrics" {
			return wrong("the admin listener has no " + path)
		}
	}
	return nil
}

// The README shows the first line of the log, and the first act of the demo, as they are.
func TestReadmeShowsWhatIsPrinted(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`(\w+)=`)
	var shown []string
	lines := bufio.NewScanner(strings.NewReader(string(page)))
	for lines.Scan() {
		if _, attrs, ok := strings.Cut(lines.Text(), " INF mirror is ready "); ok {
			for _, m := range key.FindAllStringSubmatch(attrs, -1) {
				shown = append(shown, m[1])
			}
		}
	}
	logged := readyKeys(t)
	if strings.Join(shown, " ") != strings.Join(logged, " ") {
		t.Errorf("the README shows %v, the log has %v", shown, logged)
	}
	_, out, _ := commandLine(t, "demo")
	first, _, ok := strings.Cut(out, "\n2  ")
	if text := unnumbered(first); !ok || !strings.Contains(unnumbered(string(page)), text) {
		t.Errorf("the README does not have the demo's first act:\n%s", first)
	}
}

// readyKeys are the attributes of the line with which a mirror begins.
func readyKeys(t *testing.T) (keys []string) {
	t.Helper()
	file := configFile(t, "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\ncache: {dir: data, minFree: 0}\nlog: {format: json}\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := make(chan string, 64)
	done := make(chan int, 1)
	go func() { done <- run(ctx, io.Discard, writes(said), "serve", "--config", file) }()
	for keys == nil {
		select {
		case line := <-said:
			if strings.Contains(line, `"mirror is ready"`) {
				for _, m := range regexp.MustCompile(`"(\w+)":`).FindAllStringSubmatch(line, -1)[3:] { // time, level, msg
					keys = append(keys, m[1])
				}
			}
		case code := <-done:
			t.Fatalf("the mirror ended with %d", code)
		}
	}
	cancel()
	<-done
	return keys
}

// unnumbered is a text without ids, which have a port in them, and without line breaks.
func unnumbered(s string) string {
	return strings.Join(strings.Fields(regexp.MustCompile(`\b[0-9a-f]{8}\b`).ReplaceAllString(s, "ID")), " ")
}
