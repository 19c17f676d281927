// Package tool finds the programs that install.sh has put on the machine. A missing one fails the test: nothing is
// skipped.
package tool

import (
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
	return at(t, filepath.Join(Bin(), name))
}

// System is the path of a program of the distribution, wherever PATH has another of that name.
func System(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
		if path := filepath.Join(dir, name); executable(path) {
			return path
		}
	}
	return at(t, name)
}

func at(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v; run e2e/install.sh, as root on Debian 12", err)
	}
	return path
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}
