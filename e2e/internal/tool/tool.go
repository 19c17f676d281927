// Package tool finds the programs that install.sh has put on the machine. A missing one fails the test: nothing is
// skipped.
package tool

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Bin is the folder with the Go programs that install.sh has built.
func Bin() string {
	cache := os.Getenv("MIRROR_E2E_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/root"
		}
		cache = filepath.Join(home, ".cache", "mirror-e2e")
	}
	return filepath.Join(cache, "bin")
}

// Built is the path of a program out of Bin.
func Built(t testing.TB, name string) string {
	t.Helper()
	return must(t)(FindBuilt(name))
}

// FindBuilt is Built outside tests.
func FindBuilt(name string) (string, error) { return at(filepath.Join(Bin(), name)) }

// System is the path of a program of the distribution, wherever PATH has another of that name.
func System(t testing.TB, name string) string {
	t.Helper()
	return must(t)(FindSystem(name))
}

// FindSystem is System outside tests.
func FindSystem(name string) (string, error) {
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
		if path := filepath.Join(dir, name); executable(path) {
			return path, nil
		}
	}
	return at(name)
}

func must(t testing.TB) func(string, error) string {
	t.Helper()
	return func(path string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
}

func at(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w; run e2e/install.sh, as root on Debian 12", err)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}
