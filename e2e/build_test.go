package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// TestStatic holds the released binary to what the README promises: one file, that needs nothing.
func TestStatic(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "mirror")
	compile(t, bin, "CGO_ENABLED=0")
	if text := proc.Must(t, proc.Options{}, tool.System(t, "file"), bin); !strings.Contains(text, "statically linked") {
		t.Errorf("file says: %s", text)
	}
	if r := proc.Run(t, proc.Options{}, tool.System(t, "ldd"), bin); r.Code == 0 || !strings.Contains(r.Text(), "not a dynamic executable") {
		t.Errorf("ldd says: %s", r.Text())
	}
	if text := proc.Must(t, proc.Options{}, bin, "version"); !strings.HasPrefix(text, "mirror ") {
		t.Errorf("mirror version says: %s", text)
	}
}

func compile(t *testing.T, out string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", out, "./cmd/mirror")
	cmd.Dir, cmd.Env = "..", append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go build with %v: %v\n%s", env, err, text)
	}
}
