package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What an archive has does not depend on the machine, nor on the order in which its files were found.
func TestArchive(t *testing.T) {
	t.Parallel()
	r := release{created: time.Unix(1700000000, 0)}
	files := []file{{"mirror", 0o755, []byte("binary")}, {"a/b/c", 0o644, []byte("text")}, {"a/a", 0o644, nil}}
	one, err := r.archive("mirror-v1", files)
	if err != nil {
		t.Fatal(err)
	}
	two, err := r.archive("mirror-v1", []file{files[2], files[0], files[1]})
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("another order makes another archive: %v", err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(one))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.ModTime.Unix() != 1700000000 {
			t.Errorf("%s: %+v", h.Name, h)
		}
		if want := map[string]int64{"mirror-v1/mirror": 0o755, "mirror-v1/a/a": 0o644, "mirror-v1/a/": 0o755}[h.Name]; want != 0 && h.Mode != want {
			t.Errorf("%s has the mode %o", h.Name, h.Mode)
		}
	}
	want := []string{"mirror-v1/", "mirror-v1/a/", "mirror-v1/a/a", "mirror-v1/a/b/", "mirror-v1/a/b/c", "mirror-v1/mirror"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A part without a license is not released.
func TestLicenses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{
		"go/LICENSE", "go/PATENTS", "a/LICENSE.md", "a/sub/COPYING", "a/sub/license.go", "a/other/LICENSE", "b/NOTICE", "b/code/x.go",
	} {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	of := func(module, pkg string) (l linked) {
		l.Dir = filepath.Join(dir, module, pkg)
		l.Module = &struct {
			Path, Dir string
			Main      bool
		}{Path: "example.com/" + module, Dir: filepath.Join(dir, module)}
		return l
	}
	goroot := filepath.Join(dir, "go")
	files, err := texts([]linked{of("a", ""), of("a", "sub"), {Dir: "/nowhere", Standard: true}}, goroot)
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]string)
	for _, f := range files {
		have[f.name] = string(f.content)
	}
	want := map[string]string{
		"THIRD_PARTY/go/LICENSE": "go/LICENSE", "THIRD_PARTY/go/PATENTS": "go/PATENTS",
		"THIRD_PARTY/example.com/a/LICENSE.md": "a/LICENSE.md", "THIRD_PARTY/example.com/a/sub/COPYING": "a/sub/COPYING",
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = texts([]linked{of("a", ""), of("b", "code")}, goroot)
	if err == nil || !strings.Contains(err.Error(), "example.com/b has no license file") || strings.Contains(err.Error(), "example.com/a") {
		t.Errorf("a notice counts as a license: %v", err)
	}
	if _, err := texts(nil, filepath.Join(dir, "b")); err == nil {
		t.Error("Go's own license is not asked for")
	}
}

// The unit of packages is the one of deploy with another binary and a user that stays. One that it was not made for is an error.
func TestPackaged(t *testing.T) {
	t.Parallel()
	agent, err := os.ReadFile("../../deploy/systemd/mirror-node.service")
	if err != nil {
		t.Fatal(err)
	}
	if agent, err = packaged("mirror-node.service", agent); err != nil || strings.Contains(string(agent), "/usr/local/") {
		t.Errorf("the unit of the agent: %v\n%s", err, agent)
	}
	unit, err := os.ReadFile("../../deploy/systemd/mirror.service")
	if err != nil {
		t.Fatal(err)
	}
	changed, err := packaged("mirror.service", unit)
	if err != nil {
		t.Fatal(err)
	}
	text := string(changed)
	if !strings.Contains(text, "\nUser=mirror\n") || strings.Contains(text, "DynamicUser=yes\nUser") || strings.Contains(text, "/usr/local/") {
		t.Errorf("the unit of packages:\n%s", text)
	}
	if _, err := packaged("mirror.service", changed); err == nil || !strings.Contains(err.Error(), "/usr/local/bin/mirror") {
		t.Errorf("a unit without the lines that are changed: %v", err)
	}
}
