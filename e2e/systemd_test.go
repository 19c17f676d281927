package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// TestSystemdUnits: systemd itself finds no mistake in the units, and what it computes as their exposure is no more than
// deploy/systemd/README.md says. That is a check of the files: no service manager runs here.
func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	analyze := tool.System(t, "systemd-analyze")
	readme, err := os.ReadFile("../deploy/systemd/README.md")
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, name, text, limit string) (mistakes string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "/usr/local/bin/mirror", mirrord.Binary)), 0o600); err != nil {
			t.Fatal(err)
		}
		r := proc.Run(t, proc.Options{}, analyze, "verify", "--man=no", file)
		for line := range strings.Lines(r.Text()) {
			// Two settings are of systemd 254; an earlier one ignores them, and says so.
			if !strings.Contains(line, "Unknown key 'RestartSteps'") && !strings.Contains(line, "Unknown key 'RestartMaxDelaySec'") && strings.Contains(line, name) {
				mistakes += line
			}
		}
		if r.Code != 0 {
			mistakes += "verify: " + r.Text()
		}
		r = proc.Run(t, proc.Options{}, analyze, "security", "--offline=true", "--no-pager", "--threshold="+limit, file)
		if r.Code != 0 {
			mistakes += "exposure: " + r.Text()
		}
		return mistakes
	}
	for _, name := range []string{"mirror.service", "mirror-node.service"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile("../deploy/systemd/" + name)
			if err != nil {
				t.Fatal(err)
			}
			unit := string(b)
			m := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(name) + "` \\| (\\d)\\.(\\d) \\|").FindStringSubmatch(string(readme))
			if m == nil {
				t.Fatal("deploy/systemd/README.md does not say its exposure")
			}
			limit := strings.TrimPrefix(m[1], "0") + m[2] // in tenths
			if bad := check(t, name, unit, limit); bad != "" {
				t.Error(bad)
			}
			for what, broken := range map[string]string{
				"another key":      strings.Replace(unit, "ProtectHome=yes", "ProtectHomes=yes", 1),
				"a value":          strings.Replace(unit, "ProtectHome=yes", "ProtectHome=certainly", 1),
				"a call":           strings.Replace(unit, "@system-service\n", "@system-servic\n", 1),
				"a program":        strings.Replace(unit, "ExecStart=/usr/local/bin/mirror ", "ExecStart=/usr/local/bin/mirrored ", 1),
				"all capabilities": strings.Replace(unit, "CapabilityBoundingSet=\n", "", 1),
				"devices":          strings.Replace(unit, "PrivateDevices=yes", "PrivateDevices=no", 1),
			} {
				if broken == unit || check(t, name, broken, limit) == "" {
					t.Errorf("a unit with a mistake passes: %s", what)
				}
			}
		})
	}
}
