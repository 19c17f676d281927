package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// TestAttack plays the scenes of `make attack` that take seconds: a hostile registry, publisher and client against the
// binary with the race detector. Each figure that misses its bound fails the scene. The floods are in `make attack`
// alone: memory and times of this binary say nothing.
func TestAttack(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "attack")
	proc.Must(t, proc.Options{Env: []string{"CGO_ENABLED=0"}}, tool.System(t, "env"), "go", "build", "-o", bin, "./attack")
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	r, err := proc.Exec(ctx, proc.Options{}, bin, "-mirror", mirrord.Binary, "-short", "-raced", "-json")
	if err != nil {
		t.Fatal(err)
	}
	type figure struct {
		Scene, What, Got, Bound string
		OK                      bool
	}
	scenes := make(map[string][]figure)
	lines := bufio.NewScanner(strings.NewReader(r.Stdout))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var f figure
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		scenes[f.Scene] = append(scenes[f.Scene], f)
	}
	if len(scenes) < 50 {
		t.Fatalf("%d scenes, want 50 at least; it said:\n%s", len(scenes), r.Stderr)
	}
	for name, figures := range scenes {
		t.Run(name, func(t *testing.T) {
			for _, f := range figures {
				if !f.OK {
					t.Errorf("%s: %s, want: %s", f.What, f.Got, f.Bound)
				}
			}
		})
	}
}
