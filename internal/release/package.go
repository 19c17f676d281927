package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// printed are the files that the program prints: the scripts by which shells complete the command line, and the manual page.
func printed(ctx context.Context, binary string) (files []file, _ error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		args []string
	}{
		{"completions/mirror.bash", []string{"completion", "bash"}},
		{"completions/_mirror", []string{"completion", "zsh"}},
		{"completions/mirror.fish", []string{"completion", "fish"}},
		{"completions/mirror.ps1", []string{"completion", "powershell"}},
		{"man/mirror.1", []string{"man"}},
	} {
		cmd := exec.CommandContext(ctx, binary, f.args...)
		cmd.Env = []string{} // variables of the mirror are defaults of flags, which the page has
		text, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("print %s: %w", f.name, err)
		}
		files = append(files, file{f.name, 0o644, text})
	}
	return files, nil
}

// service adds the units of systemd, as they stand in deploy, with their configuration.
func (r release) service(files []file) ([]file, error) {
	for _, f := range []struct{ name, from string }{
		{"systemd/mirror.service", "deploy/systemd/mirror.service"},
		{"systemd/config.yaml", r.conf},
		{"systemd/mirror-node.service", "deploy/systemd/mirror-node.service"},
		{"systemd/node.env", "deploy/systemd/node.env"},
	} {
		text, err := os.ReadFile(f.from)
		if err != nil {
			return nil, err
		}
		files = append(files, file{f.name, 0o644, text})
	}
	return files, nil
}

// Units differ from those of deploy where packages install them: the binary is in /usr/bin, and the mirror's user stays and owns files in
// /etc/mirror.
var packagedChanges = map[string][][2]string{
	"mirror.service": {
		{"\nExecStart=/usr/local/bin/mirror ", "\nExecStart=/usr/bin/mirror "},
		{"\nDynamicUser=yes\n", "\nUser=mirror\nGroup=mirror\n"},
	},
	"mirror-node.service": {{"\nExecStart=/usr/local/bin/mirror ", "\nExecStart=/usr/bin/mirror "}},
}

// packaged is a unit as packages install it.
func packaged(name string, unit []byte) ([]byte, error) {
	for _, change := range packagedChanges[name] {
		if n := bytes.Count(unit, []byte(change[0])); n != 1 {
			return nil, fmt.Errorf("deploy/systemd/"+name+" has %q %d times, not once: packages do not know how to change it", strings.TrimSpace(change[0]), n)
		}
		unit = bytes.Replace(unit, []byte(change[0]), []byte(change[1]), 1)
	}
	return unit, nil
}

// packages makes the deb and the rpm of a platform, by deploy/packages/nfpm.yaml, and returns their names.
func (r release) packages(ctx context.Context, p platform, files []file) (made []string, _ error) {
	dir, err := os.MkdirTemp("", "mirror-release-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, f := range files {
		if f.content, err = packaged(filepath.Base(f.name), f.content); err != nil {
			return nil, err
		}
		at := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil { //nolint:gosec // it is for everyone
			return nil, err
		}
		if err := os.WriteFile(at, f.content, f.mode); err != nil {
			return nil, err
		}
	}
	at := filepath.Join(dir, "packages")
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, err
	}
	for _, packager := range []string{"deb", "rpm"} {
		cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=tools/nfpm/go.mod", "nfpm", "package",
			"--config", "deploy/packages/nfpm.yaml", "--packager", packager, "--target", at+"/")
		cmd.Env = append(os.Environ(), "STAGE="+dir, "VERSION="+r.version, "ARCH="+p.arch)
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("nfpm %s: %w\n%s", packager, err, text)
		}
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return nil, err
	}
	for _, e := range entries { // each format has its own names of versions and processors
		content, err := os.ReadFile(filepath.Join(at, e.Name()))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(r.out, e.Name()), content, 0o644); err != nil { //nolint:gosec // it is for everyone
			return nil, err
		}
		made = append(made, e.Name())
	}
	return made, nil
}
