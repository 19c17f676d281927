package config_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/registrymirror/mirror/config"
)

// snippet is a block of YAML in a document.
var snippet = regexp.MustCompile("(?ms)^( *)```ya?ml\n(.*?)^ *```")

// manifest is what a block has that is for Kubernetes, its nodes or a pipeline, not for the mirror.
var manifest = regexp.MustCompile(`(?m)^(apiVersion|kind|volumes|spec|containers|notifications|build|rule_files|services|secrets|config|- name|- uses|ghcr-io-example|mirrors|  script):`)

// Each YAML that the documents show is a whole configuration: it can be copied. And config print of it says the same, as a
// file that config check takes.
func TestSnippetsOfTheDocuments(t *testing.T) {
	t.Parallel()
	seen := 0
	look := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range snippet.FindAllStringSubmatchIndex(string(text), -1) {
			block := strings.ReplaceAll("\n"+string(text[m[4]:m[5]]), "\n"+string(text[m[2]:m[3]]), "\n")
			if manifest.MatchString(block) {
				continue
			}
			seen++
			at := path + ":" + strconv.Itoa(1+strings.Count(string(text[:m[0]]), "\n"))
			roundTrip(t, at, block)
		}
	}
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == ".git" || e.Name() == "testdata" || e.Name() == "node_modules"):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".md"):
			look(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 15 {
		t.Errorf("only %d snippets were found", seen)
	}
	for _, path := range []string{"../deploy/systemd/config.yaml", "../config.example.yaml", "../cmd/mirror/init.yaml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, path, string(text))
	}
}

// roundTrip parses a configuration, and what is printed of it.
func roundTrip(t *testing.T, at, text string) {
	t.Helper()
	c, err := config.Parse("/etc/mirror/config.yaml", []byte(text), nil)
	if err != nil {
		t.Errorf("%s: %v", at, err)
		return
	}
	printed, err := c.YAML()
	if err != nil {
		t.Errorf("%s: %v", at, err)
		return
	}
	again, err := config.Parse("/etc/mirror/config.yaml", printed, nil)
	if err != nil {
		t.Errorf("%s: what config print prints is refused: %v\n%s", at, err, printed)
		return
	}
	if diff := cmp.Diff(c, again, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: config print says something else:\n%s", at, diff)
	}
}
