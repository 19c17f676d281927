package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The folder is created and given away with a mode that shuts others out; one that belongs to the user already stays as it is.
func TestCachePrepare(t *testing.T) {
	t.Parallel()
	owner := os.Getuid()
	if owner == 0 {
		owner = 65532
	}
	dir := filepath.Join(t.TempDir(), "lib", "mirror")
	prepare := func(dir string) (code int, out, errs string) {
		return commandLine(t, "cache", "prepare", "--dir", dir, "--owner", strconv.Itoa(owner))
	}
	check := func(mode fs.FileMode) {
		t.Helper()
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); int(s.Uid) != owner || info.Mode().Perm() != mode {
			t.Errorf("the folder belongs to %d, with the mode %v", s.Uid, info.Mode())
		}
	}
	if code, out, errs := prepare(dir); code != exitOK || !strings.Contains(out, "belongs to user "+strconv.Itoa(owner)) {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	check(0o750)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := prepare(dir); code != exitOK {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	check(0o700)

	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := prepare(link); code != exitFailed || !strings.Contains(errs, "is not a folder") {
		t.Errorf("a link: exit code %d, %s", code, errs)
	}
	for _, args := range [][]string{{}, {"--dir", dir, "--owner", "0"}} {
		if code, _, errs := commandLine(t, append([]string{"cache", "prepare"}, args...)...); code != exitUsage {
			t.Errorf("%q: exit code %d, %s", args, code, errs)
		}
	}
}
