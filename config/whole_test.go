package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/config"
)

// production is a configuration as platform teams have it.
const production = `# the mirror of cluster eu-1
listen: :5000
tls: {cert: tls.crt, key: tls.key}
admin:
  listen: 0.0.0.0:5001
  tokenFile: admin.token
cache:
  dir: /var/lib/mirror
  size: 500GiB

rules:
  - who: [anonymous]
    pull:
      - ghcr.io/acme/**
      - harbor.corp.example/acme/**

upstreams:
  docker.io:
    credentials:
      - name: hub
        username: ci-bot
        passwordFile: hub.pass
    tags:
      maxAge: 1m
  ghcr.io:
    access: rules
    credentials:
      - name: bot
        username: acme-bot
        passwordFile: ghcr.pass
    tags:
      maxAge: 1m
  # ours
  harbor.corp.example:
    access: rules
    endpoints: [{url: https://harbor.corp.example, ca: corp.crt}]
    credentials:
      - name: corp
        username: robot$mirror
        passwordFile: corp.pass
  quay.io: {}
drain: 90s
`

// text is a file as Read reads it.
func text(t *testing.T, path, data string) config.Text {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := config.Read(path)
	if err != nil && strings.TrimSpace(data) != "" {
		t.Fatal(err)
	}
	return got
}

// parsed is what a text means; nil: it is not a configuration.
func parsed(path string, of config.Text) *config.Config {
	c, err := config.Parse(path, of.Data, nil)
	if err != nil {
		return nil
	}
	return c
}

// A file that is cut at any byte is never taken up: of the example, of one in production, and of an edited one, whose
// beginning is no longer that of the one in use.
func TestHalfAFileIsNone(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	edits := map[string]func(string) string{
		"as it is":             func(s string) string { return s },
		"edited at the top":    func(s string) string { return "# changed today\n" + s },
		"edited in the middle": func(s string) string { return strings.Replace(s, "drain: ", "errorPhrase: false\ndrain: ", 1) },
		"edited above":         func(s string) string { return strings.Replace(s, "listen: ", "#\nlisten: ", 1) },
		"a value": func(s string) string {
			return strings.Replace(strings.Replace(s, "1m\n", "2m\n", 1), "500GiB", "400GiB", 1)
		},
		"with CRLF, as it is": func(s string) string { return s },
	}
	for file, whole := range map[string]string{"example": string(example), "production": production} {
		for edit, change := range edits {
			t.Run(file+" "+edit, func(t *testing.T) {
				t.Parallel()
				running := whole
				if strings.Contains(edit, "CRLF") {
					running = strings.ReplaceAll(whole, "\n", "\r\n")
				}
				path := filepath.Join(t.TempDir(), "config.yaml")
				was, next := text(t, path, running), change(running)
				full := text(t, path, next)
				if err := full.Whole(path, was); err != nil {
					t.Fatalf("the whole of it: %v", err)
				}
				is, want := parsed(path, was), parsed(path, full)
				for n := range len(next) {
					half := full
					half.Data = []byte(next[:n])
					if n == 0 || half.Whole(path, was) != nil {
						continue
					}
					// What lacks nothing but comments is what was meant, and what makes no difference is not taken.
					if c := parsed(path, half); c != nil && !reflect.DeepEqual(c, is) && !reflect.DeepEqual(c, want) {
						if strings.HasPrefix(next[n:], "drain: ") && edit == "edited in the middle" && file == "production" {
							continue // one line less at the end, and one more: that may be meant
						}
						t.Fatalf("cut at byte %d of %d, after %q, it is taken", n, len(next), next[max(0, n-60):n])
					}
				}
			})
		}
	}
}

// What an operator writes is taken up, whatever is removed in it, at its end too if that is said.
func TestWholeFilesAreTaken(t *testing.T) {
	t.Parallel()
	less := strings.Replace(production, "  quay.io: {}\ndrain: 90s\n", "", 1)
	for name, tt := range map[string]struct {
		next string
		want string // in the error; empty: it is taken
	}{
		"the same":                      {production, ""},
		"one setting more at the end":   {production + "log: {level: debug}\n", ""},
		"a registry less in the middle": {strings.Replace(production, "  quay.io: {}\n", "", 1), ""},
		"another order":                 {"drain: 90s\n" + strings.Replace(production, "drain: 90s\n", "", 1) + "log: {level: debug}\n", ""},
		"another file altogether":       {"upstreams: {docker.io: {}}\nrules: []\n", ""},
		"the end is removed":            {less, "ends at line 40, and the one in use goes on there: it looks cut off"},
		"the end is removed, and said":  {less + "...\n", ""},
		"three dots without a break":    {less + "...", ""},
		"no line break at the end":      {strings.TrimSuffix(production, "\n") + "0", "it has no line break at its end"},
		"no upstreams":                  {"rules: []\nlog: {level: debug}\n", "has upstreams and this one has not"},
		"no rules":                      {"upstreams: {docker.io: {}}\n", "has rules and this one has not"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "config.yaml")
			was := text(t, path, production)
			next := text(t, path, tt.next)
			err := next.Whole(path, was)
			cut, ok := errors.AsType[*config.CutError](err)
			if tt.want == "" && err != nil || tt.want != "" && (!ok || !strings.Contains(cut.Error(), tt.want) || cut.File != path) {
				t.Errorf("%v", err)
			}
			if _, err := config.Parse(path, next.Data, nil); err != nil && tt.want == "" {
				t.Errorf("it is not valid: %v", err)
			}
		})
	}
}

// The last line ... stands for the whole: a file that has lost it is cut, wherever.
func TestEndOfTheDocument(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	was := text(t, path, production+"...\n")
	if err := text(t, path, "# other\nrules: []\nupstreams: {docker.io: {}}\n").Whole(path, was); err == nil {
		t.Error("a file without it is taken")
	}
	if err := text(t, path, "upstreams: {docker.io: {}}\n...\n").Whole(path, was); err != nil {
		t.Error(err)
	}
}

// A mounted ConfigMap is whole: its files are written before the link leads to them.
func TestLinksLeadToWholeFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, data := range map[string]string{"..1": production, "..2": production[:200]} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o700),
			os.WriteFile(filepath.Join(dir, name, "config.yaml"), []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "config.yaml")
	link(t, "..1", filepath.Join(dir, "..data"))
	link(t, filepath.Join("..data", "config.yaml"), path)
	read := func() config.Text {
		got, err := config.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	was := read()
	link(t, "..2", filepath.Join(dir, "..tmp"))
	rename(t, filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data"))
	if err := read().Whole(path, was); err != nil {
		t.Error(err)
	}
}

// A file that was renamed into place is whole, however much shorter it is: its writer had finished it.
func TestRenamedFilesAreTaken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	put := func(text string, rename bool) config.Text {
		t.Helper()
		to := path
		if rename {
			to += "~"
		}
		err := os.WriteFile(to, []byte(text), 0o600)
		if err == nil && rename {
			err = os.Rename(to, path)
		}
		if err != nil {
			t.Fatal(err)
		}
		read, err := config.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		return read
	}
	const long, short = "upstreams:\n  ghcr.io: {}\n  quay.io: {}\n", "upstreams:\n  ghcr.io: {}\n"
	running := put(long, false)
	if err := put(short, false).Whole(path, running); err == nil {
		t.Error("a file that was cut in place was taken")
	}
	if err := put(short, true).Whole(path, running); err != nil {
		t.Errorf("a file that was renamed into place: %v", err)
	}
}
