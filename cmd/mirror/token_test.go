package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/identity"
)

func runToken(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := newTokenCmd()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(append([]string{"new"}, args...))
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// The token goes to standard output alone, its hash to a file that others can't read, beside those that are there.
func TestTokenNew(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens.yaml")
	var made []string
	for _, args := range [][]string{{"ci"}, {"alice", "--expires", "1d"}} {
		out, errs, err := runToken(t, append(args, "--file", file)...)
		token := strings.TrimSpace(out)
		if err != nil || !strings.HasPrefix(token, "mirror_") || strings.Contains(errs, token) {
			t.Fatalf("%q, %q, %v", out, errs, err)
		}
		made = append(made, token)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := identity.ParseTokens(file, text); err != nil || strings.Contains(string(text), made[0]) ||
		strings.Count(string(text), "\n") != 3 || !strings.Contains(string(text), "expires:") {
		t.Errorf("%v\n%s", err, text)
	}
	// A file that holds something else, and one in another form, stay as they are.
	for _, text := range []string{"upstreams: {}\n", "tokens: []\n", "tokens: [{name: a, sha256: " + strings.Repeat("0", 64) + "}]\n"} {
		other := textFile(t, "t.yaml", text)
		if out, _, err := runToken(t, "ci", "--file", other); err == nil || out != "" {
			t.Errorf("%q: %q, %v", text, out, err)
		}
		if got, _ := os.ReadFile(other); string(got) != text {
			t.Errorf("%q has become %q", text, got)
		}
	}
	out, errs, err := runToken(t, "ci")
	if err != nil || !strings.Contains(errs, "  - {name: \"ci\", sha256: ") || strings.Count(out, "\n") != 1 {
		t.Errorf("without a file: %q, %q, %v", out, errs, err)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if _, _, err := runToken(t, "ci", "--file", filepath.Join(gone, "t.yaml")); err == nil || !strings.HasSuffix(err.Error(), "t.yaml: folder "+gone+": no such file or directory") {
		t.Errorf("a folder that is not there: %v", err)
	}
	for _, args := range [][]string{{"node:a"}, {"anonymous"}, {"ci", "--expires", "-1h"}, {}} {
		if out, _, err := runToken(t, args...); err == nil || out != "" {
			t.Errorf("%q: %q, %v", args, out, err)
		}
	}
}

// Lengths of time are written as for other commands, in days too, and what is wrong with one is said in words.
func TestLengthsOfTime(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"token new ci --expires 1y":                "--expires 1y: must be a duration, as in 1h30m or 7d",
		"token new ci --expires 90":                "--expires 90: must be a duration, as in 1h30m or 7d",
		"token new ci --expires -1h":               "--expires -1h: must be a duration, as in 1h30m or 7d",
		"token new ci --expires 999999d":           "--expires 999999d: is too long; write 36500d at most",
		"setup tls --dir /nowhere --valid forever": "--valid forever: must be a duration, as in 1h30m or 7d",
	} {
		if code, _, errs := commandLine(t, strings.Fields(args)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %s", args, code, errs)
		}
	}
	if code, _, errs := commandLine(t, "setup", "tls", "--dir", filepath.Join(t.TempDir(), "pki"), "--host", "a", "--valid", "90d"); code != exitOK {
		t.Errorf("--valid 90d: %d %s", code, errs)
	}
}
