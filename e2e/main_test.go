// Package e2e_test holds the real binary against real registries and real clients, on loopback.
//
// The programs come from install.sh; a missing one fails the test. Everything that is started here is stopped here, and
// has folders and ports of its own. Linux, as root: containerd, Podman and Docker unpack what they pull.
package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// binaryVariable is the variable that has the path of the binary under test, where a test runs itself again. Else it is built.
const binaryVariable = "E2E_BINARY"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: these tests run containerd, Podman and Docker, and so need root")
		return 1
	}
	dir, err := os.MkdirTemp("", "mirror-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if mirrord.Binary = os.Getenv(binaryVariable); mirrord.Binary != "" {
		return m.Run()
	}
	if mirrord.Binary, err = build(dir, "mirror", raced); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}

// build makes the binary as it is released, but for flags, or with the race detector: as the unit tests are built, so that nothing
// is compiled for it alone.
func build(dir, name string, race bool, flags ...string) (string, error) {
	bin := filepath.Join(dir, name)
	args, cgo := append([]string{"build", "-trimpath", "-o", bin}, flags...), "CGO_ENABLED=0"
	if race {
		args, cgo = append([]string{"build", "-race", "-pgo=off", "-o", bin}, flags...), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, "./cmd/mirror")...)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the mirror: %w\n%s", err, out)
	}
	return bin, nil
}
