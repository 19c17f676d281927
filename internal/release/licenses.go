package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var (
	isLicense = regexp.MustCompile(`(?i)^(un)?licen[cs]e|^copying`)
	isNotice  = regexp.MustCompile(`(?i)^(notice|patents|copyright)`)
)

// linked is a package that a binary has in it, as go list shows it.
type linked struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Dir string
		Main      bool
	}
}

// licenses are the texts under which the parts of the binaries are used, as THIRD_PARTY/MODULE/FILE, and Go's own.
func licenses(ctx context.Context, platforms []platform) ([]file, error) {
	var packages []linked
	for _, p := range platforms {
		cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-json=Dir,Standard,Module", "./cmd/mirror")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.system, "GOARCH="+p.arch)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("list the packages of %s: %w", p, err)
		}
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var l linked
			if err := d.Decode(&l); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("list the packages of %s: %w", p, err)
			}
			packages = append(packages, l)
		}
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	return texts(packages, strings.TrimSpace(string(root)))
}

// texts collects the license files in the folder of each package and in those above it, up to its module's: a part of a module may
// have a license of its own.
func texts(packages []linked, goroot string) ([]file, error) {
	found := make(map[string]string) // name in the archive to path
	licensed := make(map[string]bool)
	collect := func(module, root, dir string) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || strings.HasSuffix(e.Name(), ".go") || !isLicense.MatchString(e.Name()) && !isNotice.MatchString(e.Name()) {
				continue
			}
			found[path.Join("THIRD_PARTY", module, filepath.ToSlash(below), e.Name())] = filepath.Join(dir, e.Name())
			licensed[module] = licensed[module] || isLicense.MatchString(e.Name())
		}
		return nil
	}
	dirs := map[string]string{"go": goroot}
	if err := collect("go", goroot, goroot); err != nil {
		return nil, err
	}
	for _, p := range packages {
		if p.Standard || p.Module == nil || p.Module.Main {
			continue
		}
		m := p.Module
		dirs[m.Path] = m.Dir
		for dir := p.Dir; len(dir) >= len(m.Dir); dir = filepath.Dir(dir) {
			if err := collect(m.Path, m.Dir, dir); err != nil {
				return nil, err
			}
		}
	}
	var missing []string
	for module, dir := range dirs {
		if !licensed[module] {
			missing = append(missing, module+" has no license file in "+dir)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("%s; a release needs the license of each part: replace that module, or that installation of Go", strings.Join(missing, "; "))
	}
	var files []file
	for name, from := range found {
		content, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, 0o644, content})
	}
	return files, nil
}
